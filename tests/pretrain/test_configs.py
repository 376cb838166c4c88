"""Every shipped pre-training config builds; the full-scale ones take a real step at reduced image size."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mst_transfer.configs.keys import check_config
from pretrain.data.dataset import MultiCropDataset
from pretrain.model import MST
from pretrain.registry import MODELS
from pretrain.run.optim import PretrainOptimWrapperConstructor
from pretrain.schedules import Schedule

FOLDER = Path(__file__).resolve().parents[2] / "pretrain" / "configs"
NAMES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.py") if path.parent.name != "_base_")
FULL_SCALE = [name for name in NAMES if "imagenet" in name and "continue" not in name]
ABLATIONS = [name for name in NAMES if name.startswith("ablations")]
OF_THE_PAPER = ["mst_vit_small_16_imagenet_100e.py", "mst_vit_small_16_imagenet_300e.py"]
# Parameters without a classifier. ViT: DINO's vit_tiny, vit_small and vit_base with num_classes=0 (its paper says 21 M
# and 85 M). Swin: timm's models, whose 28.3 M and 49.6 M with the classifier are the 28 M and 50 M of Swin's paper.
PARAMETERS = {
    "vit_tiny_16": 5_524_416,
    "vit_tiny_8": 5_526_720,
    "vit_small_16": 21_665_664,
    "vit_small_8": 21_670_272,
    "vit_base_16": 85_798_656,
    "vit_base_8": 85_807_872,
    "swin_tiny": 28_288_354 - (768 * 1000 + 1000),
    "swin_small": 49_606_258 - (768 * 1000 + 1000),
}


def build_without_memory(cfg: Config) -> MST:
    """All shapes, no numbers: a ViT-B with its head takes a gigabyte otherwise."""
    with torch.device("meta"):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize("name", NAMES)
def test_builds_with_images_that_fit(name: str, photo_folder: Path):
    cfg = Config.fromfile(FOLDER / name)
    check_config(cfg)
    cfg.model.init_from = None  # a file that a user has
    model = build_without_memory(cfg)
    Schedule(**cfg.train_cfg.schedule).check_length(cfg.train_cfg.max_epochs)
    options = {k: v for k, v in cfg.train_dataloader.dataset.items() if k not in ("type", "data_root")}
    dataset = MultiCropDataset(data_root=str(photo_folder), **options)
    for side in (options["global_size"], options["local_size"]):
        assert model.student.backbone.num_patches(side, side) >= model.mask_generator.num
    assert dataset[0, 0]["global_crops"].shape == (2, 3, options["global_size"], options["global_size"])
    assert options["global_size"] == cfg.model.backbone.img_size
    if "imagenet" in name:
        size = name.partition("_imagenet")[0].removeprefix("mst_")
        backbone = model.student.backbone
        assert sum(parameter.numel() for parameter in backbone.vit.parameters()) == PARAMETERS[size]
        assert backbone.cell_size == (32 if "swin" in size else int(size.split("_")[2]))
        assert 1024 % cfg.train_dataloader.batch_size == 0


# What DINO's published runs set: normalised last layer, local views, scale between local and global views, gradient
# clip, learning rate for 256 images, the lowest one, temperature at the start, epochs of its rise, of a frozen layer.
PUBLISHED = {
    "vit_small_16_imagenet_100e": (True, 8, 0.4, 3.0, 5e-4, 1e-6, 0.04, 30, 1),  # the paper's, and the same for longer
    "vit_small_16_imagenet_300e": (True, 8, 0.4, 3.0, 5e-4, 1e-6, 0.04, 30, 1),
    "vit_small_8_imagenet_100e": (False, 10, 0.4, 3.0, 5e-4, 1e-6, 0.04, 30, 1),
    "vit_base_16_imagenet_100e": (True, 10, 0.25, 0.3, 7.5e-4, 2e-6, 0.04, 50, 3),
    "vit_base_8_imagenet_100e": (True, 10, 0.25, 3.0, 5e-4, 2e-6, 0.03, 50, 3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_that_dino_published(name: str):
    """65,536 prototypes, views of 224 and 96 px; ViT-S/16 is DeiT-S/16, whose schedule is the default."""
    cfg = Config.fromfile(FOLDER / f"mst_{name}.py")
    data, schedule = cfg.train_dataloader.dataset, Schedule(**cfg.train_cfg.schedule)
    arch, patch = name.split("_")[1:3]
    assert cfg.model.backbone.arch == f"vit_{arch}_patch{patch}_224" and cfg.model.head.out_dim == 65536
    assert (data.global_size, data.local_size) == (224, 96) and f"_{cfg.train_cfg.max_epochs}e" in name
    assert schedule == Schedule() or "small_16" not in name
    assert tuple(data.global_scale) == (data.local_scale[1], 1.0) and data.local_scale[0] == 0.05
    found = (cfg.model.head.norm_last_layer, data.num_local_crops, data.global_scale[0], cfg.optim_wrapper.clip_grad)
    found += (schedule.base_lr, schedule.min_lr, schedule.warmup_teacher_temp)
    found += (schedule.warmup_teacher_temp_epochs, schedule.freeze_last_layer_epochs)
    assert found == PUBLISHED[name]
    assert (schedule.weight_decay, schedule.weight_decay_end, schedule.teacher_temp) == (0.04, 0.4, 0.07)
    assert (schedule.warmup_epochs, schedule.teacher_momentum, cfg.model.backbone.drop_path_rate) == (10, 0.996, 0.1)


SLOW = [name for name in FULL_SCALE if "base" in name or "swin_small" in name]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FULL_SCALE]
)
def test_full_scale_takes_a_step(name: str):
    cfg = Config.fromfile(FOLDER / name)
    torch.manual_seed(0)
    mst = MODELS.build(cfg.model).train()
    optim = PretrainOptimWrapperConstructor(cfg.optim_wrapper)(mst)
    optim.set_hyperparameters(1e-4, 0.04)
    side = 4 * max(mst.student.backbone.cell_size, 16)  # 16 cells, 64 of patch 8
    num_local = cfg.train_dataloader.dataset.num_local_crops
    batch = dict(
        global_crops=torch.randint(0, 256, (2, 2, 3, side, side), dtype=torch.uint8),
        local_crops=torch.randint(0, 256, (2, num_local, 3, 32, 32), dtype=torch.uint8),
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
    assert losses["mask_ratio"].item() == pytest.approx(1 / 8)


def leaves(cfg: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in cfg.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_its_name_says(name: str):
    """And nothing else: the masking or the decoder of the short schedule."""
    base, cfg = (leaves(Config.fromfile(FOLDER / n).to_dict()) for n in (OF_THE_PAPER[0], name))
    changed = {key for key in base.keys() | cfg.keys() if base.get(key) != cfg.get(key)}
    stem = Path(name).stem
    allowed = "model.decoder" if stem == "decoder_none" else "model.masking"
    both = stem == "dino"
    assert changed and all(key.startswith(allowed) or (both and key.startswith("model.decoder")) for key in changed)
