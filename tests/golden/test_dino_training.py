"""Ten steps of our whole loop end where DINO's ``train_one_epoch`` does, from the same weights and crops."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import dino_inputs as inputs
import numpy as np
import pytest
import torch
from golden_files import agree, read
from mmengine.config import Config
from torch import Tensor

from mst_transfer.checkpoint import load_backbone, read_backbone
from pretrain.backbones.vit import MaskedViT
from pretrain.run.loop import Batch, StepLoader
from pretrain.run.train import build_parser, build_runner, load_config

GOLDEN = read("dino.safetensors")[0]
CONFIG = """
_base_ = "mst_transfer::pretrain/configs/mst_vit_sample.py"
model = dict(
    backbone=dict(pos_embed_interpolation="dino", drop_path_rate=0.0, **{vit!r}),
    head=dict(out_dim={train[out_dim]}, use_bn=False, **{head!r}),
    masking=dict(_delete_=True, mode="none"),
    decoder=None,
)
train_dataloader = dict(
    batch_size={train[batch_size]},
    num_workers=0,
    dataset=dict(data_root={data_root!r}, global_size=32, local_size=16, num_local_crops={num_local}),
)
optim_wrapper = dict(clip_grad={train[clip_grad]}, dtype=None)
train_cfg = dict(max_epochs={train[epochs]}, schedule={schedule!r})
visualizer = dict(vis_backends=[dict(type="mmengine.LocalVisBackend")])
"""
SCHEDULED = ("base_lr", "min_lr", "warmup_epochs", "weight_decay", "weight_decay_end", "teacher_momentum")
SCHEDULED += ("warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs")


class GoldenSteps(StepLoader):
    """The golden crops in place of those of an image folder; everything else is the loop's own loader."""

    def iterate(self, epoch: int, start_step: int) -> Iterator[list[Batch]]:
        for step in range(start_step, len(self)):
            global_crops, local_crops = inputs.crops(epoch * len(self) + step)
            batch = len(global_crops)
            yield [dict(global_crops=global_crops, local_crops=local_crops, index=torch.arange(batch))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[float], Path]:
    """Final state, loss of each step, and the work directory."""
    folder = tmp_path_factory.mktemp("run")
    num_images = inputs.TRAIN["batch_size"] * inputs.TRAIN["steps_per_epoch"]
    (folder / "photos").mkdir()
    for i in range(num_images):
        cv2.imwrite(str(folder / "photos" / f"{i}.png"), np.full((40, 40, 3), 20 * i, np.uint8))
    text = CONFIG.format(
        vit=inputs.TRAIN_VIT,
        head=inputs.TRAIN_HEAD,
        train=inputs.TRAIN,
        schedule={name: inputs.TRAIN[name] for name in SCHEDULED}
        | dict(freeze_last_layer_epochs=inputs.TRAIN["freeze_last_layer"]),
        num_local=inputs.NUM_LOCAL,
        data_root=str(folder / "photos"),
    )
    (folder / "dino.py").write_text(text)
    args = build_parser().parse_args([str(folder / "dino.py"), "--work-dir", str(folder / "work")])
    cfg: Config = load_config(args)
    runner = build_runner(cfg, "none")
    loop, mst = runner.train_loop, runner.model
    assert len(loop.dataloader) == inputs.TRAIN["steps_per_epoch"]
    loop.dataloader = GoldenSteps(loop.dataloader.loader, 1)
    for network in (mst.student, mst.teacher):
        network.backbone.vit.load_state_dict(inputs.fill(network.backbone.vit.state_dict()))
        network.head.load_state_dict(inputs.fill(network.head.state_dict()))
    losses: list[float] = []
    mst.register_forward_hook(lambda module, args, output: losses.append(output["loss"].item()))
    runner.train()
    return mst.state_dict(), losses, folder / "work"


def test_losses_of_ten_steps(run):
    agree("loss of each of 10 training steps", torch.tensor(run[1]), GOLDEN["train/losses"], 1e-4)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_weights_after_ten_steps(run, role):
    """All but the biases of the keys, whose gradient is 0 but for rounding, which Adam scales up to whole steps.

    A bias of the keys adds the same number to all scores of a query: softmax takes no notice.
    """
    state = {name.removeprefix("train/" + role + "/"): t for name, t in GOLDEN.items() if f"/{role}/" in name}
    prefix = {role + "." + inputs.rename(name): t for name, t in state.items()}
    assert set(prefix) | {f"{role}.backbone.dino_pos_embed"} == {k for k in run[0] if k.startswith(f"{role}.")}
    ours, theirs, moved = [], [], []
    start = inputs.fill({name.split(".", 1)[1]: tensor for name, tensor in state.items()})
    for name, expected in state.items():
        found, before = run[0][f"{role}.{inputs.rename(name)}"], start[name.split(".", 1)[1]]
        if name.endswith("qkv.bias"):
            found, expected, before = (torch.cat([t.chunk(3)[0], t.chunk(3)[2]]) for t in (found, expected, before))
        ours.append(found.flatten()), theirs.append(expected.flatten())
        moved.append((expected - before).abs().max())
    assert sum(m > 1e-3 for m in moved) >= 30  # nearly every tensor has been trained
    agree(f"{role}'s weights after 10 steps", torch.cat(ours), torch.cat(theirs), 1e-5)


def test_center_after_ten_steps(run):
    agree("centre after 10 steps", run[0]["dino_loss.center"], GOLDEN["train/center"], 1e-6)


def test_files_of_the_run_say_how_position_embeddings_are_resampled(run):
    for role in ("teacher", "student"):
        _, metadata = read_backbone(run[2] / f"{role}.safetensors", role)
        assert metadata.pos_embed_interpolation == "dino"
    vit = MaskedViT("vit_tiny_patch16_224", **inputs.TRAIN_VIT).vit
    report = load_backbone(vit, next(run[2].glob("epoch_*.pth")), role="student")  # a checkpoint of the whole model
    assert report.pos_embed_interpolation == "dino"
