"""A planted answer goes through each recipe's own test: pipeline, padding, windows, sizes and mirror images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from planted import LAYOUTS, PlantHook, View, best_labels, draw_labels, mean_iou, paint, views_of, write_image

from mst_transfer.engine.run import build_runner, load_run_config
from mst_transfer.engine.testing import with_augmentation

ROOT = Path(__file__).resolve().parents[2]


def _geometry(cfg: Config) -> str:
    """What decides on the way from file to figure, the net's width aside."""
    model = cfg.model
    parts = [model.type, model.data_preprocessor, model.test_cfg, model.backbone.type, model.backbone.get("patch_size")]
    return json.dumps([parts, cfg.test_dataloader.dataset, cfg.tta_pipeline], default=str, sort_keys=True)


def _representatives() -> list[str]:
    """One recipe of each geometry."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "seg_configs").glob("*.py")):
        found.setdefault(_geometry(Config.fromfile(path)), path.stem)
    return sorted(found.values())


RECIPES = _representatives()


def kind_of(name: str) -> str:
    return next(kind for kind in LAYOUTS if kind in name)


def narrow(name: str, work_dir: Path) -> Any:
    """The recipe with a net of four narrow blocks or stages, without auxiliary heads, in one process."""
    cfg = load_run_config(f"seg_configs/{name}.py", work_dir=str(work_dir))
    backbone = cfg.model.backbone
    backbone.checkpoint = None
    if backbone.type.endswith("Swin"):
        backbone.update(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    else:
        backbone.update(embed_dim=8, depth=4, num_heads=1, frozen_stages=-1)
        if backbone.get("out_indices"):
            backbone.out_indices = (3,)
    cfg.model.auxiliary_head = None
    cfg.test_dataloader.num_workers = 0
    return cfg


def run_planted(cfg: Any) -> tuple[float, PlantHook]:
    runner = build_runner(cfg, [])
    hook = PlantHook()
    runner.register_hook(hook)
    return runner.test()["mIoU"], hook


SIZES = {
    "ade20k": [(120, 160)],
    "cityscapes": [(512, 1024)],
    "camvid": [(360, 480), (371, 467)],
    "sample": [(128, 128), (101, 133)],
}


def check(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, sizes: Sequence, augmented: bool) -> None:
    kind = kind_of(name)
    num_classes = len(LAYOUTS[kind].values)
    monkeypatch.setenv("MST_DATA_ROOT", str(root))
    labels = {}
    for index, size in enumerate(sizes):
        drawn = draw_labels(*size, num_classes, seed=index)
        labels[str(write_image(root, kind, f"town_{index}", drawn))] = drawn
    cfg = narrow(name, root / "work_dir")
    found, hook = run_planted(with_augmentation(cfg) if augmented else cfg)
    assert set(hook.predictions) == set(labels), "every image is predicted once"
    best = {}
    for path, predicted in hook.predictions.items():
        best[path] = best_labels(cv2.imread(path), num_classes, views_of(cfg, augmented, predicted.shape))
        assert (predicted == best[path]).float().mean() > 0.9999, path
    expected = mean_iou([(best[path], labels[path]) for path in labels], num_classes)
    print(f"\n{name}: mIoU {found:.2f}, {expected:.2f} left by resizing")
    assert found == pytest.approx(expected, abs=0.02)
    if not augmented and all(tuple(size) == (v.height, v.width) for size in sizes for v in views_of(cfg, False, size)):
        assert found == 100


SMALL = ("camvid", "sample")


@pytest.mark.parametrize("name", [name for name in RECIPES if kind_of(name) in SMALL])  # the walk has the others
def test_the_planted_answer_comes_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(name, tmp_path, monkeypatch, SIZES[kind_of(name)], augmented=False)


@pytest.mark.parametrize(
    "name",  # a ViT under UPerNet goes the way of one under a linear head
    [
        name if kind_of(name) in SMALL else pytest.param(name, marks=pytest.mark.walk)
        for name in RECIPES
        if "upernet_vit" not in name
    ],
)
def test_it_comes_out_of_several_sizes_and_mirror_images(name: str, tmp_path: Path, monkeypatch) -> None:
    check(name, tmp_path, monkeypatch, SIZES[kind_of(name)], augmented=True)


def test_helpers_agree_with_themselves() -> None:
    labels = draw_labels(50, 70, 9, seed=3)
    best = best_labels(paint(labels, 9), 9, [View(50, 70)])
    assert mean_iou([(best, labels)], 9) == 100 and np.array_equal(best[labels != 255], labels[labels != 255])
    assert mean_iou([(np.array([[0, 0, 1]]), np.array([[0, 1, 255]]))], 3) == 25
