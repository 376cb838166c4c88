"""There are never fewer whole checkpoints than there should be, whatever happens while one is written."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from full_disks import small_disk
from line_run import build
from mmengine.runner import Runner

from mst_transfer.files.checksums import BrokenCheckpointError, verify_checkpoint
from mst_transfer.runs import checkpoint_hook
from mst_transfer.runs.checkpoint_hook import CheckpointNotSavedError, SafeCheckpointHook
from mst_transfer.runs.checkpoints import find_checkpoint
from mst_transfer.runs.identity import KEY, OtherRunError


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and path.suffix not in (".log", ".py", ".sha256")}


def ready(runner: Runner) -> tuple[Runner, SafeCheckpointHook]:
    """As after ``train`` has built everything, before its first step."""
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook = hook_of(runner)
    hook.before_train(runner)
    return runner, hook


def hook_of(runner: Runner) -> SafeCheckpointHook:
    return next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))


def test_last_and_best_are_kept_as_mmengine_keeps_them(tmp_path: Path) -> None:
    build(tmp_path, scores=[1, 3, 2, 4], max_keep_ckpts=2).train()
    assert files(tmp_path) == {"epoch_3.pth", "epoch_4.pth", "best_score_epoch_4.pth", "last_checkpoint"}
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_4.pth")
    assert all(verify_checkpoint(path) for path in tmp_path.glob("*.pth"))


def test_new_files_come_before_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's hook removes first. Here the old file still stands when the new one and the pointer are complete."""
    seen = []
    remove = SafeCheckpointHook._remove

    def note(self: SafeCheckpointHook, path: str) -> bool:
        there = {one.name for one in tmp_path.glob("*.pth") if verify_checkpoint(one)}
        seen.append((Path(path).name, there, Path((tmp_path / "last_checkpoint").read_text()).name))
        return remove(self, path)

    monkeypatch.setattr(SafeCheckpointHook, "_remove", note)
    build(tmp_path, epochs=2, scores=[1, 2], max_keep_ckpts=1).train()
    old_step, old_best = seen
    assert old_step == ("epoch_1.pth", {"epoch_1.pth", "epoch_2.pth", "best_score_epoch_1.pth"}, "epoch_2.pth")
    assert old_best == ("best_score_epoch_1.pth", {old_best[0], "best_score_epoch_2.pth", "epoch_2.pth"}, "epoch_2.pth")


def test_each_of_several_metrics_keeps_its_best(tmp_path: Path) -> None:
    scores = [dict(a=1.0, b=2.0), dict(a=2.0, b=1.0), dict(a=0.0, b=0.0)]
    build(tmp_path, epochs=3, scores=scores, save_best=["a", "b"], rule="greater", max_keep_ckpts=1).train()
    assert files(tmp_path) == {"epoch_3.pth", "best_a_epoch_2.pth", "best_b_epoch_1.pth", "last_checkpoint"}


def test_the_same_best_again(tmp_path: Path) -> None:
    """A best file of the same name is written over, and not removed after."""
    runner = build(tmp_path, epochs=1, scores=[1], max_keep_ckpts=1)
    runner.train()
    hook = hook_of(runner)
    runner.train_loop._epoch = 1
    hook._save_best_checkpoint(runner, dict(score=5.0))
    assert files(tmp_path) == {"epoch_1.pth", "best_score_epoch_1.pth", "last_checkpoint"}


@pytest.mark.parametrize(
    ("refused", "stay"),
    [
        ("epoch_3.pth", {"epoch_2.pth", "best_score_epoch_2.pth"}),
        ("best_score_epoch_3.pth", {"epoch_3.pth", "best_score_epoch_2.pth"}),
        ("last_checkpoint", {"epoch_1.pth", "epoch_2.pth", "best_score_epoch_1.pth"}),
    ],
)
def test_a_failed_save_stops_the_run_and_removes_nothing(
    tmp_path: Path, refused: str, stay: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def no_space(source: str, target: Path) -> None:
        if Path(target).name == refused and (refused != "last_checkpoint" or (tmp_path / "epoch_2.pth").exists()):
            raise OSError(28, "No space left on device")
        replace(source, target)

    runner = build(tmp_path, scores=[1, 2, 3, 4], max_keep_ckpts=1)
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(CheckpointNotSavedError, match=f"cannot write .*{refused}: No space.*go on with --resume"):
        runner.train()
    monkeypatch.undo()
    assert files(tmp_path) == {*stay, "last_checkpoint"}
    pointed = find_checkpoint(tmp_path, "auto")
    assert pointed is not None and verify_checkpoint(pointed)
    resumed = build(tmp_path, scores=[4, 4, 4], max_keep_ckpts=1, resume=pointed)
    resumed.train()
    assert "epoch_4.pth" in files(tmp_path) and resumed.iter == 8


def test_what_the_disk_gives_back_is_compared_before_anything_is_removed(tmp_path: Path, monkeypatch) -> None:
    def broken(path: str) -> None:
        raise BrokenCheckpointError(path, "its content does not match its checksum")

    runner = build(tmp_path, epochs=2, max_keep_ckpts=1)
    monkeypatch.setattr(checkpoint_hook, "verify_checkpoint", broken)
    with pytest.raises(CheckpointNotSavedError, match=r"epoch_2\.pth is broken"):
        runner.train()
    assert (tmp_path / "epoch_1.pth").exists()
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_1.pth")


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    runner, hook = ready(build(tmp_path / "run", max_keep_ckpts=1))
    (tmp_path / "run").rename(tmp_path / "unmounted")
    with pytest.raises(CheckpointNotSavedError, match="who removed or unmounted the folder"):
        hook._save_checkpoint(runner)
    assert not (tmp_path / "run").exists()


def test_a_step_that_is_done_again_replaces_its_file(tmp_path: Path) -> None:
    build(tmp_path, epochs=3, max_keep_ckpts=2).train()
    before = (tmp_path / "epoch_3.pth").stat().st_ino
    build(tmp_path, epochs=3, max_keep_ckpts=2, resume=str(tmp_path / "epoch_2.pth")).train()
    assert (tmp_path / "epoch_3.pth").stat().st_ino != before
    assert files(tmp_path) == {"epoch_2.pth", "epoch_3.pth", "last_checkpoint"}


def test_a_step_that_is_saved_twice_counts_once(tmp_path: Path) -> None:
    runner, hook = ready(build(tmp_path, max_keep_ckpts=2))
    for epoch in (0, 1, 1):
        runner.train_loop._epoch = epoch
        hook._save_checkpoint(runner)
    assert files(tmp_path) == {"epoch_1.pth", "epoch_2.pth", "last_checkpoint"}


def test_one_that_a_killed_run_did_not_come_to_remove_is_removed_on_resuming(tmp_path: Path) -> None:
    build(tmp_path, epochs=2, max_keep_ckpts=1).train()
    content = torch.load(tmp_path / "epoch_2.pth", weights_only=True)
    assert content["message_hub"]["runtime_info"]["keep_ckpt_ids"] == [1, 2]
    (tmp_path / "epoch_1.pth").write_bytes(b"killed before this was removed")
    (tmp_path / ".epoch_2.pth.x.tmp").touch()
    build(tmp_path, epochs=3, max_keep_ckpts=1, resume=str(tmp_path / "epoch_2.pth")).train()
    assert files(tmp_path) == {"epoch_3.pth", "last_checkpoint"}


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path) -> None:
    data = dict(type="Photos", data_root="/here", ann_file="a/train.json", classes=("x", "y"))
    model = dict(backbone=dict(depth=12, checkpoint="a.pth"), norm=dict(type="SyncBN"))
    cfg = dict(model=model, train_dataloader=dict(dataset=data))
    build(tmp_path, epochs=1, cfg=cfg).train()
    path = str(tmp_path / "epoch_1.pth")
    assert torch.load(path, weights_only=True)["meta"][KEY]["model.backbone.depth"] == "12"
    moved = dict(
        model=dict(backbone=dict(depth=12, checkpoint=None), norm=dict(type="BN")),
        train_dataloader=dict(dataset=dict(data, data_root="/there", ann_file="b/train.json", classes=["x", "y"])),
    )
    build(tmp_path, epochs=2, cfg=moved, resume=path).train()
    other = dict(cfg, model=dict(backbone=dict(depth=6), norm=dict(type="BN"), extra=1))
    said = r"(?s)backbone.depth: 12 in the checkpoint, 6 now.*model.extra: not set in the checkpoint, 1 now"
    with pytest.raises(OtherRunError, match=said):
        build(tmp_path, epochs=2, cfg=other, resume=path).train()
    build(tmp_path, epochs=2, cfg=dict(other, exact_resume=False), resume=path).train()


def test_too_little_space_is_said_before_the_first_step(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        with pytest.raises(CheckpointNotSavedError, match=r"a checkpoint takes about 8\.0 MB.*not even one"):
            build(disk / "run", ballast=8_000_000).train()
        assert not list(disk.glob("run/*.pth"))


@pytest.mark.parametrize("save_optimizer", [True, False])
def test_the_estimate_is_the_size_of_what_is_written(tmp_path: Path, save_optimizer: bool) -> None:
    runner = build(tmp_path, epochs=1, width=100_000, save_optimizer=save_optimizer)
    _, hook = ready(runner)
    estimate = hook.checkpoint_size(runner)
    build(tmp_path, epochs=1, width=100_000, save_optimizer=save_optimizer).train()
    assert estimate == pytest.approx((tmp_path / "epoch_1.pth").stat().st_size, rel=0.05)


@pytest.mark.parametrize("number", [15, pytest.param(200, marks=pytest.mark.faults)])
def test_killed_while_saving(tmp_path: Path, number: int) -> None:
    """A child saves and replaces checkpoints and best checkpoints, one kept of each, until it is killed.

    At a random moment; every fourth one on the way to its second removal, between writing a file and removing another.
    """
    draw, surplus = random.Random(1), 0
    runner, hook = ready(build(tmp_path, scores=[0], max_keep_ckpts=1, ballast=300_000))
    hook._save_checkpoint(runner)
    for kill in range(number):
        child = os.fork()
        if child == 0:
            epoch = 0

            def remove(path: str, removals: list[str] = []) -> bool:  # noqa: B006 - keeps count
                removals.append(path)
                if len(removals) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                return SafeCheckpointHook._remove(hook, path)

            if kill % 4 == 3:
                hook._remove = remove
            while True:
                epoch += 1
                runner.train_loop._epoch = epoch
                hook._save_checkpoint(runner)
                hook._save_best_checkpoint(runner, dict(score=float(epoch)))
        if kill % 4 != 3:
            time.sleep(draw.uniform(0.0, 0.12))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pointed = Path((tmp_path / "last_checkpoint").read_text())
        assert verify_checkpoint(pointed), "last_checkpoint names a file that is missing or partial"
        steps, best = (list(tmp_path.glob(pattern)) for pattern in ("epoch_*.pth", "best_*.pth"))
        assert all(verify_checkpoint(path) for path in (*steps, *best))
        surplus += len(steps) > 1
        for path in (*steps, *best):
            if path != pointed:
                path.unlink()
        hook._prepare_folder(runner, [])
        assert not list(tmp_path.glob(".*.tmp"))
    assert surplus > 0
