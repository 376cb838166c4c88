"""Steps that are left out: weights, momentum, averages and statistics stay; losses by name and images are recorded."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch import nn

from mst_transfer.devices.number_format import NumberFormat
from mst_transfer.engine.losses_in_fp32 import losses_in_fp32
from mst_transfer.engine.nonfinite import (
    WINDOW_START,
    GuardedAmpOptimWrapper,
    GuardedOptimWrapper,
    NonfiniteHook,
    changing_buffers,
    guarded,
)
from mst_transfer.runs import stop
from mst_transfer.runs.nonfinite_steps import NonfiniteSteps


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).train()


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.1)


def batch(seed: int) -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))


class Run:
    """As much of a Runner as the hook needs."""

    def __init__(self, folder: Path, *hooks: Any, **options: Any) -> None:
        self.model = small_model()
        self.optim_wrapper = GuardedOptimWrapper(optimizer(self.model), **copy.deepcopy(options))
        self.optim_wrapper.initialize_count_status(self.model, 0, 100)
        self.message_hub = MessageHub.get_instance(f"nonfinite {folder}")
        self.message_hub.runtime_info.clear()
        self.work_dir, self.seed, self.iter, self.epoch, self._resume = str(folder), 3, 0, 0, False
        self.hook = NonfiniteHook(limit=3)
        self.hooks = [self.hook, *hooks]
        self.logger = self
        self.warnings: list[str] = []
        for hook in hooks:
            hook.before_run(self)
        self.hook.before_train(self)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def step(self, factor: float = 1.0, poison_statistics: bool = False, plus: float = 0.0) -> None:
        data = {"data_samples": [type("Sample", (), {"img_path": f"images/{self.iter}.jpg"})()]}
        for hook in self.hooks:
            hook.before_train_iter(self, self.iter, data)
        inputs = batch(self.iter) * (float("nan") if poison_statistics else 1.0)
        loss = self.model(inputs).square().mean() * factor + plus
        self.optim_wrapper.update_params(loss)
        for hook in self.hooks:
            hook.after_train_iter(self, self.iter, data, {"loss_cls": loss.detach()})
        self.iter += 1

    def step_to_infinity(self) -> None:
        handle = self.model[2].bias.register_hook(lambda gradient: gradient * float("inf"))
        self.step()
        handle.remove()

    def state(self) -> dict[str, torch.Tensor]:
        states = self.optim_wrapper.optimizer.state_dict()["state"]
        flat = {f"{i}.{k}": torch.as_tensor(v).clone() for i, s in states.items() for k, v in s.items()}
        return {**{k: v.clone() for k, v in self.model.state_dict().items()}, **flat}


def same(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)


CLIPS = (None, dict(max_norm=0.1), dict(type="value", clip_value=0.01))


@pytest.mark.parametrize("options", [*(dict(clip_grad=clip) for clip in CLIPS), dict(accumulative_counts=2)])
def test_steps_that_are_taken_are_mmengines(options: dict, tmp_path: Path) -> None:
    run, model = Run(tmp_path, **options), small_model()
    theirs = OptimWrapper(optimizer(model), **copy.deepcopy(options))
    theirs.initialize_count_status(model, 0, 100)
    for number in range(6):
        run.step()
        theirs.update_params(model(batch(number)).square().mean())
    assert same(dict(run.model.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("way", ["loss", "loss alone", "gradient", "statistics"])
@pytest.mark.parametrize("clip", CLIPS)
def test_a_step_that_is_left_out_touches_nothing(way: str, clip: dict | None, tmp_path: Path) -> None:
    run = Run(tmp_path, clip_grad=clip)
    run.step(), run.step()
    before = run.state()
    if way == "gradient":  # finite loss, infinite gradient in one parameter
        run.step_to_infinity()
    elif way == "loss alone":  # its gradient is finite
        run.step(plus=float("inf"))
    else:
        run.step(float("nan") if way == "loss" else 1.0, poison_statistics=way == "statistics")
    assert same(run.state(), before)
    run.step()
    assert not same(run.state(), before)
    record = json.loads((tmp_path / "nonfinite_step_2_rank_0.json").read_text())
    assert record["samples"] == ["images/2.jpg"] and "loss_cls" in record["logged"] and record["seed"] == 3
    assert "step 2 left out" in run.warnings[0] and "1 of at most 3" in run.warnings[0]


def test_one_bad_micro_batch_spoils_its_window_only(tmp_path: Path) -> None:
    run = Run(tmp_path, accumulative_counts=3)
    for _ in range(3):
        run.step()
    before = run.state()
    run.step(), run.step(poison_statistics=True), run.step()
    assert same(run.state(), before)
    record = json.loads((tmp_path / "nonfinite_step_5_rank_0.json").read_text())
    assert record["samples"] == [f"images/{i}.jpg" for i in (3, 4, 5)]
    assert record["logged"]["loss_cls of micro-batch 1"] == "nan"
    assert record["logged"]["loss_cls of micro-batch 0"] != "nan"
    for _ in range(3):
        run.step()
    assert not same(run.state(), before)


def test_a_checkpoint_inside_a_window_knows_the_statistics_before_it(tmp_path: Path) -> None:
    """A bad micro-batch, then a checkpoint, then the process dies: the resumed run must put back what was before."""
    run = Run(tmp_path, accumulative_counts=2)
    run.step(), run.step()
    before = [buffer.clone() for buffer in changing_buffers(run.model)]
    run.step(poison_statistics=True)
    checkpoint: dict = {}
    run.hook.before_save_checkpoint(run, checkpoint)
    resumed = Run(tmp_path / "resumed", accumulative_counts=2)
    resumed.model.load_state_dict(run.model.state_dict())
    resumed.iter, resumed._resume = 3, True
    resumed.hook.after_load_checkpoint(resumed, checkpoint)
    resumed.optim_wrapper.initialize_count_status(resumed.model, 2, 100)
    resumed.optim_wrapper.update_params(resumed.model(batch(2) * float("nan")).mean())  # as exact resume does
    (tmp_path / "resumed").mkdir()
    resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(changing_buffers(resumed.model), before, strict=True))
    run.step()
    done: dict = {}
    run.hook.before_save_checkpoint(run, done)
    assert WINDOW_START in checkpoint and WINDOW_START not in done


def test_too_many_in_a_row_stop_the_run_and_name_the_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.message_hub.update_info("last_ckpt", "epoch_7.pth")
    run.step(float("inf")), run.step(float("inf")), run.step()  # a good one between
    run.step(float("nan")), run.step(float("nan"))
    assert run.message_hub.runtime_info["nonfinite_steps"] == 4
    with pytest.raises(FloatingPointError, match=r"3 steps in a row, up to step 5, .*epoch_7.pth.*optimizer.lr"):
        run.step(float("nan"))
    with pytest.raises(ValueError, match="max_nonfinite_steps = 0"):
        NonfiniteSteps(run, 0)


def test_an_average_of_weights_does_not_move_towards_them(tmp_path: Path) -> None:
    average = EMAHook(momentum=0.5)
    run = Run(tmp_path, average)
    run.step()
    before = copy.deepcopy(average.ema_model.state_dict())
    run.step(float("nan"))
    assert same(dict(average.ema_model.state_dict()), dict(before))
    run.step()
    assert not same(dict(average.ema_model.state_dict()), dict(before))


@pytest.fixture
def amp(monkeypatch: pytest.MonkeyPatch) -> GuardedAmpOptimWrapper:
    """Loss scaling on the CPU, which mmengine does not offer."""
    from mmengine.optim.optimizer import amp_optimizer_wrapper as module

    monkeypatch.setattr(module, "is_cuda_available", lambda: True)
    monkeypatch.setattr(module, "GradScaler", lambda **options: torch.amp.GradScaler("cpu", **options))
    return GuardedAmpOptimWrapper(loss_scale="dynamic", optimizer=optimizer(small_model()))


def test_a_loss_scale_that_is_too_high_is_lowered_and_is_no_fault(amp: GuardedAmpOptimWrapper) -> None:
    (weight, *_) = amp.optimizer.param_groups[0]["params"]
    before, scale = weight.detach().clone(), amp.loss_scaler.get_scale()
    amp.update_params((weight * (1e39 / scale)).sum())  # gradient finite, until it is scaled
    assert amp.left_out and amp.excused
    assert amp.loss_scaler.get_scale() == scale / 2
    assert torch.equal(weight, before)
    amp.update_params((weight * 1e30).sum())  # of finite gradients a norm that is not: no scale explains it
    assert amp.left_out and not amp.excused and amp.loss_scaler.get_scale() == scale / 2
    amp.update_params(weight.sum() * float("nan"))
    assert amp.left_out and not amp.excused
    amp.update_params(weight.square().sum())
    assert amp.stepped and not amp.left_out and not torch.equal(weight, before)


def test_the_format_on_the_cpu_is_chosen_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from mst_transfer.engine import nonfinite

    def of(wrapper: GuardedOptimWrapper, model: nn.Module) -> torch.dtype:
        with wrapper.optim_context(model):
            return model[0](torch.ones(1, 2)).dtype

    model, told = nn.Sequential(nn.Linear(2, 2)), list[str]()
    monkeypatch.setattr(nonfinite, "print_log", lambda text, logger: told.append(text))
    for name, other in (("bfloat16", "float32"), ("float32", "bfloat16")):
        monkeypatch.setattr(nonfinite, "quickest_format", lambda model, name=name: NumberFormat(name, "measured"))
        begun = GuardedOptimWrapper(optimizer=optimizer(model), cpu_dtype="auto")
        assert of(begun, model) == getattr(torch, name)
        assert model[0](torch.ones(1, 2)).dtype == torch.float32  # outside of a step
        monkeypatch.setattr(nonfinite, "quickest_format", lambda model, name=other: NumberFormat(name, "elsewhere"))
        assert of(begun, model) == getattr(torch, name)
        resumed = GuardedOptimWrapper(optimizer=optimizer(model), cpu_dtype="auto")
        resumed.load_state_dict(begun.state_dict())
        assert of(resumed, model) == getattr(torch, name)
        told.clear()
        resumed.load_state_dict(begun.state_dict())
        assert f"began in {name} and goes on in {name}" in told[0]
    elsewhere: Any = SimpleNamespace(parameters=lambda: iter([torch.empty(1, device="meta")]))
    for wish in ("auto", "bfloat16"):  # of a config that was saved where there is no GPU
        with GuardedOptimWrapper(optimizer=optimizer(model), cpu_dtype=wish).optim_context(elsewhere):
            assert not torch.is_autocast_enabled("cpu")
    plain = GuardedOptimWrapper(optimizer=optimizer(model))
    plain.load_state_dict(begun.state_dict())
    assert of(plain, model) == torch.float32 and "cpu_dtype" not in plain.state_dict()
    with pytest.raises(ValueError, match="cpu_dtype='float16' must be"):
        GuardedOptimWrapper(optimizer=optimizer(model), cpu_dtype="float16")


def test_the_wish_to_stop_travels_with_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, accumulative_counts=2)
    with stop.listening():
        monkeypatch.setattr(stop, "wish", lambda: 130)
        run.step()
        assert stop.agreed() == 0  # in the middle of a step
        run.step()
        assert stop.agreed() == 130


def test_which_wrappers_are_guarded() -> None:
    options = dict(optimizer=dict(type="SGD", lr=1))
    assert guarded(options)["type"] == guarded(dict(options, type=OptimWrapper))["type"]
    assert guarded(dict(options, type="mmengine.AmpOptimWrapper"))["type"] == "mst_transfer.GuardedAmpOptimWrapper"
    for other in (dict(options, type="ApexOptimWrapper"), dict(type="OptimWrapper", generator=1)):
        assert guarded(other) == other


def test_wrappers_without_a_guard_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert not run.warnings
    run.optim_wrapper = OptimWrapper(optimizer(run.model))
    run.hook.before_train(run)
    assert "OptimWrapper: steps" in run.warnings[0] and "not left out" in run.warnings[0]


class SquareLoss(nn.Module):
    def forward(self, prediction: torch.Tensor, *, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).square().sum() * 1e4


def test_losses_get_single_precision_under_autocast() -> None:
    model = nn.ModuleDict(dict(head=nn.Linear(2, 2), loss_dice=SquareLoss()))
    losses_in_fp32(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model["head"](torch.ones(1, 2))
        loss = model["loss_dice"](prediction, target=prediction.detach() + 1)
        again = copy.deepcopy(model)["loss_dice"](prediction, target=prediction.detach() + 1)
    assert prediction.dtype == torch.bfloat16 and loss.dtype == again.dtype == torch.float32
    reference = (prediction.double() - (prediction.double() + 1).to(torch.bfloat16).double()).square().sum() * 1e4
    assert abs(loss.item() - reference.item()) < 1e-3 * reference.item()


def test_boxes_are_not_rounded_to_the_format_of_the_maps() -> None:
    from mmdet.models import SingleRoIExtractor

    extractor = SingleRoIExtractor(dict(type="RoIAlign", output_size=7, sampling_ratio=0), 4, [4, 8])
    maps = [torch.randn(1, 4, 256 // factor, 256 // factor).bfloat16() for factor in (1, 2)]
    rois = torch.tensor([[0, 900.7, 801.3, 940.9, 861.2], [0, 513.1, 702.6, 653.8, 905.4]])
    expected = extractor([one.float() for one in maps], rois)
    losses_in_fp32(extractor)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = extractor(maps, rois)
    assert torch.equal(found, expected)


def test_logs_hold_means_of_finite_values_and_count_what_was_left_out(tmp_path: Path, train, monkeypatch) -> None:
    from mmseg.models import FCNHead

    by_feat, seen = FCNHead.loss_by_feat, []

    def poisoned(self, *args: Any, **kwargs: Any) -> dict:
        found = by_feat(self, *args, **kwargs)
        seen.append(found["loss_ce"].item())
        return {**found, "loss_ce": found["loss_ce"] * (float("nan") if len(seen) in (3, 4) else 1.0)}

    monkeypatch.setattr(FCNHead, "loss_by_feat", poisoned)
    train(options=["+optim_wrapper.clip_grad.max_norm=1"])
    (log,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    rows = [row for row in map(json.loads, log.read_text().splitlines()) if "lr" in row]
    assert len(rows) == len(seen) == 8
    for step, row in enumerate(rows, 1):
        good = [loss for number, loss in enumerate(seen[:step], 1) if number not in (3, 4)]
        for name in ("loss", "decode.loss_ce"):
            assert row[name] == pytest.approx(sum(good) / len(good)), step
        assert row["grad_norm"] > 0 and row.get("left_out_steps", 0) == min(max(step - 2, 0), 2)


def test_an_overflow_is_counted_too(tmp_path: Path) -> None:
    run = Run(tmp_path, clip_grad=dict(max_norm=0.1))
    run.optim_wrapper.message_hub = run.message_hub
    run.step()
    run.optim_wrapper._leave_out = lambda: True  # as a loss scale that was too high
    run.step_to_infinity()
    scalars = run.message_hub.log_scalars
    assert run.optim_wrapper.excused and not run.warnings
    assert scalars["train/left_out_steps"].current() == 1 and len(scalars["train/grad_norm"].data[0]) == 1
