"""Every detection recipe from data to figure, at its real image sizes."""

from collections.abc import Callable
from pathlib import Path

import planted_detector
import pytest
from lives import ROOT, Life, checkpoints, first_of_its_kind, learn, pictures, run
from mmengine.config import Config
from pretrained import backbone_for
from true_sizes import OBJECTS

RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "det_configs").glob("*.py"))


@pytest.mark.parametrize("name", RECIPES)
def test_from_data_to_figure(
    name: str, walk_folder: Path, record: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(name, walk_folder / "runs", record)
    recipe = Config.fromfile(ROOT / name)
    backbone_for(recipe, walk_folder)
    images = pictures(Path(recipe.val_dataloader.dataset.data_root) / recipe.val_dataloader.dataset.data_prefix.img)
    images = images[: recipe.val_dataloader.dataset.get("indices", len(images))]
    by_epoch = recipe.train_cfg.get("type", "EpochBasedTrainLoop") == "EpochBasedTrainLoop"
    counts = ("max_epochs", 1, 2) if by_epoch else ("max_iters", 2, 3)

    config = life.config()
    assert run("check", config, "--splits", "train", "val", "test") == 0
    life.done("check")

    options = ["--work-dir", life.work_dir, "--cfg-options", "default_hooks.checkpoint.interval=1"]
    options.append(f"train_cfg.val_interval={counts[1]}")
    learn(life, config, images, options, counts, r"^(\S*coco/\S+): (-?[\d.]+)$")
    assert all(-1 <= value <= 1 for value in life.results()["metrics"].values())

    model, pipeline = recipe.model, recipe.test_dataloader.dataset.pipeline
    if not first_of_its_kind(walk_folder, model.type, model.backbone.type, pipeline, images):
        return
    classes = [recipe_classes(recipe).index(object_name) for object_name in planted_names(recipe)]
    for batch_size in (1, 3):
        with monkeypatch.context() as patch:
            shown = planted_detector.plant(patch, classes)
            more = ["--work-dir", life.work_dir / f"planted_{batch_size}"]
            more += ["--cfg-options", f"test_dataloader.batch_size={batch_size}"]
            assert run("test", config, checkpoints(life)[-1], *more) == 0
        assert max(shown) == batch_size and sum(shown) == len(images)
        metrics = life.results(f"planted_{batch_size}")["metrics"]
        assert metrics["coco/bbox_mAP"] > 0.995, metrics
        assert metrics["coco/segm_mAP"] > 0.98, metrics
    life.done("planted")


def recipe_classes(recipe: Config) -> tuple[str, ...]:
    """The classes of the recipe's data."""
    from mmdet.datasets import CocoDataset

    metainfo = recipe.val_dataloader.dataset.get("metainfo") or CocoDataset.METAINFO
    return tuple(metainfo["classes"])


def planted_names(recipe: Config) -> list[str]:
    """Class of each colour."""
    classes = recipe_classes(recipe)
    return list(OBJECTS) if set(OBJECTS) <= set(classes) else list(classes[: len(OBJECTS)])
