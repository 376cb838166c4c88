"""Pre-trains for some steps on the device of ``far_device`` and prints what the host did in each of them, as JSON.

python far_run.py PHOTOS WORK_DIR KIND        KIND is vit or swin
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from conftest import write_tiny_config
from far_device import NAME, FarDevice

SWIN = dict(arch="swin_tiny_patch4_window7_224", img_size=64, embed_dim=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2))
VIEWS = dict(global_size=64, local_size=32)


def main(photos: str, work_dir: str, kind: str) -> None:
    """Prints the events of each step, trained parameters without a gradient, and networks that stayed as they were."""
    from pretrain.run.loop import PretrainLoop
    from pretrain.run.train import build_parser, build_runner, load_config

    config = write_tiny_config(Path(work_dir), Path(photos))
    options = ["optim_wrapper.dtype=bfloat16", "default_hooks.checkpoint=None"]  # wrappers have no bytes to be saved
    if kind == "swin":
        config.write_text(f"{config.read_text()}\nmodel.update(backbone={dict(SWIN, _delete_=True)})\n")
        options += [f"train_dataloader.dataset.{name}={size}" for name, size in VIEWS.items()]
    args = build_parser().parse_args([str(config), "--work-dir", f"{work_dir}/run", "--cfg-options", *options])
    steps: list[list] = []
    without, run_iter = set[str](), PretrainLoop.run_iter

    def watched(loop: PretrainLoop, *arguments: Any) -> None:
        FarDevice.events.clear()
        run_iter(loop, *arguments)
        steps.append([event._asdict() for event in FarDevice.events])
        if loop.epoch:  # the last layer is frozen before
            without.update(n for n, p in loop.mst.named_parameters() if p.requires_grad and p.grad is None)

    with FarDevice(), patch("mmengine.runner.runner.get_device", lambda: NAME):
        runner = build_runner(load_config(args), "none")
        mst = runner.train_loop.mst
        parts = dict(student=mst.student.head.mlp[0].weight, teacher=mst.teacher.head.mlp[0].weight)
        parts["centre"] = mst.dino_loss.center
        before = {name: part.cpu() for name, part in parts.items()}
        with patch.object(PretrainLoop, "run_iter", watched):
            runner.train()
        assert all(part.device.type == NAME for part in mst.state_dict().values())
        still = [name for name, part in parts.items() if torch.equal(before[name], part.cpu())]
    print(json.dumps(dict(steps=steps, without_gradient=sorted(without), still=still)))


if __name__ == "__main__":
    main(*sys.argv[1:])
