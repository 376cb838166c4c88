import pytest
import torch

from mst_transfer.devices.number_format import NumberFormat
from pretrain.run import optim
from pretrain.run.optim import PretrainOptimWrapper, PretrainOptimWrapperConstructor


def build(model, **options) -> PretrainOptimWrapper:
    cfg = dict(optimizer=dict(type="AdamW"), **options)
    return PretrainOptimWrapperConstructor(cfg)(model)


def test_hyperparameters_reach_the_groups(tiny_mst):
    wrapper = build(tiny_mst())
    wrapper.set_hyperparameters(lr=0.25, weight_decay=0.125)
    assert [g["lr"] for g in wrapper.param_groups] == [0.25, 0.25]
    assert [g["weight_decay"] for g in wrapper.param_groups] == [0.125, 0.0]


def test_the_quickest_format_is_chosen_once_and_kept_by_a_resumed_run(monkeypatch):
    monkeypatch.setattr(optim, "quickest_format", lambda model, tokens: NumberFormat("float16", "it was measured"))
    model = torch.nn.Linear(4, 3)
    begun = build(model, dtype="auto")
    begun.settle_format(model, [9])
    assert begun.dtype == torch.float16 and begun.format.why == "it was measured" and begun.scaler is not None
    begun.scaler.scale(torch.ones(()))
    begun.scaler.update(128.0)
    state = begun.state_dict()
    monkeypatch.setattr(optim, "quickest_format", lambda model, tokens: NumberFormat("bfloat16", "another machine"))
    resumed = build(model, dtype="auto")
    resumed.load_state_dict(state)
    resumed.settle_format(model, [9])
    assert resumed.dtype == torch.float16 and resumed.scaler.get_scale() == begun.scaler.get_scale()
    told = build(model, dtype="float32")  # asked for
    told.load_state_dict(state)
    told.settle_format(model, [9])
    assert told.dtype is None and told.scaler is None
    older = build(model, dtype="auto")  # the checkpoint of an earlier release says nothing
    older.load_state_dict({name: value for name, value in state.items() if name != "number_format"})
    older.settle_format(model, [9])
    assert older.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_on_any_device(tiny_mst, crops, dtype):
    mst = tiny_mst()
    wrapper = build(mst, dtype=dtype)
    wrapper.set_hyperparameters(1e-3, 0.04)
    before = mst.student.head.mlp[0].weight.clone()
    for _ in range(20):  # float16 may overflow until its loss scale has come down
        wrapper.zero_grad()
        with wrapper.autocast():
            losses = mst(**crops())
        wrapper.backward(losses["loss"])
        if wrapper.clip_gradients().isfinite():
            break
        assert wrapper.skip()
        mst.dino_loss.discard_center_update()
    assert all(value.dtype == torch.float32 for value in losses.values())
    exact = tiny_mst()(**crops())["loss"].item()
    assert losses["loss"].item() == pytest.approx(exact, rel=0.02)
    assert mst.student.head.mlp[0].weight.grad.isfinite().all()
    wrapper.step(left_out=torch.zeros(()))
    wrapper.taken()
    assert not torch.equal(before, mst.student.head.mlp[0].weight)


def test_float16_scaler_survives_a_checkpoint(tiny_mst):
    wrapper = build(tiny_mst(), dtype="float16")
    wrapper.scaler.load_state_dict({**wrapper.scaler.state_dict(), "scale": 1024.0})
    other = build(tiny_mst(), dtype="float16")
    other.load_state_dict(wrapper.state_dict())
    assert other.scaler.state_dict()["scale"] == 1024.0


def test_bad_options_are_named(tiny_mst):
    with pytest.raises(ValueError, match="dtype = 'bf16'.*bfloat16, float16"):
        build(tiny_mst(), dtype="bf16")
    with pytest.raises(ValueError, match="clip_grad = 0"):
        build(tiny_mst(), clip_grad=0)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_step_that_is_left_out_changes_nothing(fused: bool, dtype: str) -> None:
    """Neither parameters nor the optimiser's state: the steps around it are those of a run without it."""
    ends = []
    for flags in ((0.0, 1.0, 0.0), (0.0, 0.0)):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        wrapper = PretrainOptimWrapperConstructor(dict(optimizer=dict(type="AdamW", fused=fused), dtype=dtype))(model)
        wrapper.set_hyperparameters(1e-2, 0.04)
        for flag in flags:
            wrapper.zero_grad()
            wrapper.backward(model(torch.ones(2, 4)).square().sum())
            model.weight.grad.mul_(float("nan") if flag else 1.0)
            wrapper.clip_gradients()
            wrapper.step(torch.tensor(flag))
            wrapper.skip() if flag else wrapper.taken()
        ends.append(
            [*model.parameters(), *(value for state in wrapper.optimizer.state.values() for value in state.values())]
        )
        assert not hasattr(wrapper.optimizer, "found_inf")
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True)) and len(ends[0]) == 8
