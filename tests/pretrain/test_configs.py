"""Every shipped pre-training config builds; the full-scale ones take a real step at reduced image size."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mst_transfer.compat.config_check import check_config
from pretrain.dataset import MultiCropDataset
from pretrain.optim import PretrainOptimWrapperConstructor
from pretrain.registry import MODELS
from pretrain.schedules import Schedule

FOLDER = Path(__file__).resolve().parents[2] / "pretrain" / "configs"
NAMES = sorted(path.name for path in FOLDER.glob("*.py"))
FULL_SCALE = [name for name in NAMES if "imagenet" in name]


def test_the_papers_schedules_are_there():
    assert {"mst_vit_small_16_imagenet_100e.py", "mst_vit_small_16_imagenet_300e.py"} <= set(FULL_SCALE)


@pytest.mark.parametrize("name", NAMES)
def test_builds_with_images_that_fit(name: str, photo_folder: Path):
    cfg = Config.fromfile(FOLDER / name)
    check_config(cfg)
    model = MODELS.build(cfg.model)
    Schedule(**cfg.train_cfg.schedule).check_length(cfg.train_cfg.max_epochs)
    options = {k: v for k, v in cfg.train_dataloader.dataset.items() if k not in ("type", "data_root")}
    dataset = MultiCropDataset(data_root=str(photo_folder), **options)
    for side in (options["global_size"], options["local_size"]):
        assert model.student.backbone.num_patches(side, side) >= model.mask_generator.num
    assert dataset[0, 0]["global_crops"].shape == (2, 3, options["global_size"], options["global_size"])
    assert options["global_size"] == cfg.model.backbone.img_size


@pytest.mark.parametrize("name", FULL_SCALE)
def test_recipe_of_the_paper(name: str):
    """DeiT-S/16, 65,536 prototypes, 2 x 224 + 8 x 96 px, DINO's hyperparameters."""
    cfg = Config.fromfile(FOLDER / name)
    assert cfg.model.backbone.arch == "vit_small_patch16_224" and cfg.model.head.out_dim == 65536
    data, schedule = cfg.train_dataloader.dataset, Schedule(**cfg.train_cfg.schedule)
    assert (data.global_size, data.local_size, data.num_local_crops) == (224, 96, 8)
    assert cfg.train_cfg.max_epochs == int(name.split("_")[-1].removesuffix("e.py"))
    assert schedule == Schedule()  # the defaults are DINO's
    assert schedule.peak_lr(1024) == pytest.approx(2e-3)


@pytest.mark.parametrize("name", FULL_SCALE)
def test_full_scale_takes_a_step(name: str):
    cfg = Config.fromfile(FOLDER / name)
    torch.manual_seed(0)
    mst = MODELS.build(cfg.model).train()
    student = sum(p.numel() for p in mst.student.backbone.vit.parameters())
    assert student == 21_665_664  # DeiT-S/16 without classifier
    optim = PretrainOptimWrapperConstructor(cfg.optim_wrapper)(mst)
    optim.set_hyperparameters(1e-4, 0.04)
    batch = dict(
        global_crops=torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8),
        local_crops=torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8),
        index=torch.arange(2),
    )
    before = mst.teacher.head.mlp[0].weight.clone()
    with optim.autocast():
        losses = mst(**batch)
    optim.backward(losses["loss"])
    assert optim.clip_gradients().isfinite()
    optim.step()
    mst.dino_loss.update_center()
    mst.update_teacher(0.996)
    assert not torch.equal(before, mst.teacher.head.mlp[0].weight)
    assert losses["mask_ratio"].item() == pytest.approx(2 / 16)
