"""Two gloo processes against one process with the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from agreeing_runs import swin_step
from process_groups import run_group


def run(config: Path, out: Path, batch: int, processes: int) -> dict[str, torch.Tensor]:
    """Trains a run through the launcher; its last checkpoint."""
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    options = [f"train_dataloader.batch_size={batch}", "model.backbone.drop_path_rate=0"]
    command = ["bash", str(root / "tools/pretrain.sh"), str(config), str(processes), "--work-dir", str(out)]
    done = subprocess.run([*command, "--cfg-options", *options], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "iter_4.pth", weights_only=True)


@pytest.mark.slow
def test_two_processes_equal_one(sgd_config: Path, tmp_path: Path):
    """Losses, centre, teacher, student, decoder with its BatchNorm statistics, after four steps."""
    one = run(sgd_config, tmp_path / "one", batch=8, processes=1)
    two = run(sgd_config, tmp_path / "two", batch=4, processes=2)
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert any("running_var" in name for name in one["state_dict"])
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, rtol=1e-4, atol=2e-6, msg=name)
    assert one["state_dict"]["dino_loss.center"].abs().max() > 1e-3
    histories = [checkpoint["message_hub"]["log_scalars"] for checkpoint in (one, two)]
    for name in ("loss", "loss_dino", "loss_restoring", "teacher_entropy", "mask_ratio", "grad_norm"):
        first, second = (history[f"train/{name}"].data[0] for history in histories)
        torch.testing.assert_close(torch.tensor(second), torch.tensor(first), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_swin_step_over_processes_equals_one_batch(tmp_path: Path):
    """Every parameter of the student gets a gradient, and the mean over processes is that of the whole batch."""
    losses, gradients, center = swin_step(processes=1)
    parts = run_group(swin_step, 2, tmp_path / "group", 2)
    for name in ("loss", "loss_dino", "loss_restoring", "teacher_entropy", "mask_ratio"):
        mean = (parts[0][0][name] + parts[1][0][name]) / 2
        torch.testing.assert_close(mean, losses[name], rtol=1e-4, atol=1e-5, msg=name)
    for part in parts:
        torch.testing.assert_close(part[2], center)
        assert part[1].keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient is not None and gradient.abs().max() > 0, name
            torch.testing.assert_close(part[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
