"""Every detection recipe from data to figure, at its real image sizes."""

import re
from collections.abc import Callable
from pathlib import Path

import planted_detector
import pytest
from lives import ROOT, Life, pictures, run, same_files, watched_evaluation
from mmengine.config import Config
from pretrained import backbone_for
from true_sizes import OBJECTS

RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "det_configs").glob("*.py"))


@pytest.mark.parametrize("name", RECIPES)
def test_from_data_to_figure(
    name: str,
    walk_folder: Path,
    record: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    life = Life(name, walk_folder / "runs", record)
    recipe = Config.fromfile(ROOT / name)
    backbone_for(recipe, walk_folder)
    images = pictures(Path(recipe.val_dataloader.dataset.data_root) / recipe.val_dataloader.dataset.data_prefix.img)
    images = images[: recipe.val_dataloader.dataset.get("indices", len(images))]
    by_epoch = recipe.train_cfg.get("type", "EpochBasedTrainLoop") == "EpochBasedTrainLoop"
    length = "max_epochs" if by_epoch else "max_iters"
    first, then = (1, 2) if by_epoch else (2, 3)

    config = life.config()
    assert run("check", config, "--splits", "train", "val", "test") == 0
    life.done("check")

    options = ["--work-dir", life.work_dir, "--cfg-options", "default_hooks.checkpoint.interval=1"]
    options.append(f"train_cfg.val_interval={first}")
    with watched_evaluation(monkeypatch) as evaluations:
        assert run("train", config, *options, f"train_cfg.{length}={first}") == 0
        assert checkpoints(life) and life.results()["checkpoint"] == str(recipe.model.backbone.checkpoint or "random")
        life.done("train")
        assert len(evaluations) == 2 and same_files(evaluations[0], images)
        life.done("validate")
        before = life.results()["metrics"]
        assert run("train", config, "--resume", *options, f"train_cfg.{length}={then}") == 0
        assert life.results()["resumed"] and all(same_files(seen, images) for seen in evaluations[:-1])
        life.done("resume")
    trained = life.results()["metrics"]
    assert set(trained) == set(before) and all(-1 <= value <= 1 for value in trained.values())

    capsys.readouterr()
    with watched_evaluation(monkeypatch) as evaluations:
        assert run("test", config, checkpoints(life)[-1], "--work-dir", life.work_dir / "test") == 0
    assert same_files(evaluations[0], images)
    written = life.results("test")["metrics"]
    assert written == trained  # of the same weights
    printed = dict(re.findall(r"^(\S*coco/\S+): (-?[\d.]+)$", capsys.readouterr().out, re.M))
    assert printed == {metric: f"{value:.4f}" for metric, value in written.items()}
    life.done("test")

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


def checkpoints(life: Life) -> list[Path]:
    """Of the run itself, oldest first."""
    found = [*life.work_dir.glob("epoch_*.pth"), *life.work_dir.glob("iter_*.pth")]
    return sorted(found, key=lambda path: int(path.stem.split("_")[1]))


def recipe_classes(recipe: Config) -> tuple[str, ...]:
    """The classes of the recipe's data."""
    from mmdet.datasets import CocoDataset

    metainfo = recipe.val_dataloader.dataset.get("metainfo") or CocoDataset.METAINFO
    return tuple(metainfo["classes"])


def planted_names(recipe: Config) -> list[str]:
    """Class of each colour."""
    classes = recipe_classes(recipe)
    return list(OBJECTS) if set(OBJECTS) <= set(classes) else list(classes[: len(OBJECTS)])
