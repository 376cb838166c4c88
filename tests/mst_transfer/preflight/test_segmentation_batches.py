"""Images of several sizes are refused in batches that mmseg cannot make, and let pass in all others."""

from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, MODELS
from PIL import Image
from small_sets import seg_config, write_masks

from mst_transfer.preflight.check import check_datasets

LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
PACK = [dict(type="PackSegInputs")]
CROP = dict(type="RandomCrop", crop_size=(8, 8), cat_max_ratio=0.75)
RESIZE = dict(type="Resize", scale=(16, 16))
ANY_SIZE = dict(type="RandomResize", scale=(16, 16), ratio_range=(0.5, 2.0), keep_ratio=True)


def config(root, loader, batch_size, steps=(), **preprocessor):
    """A config of three images, one of them 12 pixels wide and the others 8, all 8 high."""
    write_masks(root)
    for path in root.rglob("1_*.png"):
        Image.open(path).resize((12, 8)).save(path)
    cfg = seg_config(root, pipeline=[*LOAD, *steps, *PACK])
    data = dict(cfg.train_dataloader, batch_size=batch_size)
    model = dict(cfg.model, data_preprocessor=dict(type="SegDataPreProcessor", **preprocessor))
    return Config({"default_scope": "mmseg", loader: data, "model": model})


CASES = {
    "validation": ("val_dataloader", 2, (), {}, False),
    "validation, one at a time": ("val_dataloader", 1, (), {}, True),
    "validation, resized to one size": ("val_dataloader", 2, (RESIZE,), {}, True),
    "test, ratio kept": ("test_dataloader", 2, (dict(RESIZE, keep_ratio=True),), {}, False),
    "training, size too small": ("train_dataloader", 2, (), dict(size=(8, 8)), False),
    "training, size large enough": ("train_dataloader", 2, (), dict(size=(8, 12)), True),
    "training, padded to the largest": ("train_dataloader", 2, (), dict(size_divisor=8), True),
    "training, cropped": ("train_dataloader", 2, (ANY_SIZE, CROP), dict(size=(8, 8)), True),
    "training, sizes drawn": ("train_dataloader", 2, (ANY_SIZE,), dict(size=(8, 8)), False),
}


@pytest.mark.parametrize("loader, batch_size, steps, preprocessor, passes", CASES.values(), ids=CASES)
def test_batches_that_mmseg_cannot_make_are_refused(tmp_path, loader, batch_size, steps, preprocessor, passes):
    """The oracle: what mmseg's preprocessor does with the whole set, several times over."""
    cfg = config(tmp_path, loader, batch_size, steps, **preprocessor)
    refused = pytest.raises(ValueError, match=rf"{loader}: batch_size=2.* × .*{loader}.batch_size=1")
    with nullcontext() if passes else refused:
        check_datasets(cfg, [loader])
    if batch_size == 1:
        return
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(cfg[loader].dataset)
        model = MODELS.build(cfg.model.data_preprocessor)
    outcomes = set()
    for _ in range(5):
        try:
            batch = model(pseudo_collate([dataset[index] for index in range(3)]), training=loader.startswith("train"))
            outcomes.add(isinstance(batch["inputs"], torch.Tensor))
        except (AssertionError, RuntimeError):
            outcomes.add(False)
    assert outcomes == {True} if passes else False in outcomes
