"""Pre-training's checkpoints from the command line: broken ones, full disks, used folders."""

import sys
from pathlib import Path

import pytest
import torch

from mst_transfer.files.checksums import verify_checkpoint
from pretrain.run.train import main

sys.path.insert(0, str(Path(__file__).parent.parent))
from full_disks import remount, small_disk  # noqa: E402


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


def test_broken_and_used_runs(tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    words = [str(tiny_config), "--work-dir", str(run), "--seed", "5"]
    assert main(words) == 0
    assert {path.name for path in run.glob("*.pth")} == {"iter_4.pth", "iter_8.pth", "iter_12.pth"}
    steps = ("iter_4_", "iter_8_", "iter_12_", "")
    backbones = {f"{step}{role}.safetensors" for step in steps for role in ("teacher", "student")}
    assert {path.name for path in run.glob("*.safetensors")} == backbones
    assert all(verify_checkpoint(path) for pattern in ("*.pth", "*.safetensors") for path in run.glob(pattern))
    expected = weights(run / "iter_12.pth")
    flip(run / "iter_12.pth")
    assert main([*words, "--resume", str(run / "iter_12.pth")]) == 1
    assert "iter_12.pth is broken" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    said = capsys.readouterr().err
    assert "iter_12.pth is broken (its record" in said and f"going on from {run / 'iter_8.pth'}" in said
    torch.testing.assert_close(weights(run / "iter_12.pth"), expected, rtol=0, atol=0)
    assert main(words) == 1
    assert "holds checkpoints of an earlier run: iter_12.pth" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_which_goes_on_later(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 50_000) as disk:
        words = [str(tiny_config), "--work-dir", str(disk / "run"), "--seed", "5"]
        assert main([*words, "--cfg-options", "default_hooks.checkpoint.interval=12"]) == 0
        expected = weights(disk / "run" / "iter_12.pth")
        assert main([*words, "--fresh", "--cfg-options", "default_hooks.checkpoint.max_keep_ckpts=-1"]) == 0
        for name in ("iter_8", "iter_12"):
            for path in (disk / "run").glob(f"{name}*"):
                path.unlink()
        used = sum(path.stat().st_size + 4096 for path in disk.rglob("*") if path.is_file())
        remount(disk, f"size={used // 1000 + 60}k")
        assert main([*words, "--resume"]) == 1
        assert "No space left on device" in (said := capsys.readouterr().err) or "not even one can be written" in said
        assert {path.name for path in (disk / "run").glob("*.pth")} == {"iter_4.pth"}
        assert verify_checkpoint(disk / "run" / "iter_4.pth") and not list((disk / "run").glob(".*.tmp"))
        remount(disk, "size=50m")
        assert main([*words, "--resume"]) == 0
        torch.testing.assert_close(weights(disk / "run" / "iter_12.pth"), expected, rtol=0, atol=0)
