"""One real step of a small copy of each full-scale recipe: the same layers in the same order, with fewer of all.

Recipes whose copies are equal (those that differ in the backbone's width alone) share one step.
"""

import functools
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from narrow_nets import narrow, narrow_backbone, random_samples
from recipes import RECIPES, read

from mst_transfer.engine.fit.devices import adapt_to_devices

NUM_CLASSES = 5


def shrink(cfg: Config) -> Config:
    """The recipe with few channels, blocks, classes and pixels."""
    model, backbone = cfg.model, cfg.model.backbone
    backbone.checkpoint = None
    widths = narrow_backbone(backbone)
    if backbone.type.endswith("Swin"):
        backbone.update(arch="swin_tiny_patch4_window7_224", window_size=4)
    else:
        backbone.update(arch="vit_tiny_patch16_224", img_size=64)
        if "window_size" in backbone:
            backbone.window_size = 2
    preprocessor = model.data_preprocessor
    if "size" in preprocessor:
        preprocessor.size = (64, 64)
    if preprocessor.get("pad_size_divisor") == 1024:
        preprocessor.pad_size_divisor = 128
    if model.get("test_cfg", {}).get("mode") == "slide":
        model.test_cfg.update(crop_size=(64, 64), stride=(40, 40))
    for key, node in model.items():
        if key != "backbone":
            narrow(node, widths)
            make_fewer(node)
    return cfg


def make_fewer(node) -> None:
    """Few classes, proposals and samples."""
    if isinstance(node, list | tuple):
        for child in node:
            make_fewer(child)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "num_classes":
            node[key] = NUM_CLASSES
        elif key in ("nms_pre", "max_per_img"):
            node[key] = 60
        elif key == "sampler":
            value["num"] = 32
        else:
            make_fewer(value)


@functools.cache
def take_a_step(scope: str, model_text: str, optimizer_text: str) -> dict[str, float]:
    """Trains a step, predicts, and returns the losses. Texts are JSON, so that equal copies are taken once."""
    torch.manual_seed(0)
    init_default_scope(scope)
    registry = __import__(f"{scope}.registry", fromlist=["MODELS"]).MODELS
    model = registry.build(Config(dict(model=json.loads(model_text))).model).train()
    wrapper = build_optim_wrapper(model, json.loads(optimizer_text))
    wrapper.zero_grad = lambda **options: None  # so that the gradients of the step can be looked at
    size = (64, 96) if scope == "mmdet" else (60, 64)
    samples = random_samples(scope, size, NUM_CLASSES, 2)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples]
    losses = model.train_step(dict(inputs=images, data_samples=samples), wrapper)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []  # DistributedDataParallel
    assert {name for name, parameter in trained.items() if not parameter.isfinite().all()} == set()
    frozen = {name for name, _ in model.named_parameters()} - set(trained)
    assert all(name.startswith("backbone.") for name in frozen)
    size = (64, 96) if scope == "mmdet" else (64, 100)  # wider than a window
    (sample,), image = random_samples(scope, size, NUM_CLASSES, 1), torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    (result,) = model.eval().test_step(dict(inputs=[image], data_samples=[sample]))
    if scope == "mmdet":
        assert result.pred_instances.masks.shape[-2:] == size
    else:
        assert result.pred_sem_seg.data.shape == (1, *size) and result.seg_logits.data.shape == (NUM_CLASSES, *size)
    return {name: float(value.detach()) for name, value in losses.items()} | {"frozen": len(frozen)}


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_copy_trains_a_step_and_predicts(name: str):
    cfg = shrink(read(name))
    adapt_to_devices(cfg, world_size=1, on_cuda=False)
    cfg.optim_wrapper.pop("loss_scale", None)
    losses = take_a_step(cfg.default_scope, json.dumps(cfg.model.to_dict()), json.dumps(cfg.optim_wrapper.to_dict()))
    assert all(np.isfinite(value) for value in losses.values())
    if "cascade" in name:
        assert {f"s{stage}.loss_{kind}" for stage in range(3) for kind in ("cls", "bbox", "mask")} <= set(losses)
    elif name.startswith("det"):
        assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"} <= set(losses)
    else:
        assert "decode.loss_ce" in losses
    assert (losses["frozen"] > 0) == ("linear" in name)
