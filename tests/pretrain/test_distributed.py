"""Two gloo processes against one process with the same global batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def run(config: Path, out: Path, batch: int, processes: int) -> dict[str, torch.Tensor]:
    """Trains a run through the launcher; its last checkpoint."""
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    options = [f"train_dataloader.batch_size={batch}", "model.backbone.drop_path_rate=0"]
    command = ["bash", str(root / "tools/pretrain.sh"), str(config), str(processes), "--work-dir", str(out)]
    done = subprocess.run([*command, "--cfg-options", *options], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "iter_4.pth", weights_only=False)


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


WORKER = """
import sys, torch, torch.distributed as dist
from mst_transfer.compat.launch import shutdown_distributed
from pretrain.batch_norm import GlooSyncBatchNorm2d, build_batch_norm
rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
norm = build_batch_norm(3)
assert type(norm) is GlooSyncBatchNorm2d
torch.manual_seed(0)
norm.weight.data.uniform_(); norm.bias.data.uniform_()
x = (torch.randn(4, 3, 5, 6) * 3 + 7)[rank * 2 : rank * 2 + 2].requires_grad_()
y = norm(x)
(y * torch.linspace(0, 1, y.numel()).view_as(y)).sum().backward()
gradients = dict(x=x.grad, w=norm.weight.grad, b=norm.bias.grad)
torch.save(dict(gradients, y=y.detach(), m=norm.running_mean, v=norm.running_var), f"{out}/{rank}.pt")
del x, y, norm, gradients  # gloo aborts now and then if the graph outlives the group
shutdown_distributed()
"""


def test_batch_norm_over_processes_equals_one_batch(tmp_path: Path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    commands = [[sys.executable, "-c", WORKER, str(rank), str(port), str(tmp_path)] for rank in range(2)]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    norm = torch.nn.BatchNorm2d(3)
    torch.manual_seed(0)
    norm.weight.data.uniform_()
    norm.bias.data.uniform_()
    x = (torch.randn(4, 3, 5, 6) * 3 + 7).requires_grad_()
    y = norm(x)
    factor = torch.linspace(0, 1, y.numel() // 2).view(2, 3, 5, 6)
    (y * torch.cat([factor, factor])).sum().backward()
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts[0]["w"] + parts[1]["w"], norm.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts[0]["b"] + parts[1]["b"], norm.bias.grad)
    for part in parts:
        torch.testing.assert_close(part["m"], norm.running_mean)
        torch.testing.assert_close(part["v"], norm.running_var)
