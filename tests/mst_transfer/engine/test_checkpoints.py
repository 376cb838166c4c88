"""Checkpoints of the heads, from the command line: broken ones, full disks, used folders, two processes."""

import json
import time
from pathlib import Path

import pytest
import torch
from full_disks import largest_file
from group_members import choose_together
from mmengine.config import Config
from process_groups import run_group
from untouched_folders import contents, refusal

from mst_transfer.cli.main import main
from mst_transfer.engine import checkpoints
from mst_transfer.files.checksums import verify_checkpoint, write_checkpoint

ONE_EPOCH = ["train_cfg.max_epochs=1"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_broken_newest_checkpoint_is_passed_over(tiny_seg_config: Path, tmp_path: Path, train, capsys) -> None:
    run = tmp_path / "run"
    train()
    assert all(verify_checkpoint(path) for path in run.glob("*.pth"))
    expected = weights(run / "epoch_2.pth")
    flip(run / "epoch_2.pth")
    said = train("--resume", str(run / "epoch_2.pth"), status=1)
    assert "epoch_2.pth is broken: its record" in said
    assert main(["test", str(tiny_seg_config), str(run / "epoch_2.pth"), "--work-dir", str(tmp_path / "t")]) == 1
    assert "epoch_2.pth is broken" in capsys.readouterr().err
    said = train("--resume")
    assert "epoch_2.pth is broken (its record" in said and f"going on from {run / 'epoch_1.pth'}" in said
    torch.testing.assert_close(weights(run / "epoch_2.pth"), expected, rtol=0, atol=0)

    said = train(status=1)  # neither --resume nor --fresh
    assert "holds checkpoints of an earlier run: epoch_1.pth, epoch_2.pth. Next step: --resume" in said
    train("--fresh", options=ONE_EPOCH)
    assert {path.name for path in run.glob("*.pth")} == {"epoch_1.pth"}
    torch.testing.assert_close(weights(run / "earlier_1" / "epoch_2.pth"), expected, rtol=0, atol=0)


def test_a_checkpoint_that_is_not_written_ends_the_run_with_one_message(tmp_path: Path, train) -> None:
    with largest_file(50_000):
        assert "epoch_1.pth: File too large" in train(options=ONE_EPOCH, status=1)
    assert not list((tmp_path / "run").glob("*.pth")) and not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.parametrize(
    ("hooks", "kind"),
    [
        (None, checkpoints.HOOK),
        (dict(logger=dict(type="LoggerHook")), checkpoints.HOOK),
        (dict(checkpoint=dict(interval=3)), checkpoints.HOOK),
        (dict(checkpoint=dict(type="CheckpointHook", interval=3)), checkpoints.HOOK),
        (dict(checkpoint=dict(type="my.Hook", interval=3)), "my.Hook"),
    ],
)
def test_our_hook_stands_in_for_mmengines_alone(hooks: dict | None, kind: str) -> None:
    cfg = Config(dict(default_hooks=hooks) if hooks else {})
    checkpoints.use_safe_checkpoints(cfg)
    hook = (cfg.get("default_hooks") or hooks)["checkpoint"]
    assert hook["type"] == kind and hook.get("interval", 3) == 3
    cfg = Config(dict(default_hooks=dict(checkpoint=None)))
    checkpoints.use_safe_checkpoints(cfg)
    assert cfg.default_hooks["checkpoint"] is None


def test_the_main_process_decides_for_all(tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path / f"epoch_{step}.pth", dict(x=torch.zeros(500)))
    flip(tmp_path / "epoch_2.pth")
    first, second = run_group(choose_together, 2, tmp_path / "group", str(tmp_path))
    assert first == second and first[0] == str(tmp_path / "epoch_1.pth")
    assert "epoch_2.pth is broken" in first[1] and "epoch_9.pth does not exist" in first[2]
    assert "No space left" in first[3] and "go on with --resume" in first[3]


def test_weights_to_begin_with_cover_the_backbone(tmp_path: Path, train) -> None:
    """``load_from``, which mmengine loads as far as it fits."""
    train(options=ONE_EPOCH)
    whole = weights(tmp_path / "run" / "epoch_1.pth")
    for name, status in (("backbone.layer1.0.conv1.weight", 1), ("decode_head.conv_seg.weight", 0)):
        part = tmp_path / f"without_{name}.pth"
        torch.save(dict(state_dict={key: one for key, one in whole.items() if key != name}, meta={}), part)
        said = train(into=name, options=[*ONE_EPOCH, f"load_from={part}"], status=status)
        if status == 0:
            said = next((tmp_path / name).glob("*/*.log")).read_text()
            assert json.loads((tmp_path / name / "results.json").read_text())["load_from"] == str(part)
        assert f"{part} lacks 1 tensors of this model's backbone, such as {name}" in said or (
            f"{part} covers the backbone; 1 other tensors, such as {name}" in said
        )


REFUSALS = (
    ("decode_head.num_convs: 1 in the checkpoint", ["model.decode_head.num_convs=2"]),
    ("samples of an iteration 2", ["train_dataloader.batch_size=4"]),
    ("dropout probability", ["model.decode_head.dropout_ratio=2"]),  # while everything is being built
)


def test_a_refused_resume_leaves_the_work_dir_as_it_was(tiny_seg_config: Path, tmp_path: Path, train) -> None:
    """One that goes on writes its config."""
    run = tmp_path / "run"
    words = ["train", str(tiny_seg_config), "--work-dir", str(run)]
    train(options=ONE_EPOCH)
    time.sleep(1 - time.time() % 1)  # mmengine names the folder of a log by the second
    before = contents(run)
    for reason, options in REFUSALS:
        assert reason in refusal(main, [*words, "--resume", "--cfg-options", *options])
        assert contents(run) == before, options
    assert refusal(main, [*words, "--resume"]) == ""
    assert contents(run)["tiny_seg.py"] != before["tiny_seg.py"] and len(list(run.glob("*/*.log"))) == 2
