"""Every segmentation recipe from data to figure, at its real image sizes."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import true_sizes
from lives import ROOT, Life, checkpoints, first_of_its_kind, learn, pictures, run, same_files, watched_evaluation
from mmengine.config import Config
from planted import best_labels, draw_labels, mean_iou, views_of
from pretrained import backbone_for

RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "seg_configs").glob("*.py"))

IN_ALL_SIZES = ("seg_configs/mst_setr_pup_cityscapes.py", "seg_configs/mst_linear_vit_small_ade20k.py")


@pytest.mark.parametrize("name", RECIPES)
def test_from_data_to_figure(name: str, walk_folder: Path, record: Callable[[str], None]) -> None:
    life = Life(name, walk_folder / "runs", record)
    recipe = Config.fromfile(ROOT / name)
    backbone_for(recipe, walk_folder)
    dataset = recipe.val_dataloader.dataset
    images = pictures(Path(dataset.data_root) / dataset.data_prefix.img_path)

    config = life.config(**fewer_views(name, recipe))
    assert run("check", config, "--splits", "train", "val", "test") == 0
    life.done("check")

    options = ["--work-dir", life.work_dir, "--cfg-options", "default_hooks.checkpoint.interval=1"]
    options.append("train_cfg.val_interval=2")
    if recipe.model.decode_head.type == "UPerHead":
        if recipe.train_dataloader.batch_size == 1:
            assert run("train", config, *options) == 1  # one image in one process: a BatchNorm would see one value
        options.append("train_dataloader.batch_size=2")
    else:
        options.append("train_dataloader.batch_size=1")
    learn(life, config, images, options, ("max_iters", 2, 3), r"^(aAcc|mIoU|mAcc): ([\d.]+)$")
    checkpoint = checkpoints(life)[-1]

    model, pipeline = recipe.model, recipe.test_dataloader.dataset.pipeline
    kind = (model.decode_head.type, model.decode_head.get("num_convs"), model.backbone.type, model.test_cfg, images)
    if not first_of_its_kind(walk_folder, *kind, pipeline, name in IN_ALL_SIZES):
        return
    if recipe.get("tta_pipeline"):
        words = ["--tta", "--work-dir", life.work_dir / "augmented"]
        words += ["--cfg-options", "+test_dataloader.dataset.indices=1"]
        with watched_evaluation() as evaluations:
            assert run("test", config, checkpoint, *words) == 0
        assert same_files(evaluations[0], images[:1]) and life.results("augmented")["augmented"]
        life.done("augmented")

    config = life.config(custom_hooks=[*recipe.get("custom_hooks", []), dict(type="PlantHook")])
    assert run("test", config, checkpoint, "--work-dir", life.work_dir / "planted") == 0
    found, left = life.results("planted")["metrics"]["mIoU"], left_by_resizing(name, tuple(images))
    assert found == pytest.approx(left, abs=0.02) and left > 97, (found, left)
    life.done(f"planted: {found:.1f}")


def fewer_views(name: str, recipe: Config) -> dict[str, Any]:
    """A change to two sizes of test-time augmentation, of which none is a multiple of a patch; none to some recipes."""
    if name in IN_ALL_SIZES or not recipe.get("tta_pipeline"):
        return {}
    load, augment = recipe.tta_pipeline
    augment.transforms[0] = augment.transforms[0][:2]
    return dict(tta_pipeline=[load.to_dict(), augment.to_dict()])


@functools.cache
def left_by_resizing(name: str, images: tuple[str, ...]) -> float:
    """mIoU that OpenCV's and torch's resizing alone leave of the label maps."""
    recipe = Config.fromfile(ROOT / name)
    num_classes = recipe.model.decode_head.num_classes
    pairs = []
    for path in images:
        picture = cv2.imread(path)
        views = views_of(recipe, False, picture.shape[:2])
        seed = true_sizes.seed_of(path)
        pairs.append((best_labels(picture, num_classes, views), draw_labels(*picture.shape[:2], num_classes, seed)))
    return mean_iou(pairs, num_classes)
