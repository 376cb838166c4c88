"""Compiled blocks and recomputed ones: the same losses and gradients, and nothing is compiled after the first step."""

import copy
import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pretrain.backbones import masked
from pretrain.backbones.swin import MaskedSwin
from pretrain.backbones.vit import MaskedViT
from pretrain.model import MST

VIT = dict(arch="vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=3, num_heads=2, drop_path_rate=0.2)
SWIN = dict(arch="swin_tiny_patch4_window7_224", img_size=64, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts graphs; they run without code generation, which needs a C++ compiler."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter, fullgraph=True))
    return counter


def steps(backbone: dict, dtype: torch.dtype | None, graphs: CompileCounterWithBackend) -> tuple[list, list]:
    torch.manual_seed(0)
    model = MST(backbone=backbone, head=dict(out_dim=64, hidden_dim=32, bottleneck_dim=16), decoder=dict(channels=(8,)))
    found, counts = [], []
    for step in range(2):
        torch.manual_seed(step)
        views = dict(
            global_crops=torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8),
            local_crops=torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8),
            index=torch.arange(2),
        )
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = model(**views, step=step, teacher_temp=0.04 + 0.01 * step)["loss"]
        loss.backward()
        found.append(loss.detach())
        counts.append(graphs.frame_count)
        model.update_teacher(0.9)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*found, *gradients], counts


@pytest.mark.parametrize("backbone, dtype", [(VIT, torch.bfloat16), pytest.param(SWIN, None, marks=pytest.mark.slow)])
def test_compiled_is_eager(backbone: dict, dtype: torch.dtype | None, counter: CompileCounterWithBackend) -> None:
    expected, none = steps(backbone, dtype, counter)
    assert none == [0, 0]
    found, counts = steps(backbone | {"compile_blocks": True}, dtype, counter)
    assert counts[0] == 3 and counts == counts[:1] * 2  # student's global and local views, teacher's global ones
    tolerance = dict(rtol=1e-4, atol=1e-5) if dtype is None else dict(rtol=0.05, atol=0.05)
    torch.testing.assert_close(found, expected, **tolerance)


both = pytest.mark.parametrize("kind, backbone", [(MaskedViT, VIT), (MaskedSwin, SWIN)])


@both
def test_gradient_checkpointing_changes_nothing(kind: type, backbone: dict) -> None:
    gradients = []
    for thrifty in (False, True):
        torch.manual_seed(0)
        model = kind(**backbone | {"drop_path_rate": 0.0}, grad_checkpointing=thrifty)
        model(torch.randn(2, 3, 64, 64)).cls_token.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.vit.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])


@both
def test_not_with_checkpointing(kind: type, backbone: dict) -> None:
    with pytest.raises(ValueError, match="compile_blocks = True and backbone.grad_checkpointing = True exclude"):
        kind(**backbone, compile_blocks=True, grad_checkpointing=True)


@pytest.mark.parametrize("compile_blocks", [False, True])
@both
def test_a_copy_has_weights_of_its_own(kind: type, backbone: dict, compile_blocks: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda *args, **kwargs: function(*args, **kwargs))
    original = kind(**backbone, compile_blocks=compile_blocks).eval()
    assert list(original.state_dict()) == list(kind(**backbone).state_dict())
    other, images = copy.deepcopy(original), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = original(images, in_step=True).cls_token
        for parameter in original.parameters():
            parameter.zero_()
        torch.testing.assert_close(other(images, in_step=True).cls_token, expected)


@both
def test_only_a_gpus_training_steps_are_compiled_unasked(kind: type, backbone: dict, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    images = torch.zeros(1, 3, 64, 64)
    for here, options, in_step, expected in (
        (False, {}, True, 0),
        (True, {}, True, 1),
        (True, {}, False, 0),
        (True, {"compile_blocks": False}, True, 0),
        (True, {"grad_checkpointing": True}, True, 0),
        (False, {"compile_blocks": True}, False, 0),
        (False, {"compile_blocks": True}, True, 1),
    ):
        monkeypatch.setattr(masked, "can_compile", lambda device, here=here: here)
        compiled.clear()
        kind(**backbone, **options)(images, in_step=in_step)
        assert len(compiled) == expected, (here, options, in_step)
