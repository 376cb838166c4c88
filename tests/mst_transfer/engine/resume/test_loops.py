"""Runs resumed from each of their checkpoints end with the bits of the run that was never stopped."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_tasks
import torch
from compare_runs import check_equal, logged, read

from mst_transfer.cli.main import main
from mst_transfer.engine.resume.loops import ExactIterLoop
from mst_transfer.engine.resume.order import ExactBatchSampler

SHORT = {
    "seg": ["train_cfg.max_iters=12", "train_cfg.val_interval=6", "default_hooks.checkpoint.max_keep_ckpts=-1"],
    "det": ["train_cfg.max_epochs=2", "train_cfg.val_interval=1", "default_hooks.checkpoint.max_keep_ckpts=-1"],
}


def train(task: str, config: Path, out: Path, options: list[str], resume: Path | None = None) -> int:
    words = tiny_tasks.command(task, config, out, [*SHORT[task], *options], resume=False)
    return main(["train", *words[:5], *(["--resume", str(resume)] if resume else []), *words[5:]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """Makes, once for each task, its config and a whole run of 12 iterations."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(task: str) -> tuple[Path, Path]:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            config = tiny_tasks.write_config(task, folder)
            assert train(task, config, folder / "whole", []) == 0
            made[task] = config, folder / "whole"
        return made[task]

    return make


@pytest.mark.parametrize(
    ("task", "stop", "workers"),
    [("seg", 3, 2), ("seg", 6, 0), ("det", 2, 1), ("det", 6, 0)],
    ids=["between accumulated iterations", "before a validation", "inside an epoch", "at the end of an epoch"],
)
def test_resumed_equals_uninterrupted(task: str, stop: int, workers: int, whole, tmp_path: Path) -> None:
    """Weights, averaged weights, optimizer, schedulers, histories and logs."""
    config, expected = whole(task)
    out = tmp_path / "resumed"
    out.mkdir()
    shutil.copy(expected / f"iter_{stop}.pth", out)
    options = [f"train_dataloader.num_workers={workers}"]
    assert train(task, config, out, options, out / f"iter_{stop}.pth") == 0
    assert check_equal(expected, out, all_rows=False) >= 12 - stop
    rows = logged(out)
    assert f"train {stop}" not in rows and f"train {stop + 1}" in rows
    if (task, stop) == ("seg", 6):  # mmengine writes the checkpoint before it validates
        assert read(expected / "iter_6.pth")["message_hub"]["runtime_info"]["newest_validation"] == 6
    assert sum(name.startswith("val") for name in rows) == (1 if (task, stop) == ("seg", 6) else 2)


def test_a_validation_missed_by_a_kill_is_made_up_for(whole, tmp_path: Path) -> None:
    """Of the last checkpoint too: the run has nothing else left to do."""
    config, expected = whole("det")
    checkpoint = expected / "iter_12.pth"
    assert train("det", config, tmp_path / "again", [], checkpoint) == 0
    assert set(logged(tmp_path / "again")) == {"val 12"}
    assert (tmp_path / "again" / "results.json").is_file()


def test_far_iterations_are_reached_at_once(whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iteration 100,000: only the samples of its own batches are read, and no order of the epochs before is drawn."""
    from mmseg.datasets import BaseSegDataset

    config, expected = whole("seg")
    checkpoint = read(expected / "iter_6.pth")
    checkpoint["meta"]["iter"] = 100_000
    torch.save(checkpoint, tmp_path / "far.pth")
    asked: list[int] = []
    drawn: list[int] = []
    prepare, order = BaseSegDataset.prepare_data, ExactBatchSampler.order
    monkeypatch.setattr(BaseSegDataset, "prepare_data", lambda self, idx: (asked.append(idx), prepare(self, idx))[1])
    monkeypatch.setattr(ExactBatchSampler, "order", lambda self, epoch: (drawn.append(epoch), order(self, epoch))[1])
    options = ["train_cfg.max_iters=100002", "train_cfg.val_interval=1000000"]
    assert train("seg", config, tmp_path / "far", options, tmp_path / "far.pth") == 0
    assert len(asked) == 2 * 3 + 11  # two batches, and one validation at the end
    assert drawn and min(drawn) >= 100_000 * 3 // 12 and len(drawn) <= 2
    assert set(logged(tmp_path / "far")) >= {"train 100001", "train 100002"}


def test_other_iterations_are_refused(whole, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cases = (
        ("seg", "train_dataloader.batch_size=2", "samples of an iteration 3, this one has 2"),
        ("seg", "optim_wrapper.accumulative_counts=3", "accumulated iterations 2, this one has 3"),
        ("det", "+train_dataloader.dataset.indices=5", "samples 11, this one has 5"),
    )
    for number, (task, option, words) in enumerate(cases):  # runs of one second and folder share mmengine's instances
        config, expected = whole(task)
        assert train(task, config, tmp_path / f"refused_{number}", [option], expected / "iter_6.pth") == 1
        assert words in capsys.readouterr().err
    assert train("det", config, tmp_path / "other", ["+exact_resume=False", option], expected / "iter_6.pth") == 0


def test_the_switch_and_loops_of_others(whole, tmp_path: Path) -> None:
    from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

    from mst_transfer.engine.runner import exact_train_cfg

    assert exact_train_cfg(dict(by_epoch=True, max_epochs=2)) == dict(type="mst_transfer.ExactEpochLoop", max_epochs=2)
    for kind in ("IterBasedTrainLoop", "mmengine.IterBasedTrainLoop", IterBasedTrainLoop):
        assert exact_train_cfg(dict(type=kind, max_iters=3)) == dict(type="mst_transfer.ExactIterLoop", max_iters=3)
    assert exact_train_cfg(dict(type=EpochBasedTrainLoop))["type"] == "mst_transfer.ExactEpochLoop"  # type: ignore[index]
    assert exact_train_cfg(dict(type="mmdet.TeacherStudentLoop")) is None


def test_the_models_draws_follow_from_seed_and_iteration() -> None:
    def draw(seed: int, iteration: int) -> float:
        ExactIterLoop._seed_iteration(SimpleNamespace(seed=seed), iteration)  # type: ignore[arg-type]
        return float(torch.rand(()))

    places = [(seed, iteration) for seed in (1, 2) for iteration in (0, 1, 2)]
    numbers = [draw(*place) for place in places]
    assert len(set(numbers)) == 6 and [draw(*place) for place in reversed(places)] == numbers[::-1]


def test_what_may_differ_is_said() -> None:
    said: list[str] = []
    cfg = dict(train_dataloader=dict(dataset=dict(pipeline=[dict(type="mmdet.CachedMosaic"), dict(type="Resize")])))
    runner = SimpleNamespace(cfg=cfg, logger=SimpleNamespace(warning=said.append))
    ExactIterLoop._warn(SimpleNamespace(runner=runner))  # type: ignore[arg-type]
    assert len(said) == 1 and "mmdet.CachedMosaic remember" in said[0]


def test_samplers_of_others_get_mmengines_loop(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    config = tiny_tasks.write_config("det", tmp_path)
    config.write_text(
        config.read_text() + "\ntrain_dataloader['sampler'] = dict(type='ClassAwareSampler', _delete_=True)\n"
    )
    assert train("det", config, tmp_path / "run", ["train_cfg.max_epochs=1"]) == 0
    said = capfd.readouterr()
    assert "the order of samples is that of ClassAwareSampler" in said.out + said.err
