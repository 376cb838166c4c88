"""Two gloo processes against one process with the same global batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


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


SWIN_STEP = """
import sys, torch
from pretrain.model import MST

def swin_gradients(wrap, samples):
    # losses and gradients of one micro-batch: samples of a batch of four
    torch.manual_seed(0)
    backbone = dict(arch="swin_tiny_patch4_window7_224", img_size=64, embed_dim=8, depths=(2, 1, 1, 1),
                    num_heads=(1, 2, 2, 4), window_size=4)
    head = dict(out_dim=32, hidden_dim=16, bottleneck_dim=8)
    mst = MST(backbone, head, dict(num=2), dict(channels=(8,) * 5)).train()
    batch = dict(global_crops=torch.randint(0, 256, (4, 2, 3, 64, 64), dtype=torch.uint8),
                 local_crops=torch.randint(0, 256, (4, 2, 3, 32, 32), dtype=torch.uint8), index=torch.arange(4))
    model = wrap(mst)  # alive until the gradients are reduced
    losses = model(**{name: tensor[samples] for name, tensor in batch.items()})
    losses["loss"].backward()
    gradients = {name: p.grad for name, p in mst.named_parameters() if p.requires_grad}
    return {name: loss.detach() for name, loss in losses.items()}, gradients, mst.dino_loss.center
"""

SWIN_WORKER = (
    SWIN_STEP
    + """
import torch.distributed as dist
from mst_transfer.devices.cpu_ddp import CPUDistributedDataParallel
from mst_transfer.runs.launch import shutdown_distributed
rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
wrap = lambda mst: CPUDistributedDataParallel(mst, broadcast_buffers=False)
torch.save(swin_gradients(wrap, slice(2 * rank, 2 * rank + 2)), f"{out}/{rank}.pt")
import gc; gc.collect()  # gloo aborts now and then if the graph outlives the group
shutdown_distributed()
"""
)


@pytest.mark.slow
def test_a_swin_step_over_processes_equals_one_batch(tmp_path: Path):
    """Every parameter of the student gets a gradient, and the mean over processes is that of the whole batch."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    commands = [[sys.executable, "-c", SWIN_WORKER, str(rank), str(port), str(tmp_path)] for rank in range(2)]
    workers = [subprocess.Popen(command) for command in commands]
    namespace: dict[str, Any] = {}
    exec(SWIN_STEP, namespace)
    losses, gradients, center = namespace["swin_gradients"](lambda mst: mst, slice(0, 4))
    assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in ("loss", "loss_dino", "loss_restoring", "teacher_entropy", "mask_ratio"):
        mean = (parts[0][0][name] + parts[1][0][name]) / 2
        torch.testing.assert_close(mean, losses[name], rtol=1e-4, atol=1e-5, msg=name)
    for part in parts:
        torch.testing.assert_close(part[2], center)
        assert part[1].keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient is not None and gradient.abs().max() > 0, name
            torch.testing.assert_close(part[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
