"""The format of training follows the device: GPUs by what they are, CPUs by what is measured."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
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
        chosen = quickest_format(model)
        assert chosen.name == name and f"{share:.2g}" in chosen.why
    assert asked == [(8, 32)] * 3  # 3 x 256 weights, against 512


def test_the_measurement_runs_both_formats_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_products, "slow_mkl", lambda: False)
    used = []
    linear = torch.nn.functional.linear

    def watched(rows, weight, bias=None):
        out = linear(rows, weight, bias)
        used.append(out.dtype)
        assert out.requires_grad and rows.requires_grad
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    with torch.no_grad():
        seconds = number_format._race_on_cpu(48, 96)
    assert set(used) == {torch.float32, torch.bfloat16} and min(seconds.values()) > 0


def test_a_model_without_linear_layers_stays_in_single_precision() -> None:
    assert quickest_format(nn.Conv2d(3, 4, 1)).name == "float32"
