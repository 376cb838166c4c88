"""The format of training follows the device: GPUs by what they are, CPUs by what is measured."""

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Attention
from torch import nn

from mst_transfer.devices import number_format, onednn_products
from mst_transfer.devices.number_format import quickest_format


@pytest.mark.parametrize(
    "capability, name",
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_gpus(capability: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda", 1))]))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: {1: capability}[device.index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    chosen = quickest_format(model)
    assert chosen.name == name and "A card" in chosen.why and f"{capability[0]}.{capability[1]}" in chosen.why


def test_cpus_take_bfloat16_where_it_is_clearly_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(64, 8), *(nn.Linear(8, 32) for _ in range(3)), nn.Conv2d(3, 512, 16))
    asked = []
    for share, name in ((0.5, "bfloat16"), (0.95, "float32"), (20.0, "float32")):
        seconds = {"float32": 2.0, "bfloat16": 2.0 * share}
        monkeypatch.setattr(number_format, "_race_on_cpu", lambda *size, s=seconds: asked.append(size) or s)
        chosen = quickest_format(model, [197, 37])
        assert chosen.name == name and f"{share:.2g}" in chosen.why
    assert asked == [(8, [37, 197])] * 3  # 3 x 256 weights, against 512
    quickest_format(nn.Linear(3072, 768), [37])
    assert asked[-1] == (384, [37])


def test_swins_attend_within_their_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    seconds = {"float32": 1.0, "bfloat16": 1.0}
    monkeypatch.setattr(number_format, "_race_on_cpu", lambda *size: asked.append(size) or seconds)
    quickest_format(timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1, 6, 1)), [7, 49])
    assert asked == [(96, [49])]


def test_the_measurement_runs_both_formats_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_products, "slow_mkl", lambda: False)
    used, attended = set(), set()
    linear, forward = nn.functional.linear, Attention.forward

    def watched_linear(rows, weight, bias=None):
        out = linear(rows, weight, bias)
        used.add(out.dtype)
        assert out.requires_grad and rows.requires_grad
        return out

    def watched_forward(self, x, *args, **options):
        attended.add((self.fused_attn, x.shape[1]))
        return forward(self, x, *args, **options)

    monkeypatch.setattr(nn.functional, "linear", watched_linear)
    monkeypatch.setattr(Attention, "forward", watched_forward)
    with torch.no_grad():
        seconds = number_format._race_on_cpu(48, [9, 36])
    assert used == {torch.float32, torch.bfloat16} and min(seconds.values()) > 0
    assert attended == {(fused, length) for fused in (True, False) for length in (9, 36)}  # see choose_kernel


def test_a_model_without_linear_layers_stays_in_single_precision() -> None:
    assert quickest_format(nn.Conv2d(3, 4, 1)).name == "float32"


def test_tf32_is_for_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    assert number_format.set_tf32(True, torch.device("cpu")) == "" and torch.get_float32_matmul_precision() == before
    try:
        for allowed, precision, words in ((True, "high", "optim_wrapper.tf32=False"), (False, "highest", "are exact")):
            assert words in number_format.set_tf32(allowed, torch.device("cuda"))
            assert torch.get_float32_matmul_precision() == precision and torch.backends.cudnn.allow_tf32 == allowed
    finally:
        torch.set_float32_matmul_precision(before)
