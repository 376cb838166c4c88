"""What an image of the paper's three recipes costs at its true size: operations, and memory that waits for backward.

Counted here, on a CPU, in one training step without its optimiser: nothing of it depends on the device but the order of
sums. ``docs/reproduce.md`` makes hours and gigabytes a GPU of it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.transfer import head_loss
from benchmarks.measure import Row, alone
from benchmarks.step import FULL, QUICK, OurStep
from mst_transfer.registry import MODELS

HEADS = {
    "Mask R-CNN, ViT-S/16": ("det_configs/mst_maskrcnn_coco.py", (800, 1333)),
    "SETR-PUP, ViT-S/16": ("seg_configs/mst_setr_pup_cityscapes.py", (768, 768)),
}


def pretraining(quick: bool) -> tuple[nn.Module, Callable[[], Tensor], int]:
    """MST on a ViT-S/16: the model, its loss, and the number of images."""
    work = QUICK if quick else FULL
    model, batch, (large, small) = OurStep(True, None, work).model, work["batch"], work["sizes"]
    views = {
        "global_crops": torch.zeros(batch, 2, 3, large, large, dtype=torch.uint8),
        "local_crops": torch.zeros(batch, work["num_local"], 3, small, small, dtype=torch.uint8),
        "index": torch.arange(batch),
    }
    return model, lambda: model(**views, step=0)["loss"], batch


def head(name: str, quick: bool) -> tuple[nn.Module, Callable[[], Tensor], int]:
    """A head of our recipes, likewise."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.structures import PixelData

    config, size = HEADS[name]
    cfg, (height, width) = Config.fromfile(config), (64, 64) if quick else size
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(checkpoint=None)
    batch, inputs = 1, dict[str, Any]()
    if cfg.default_scope == "mmdet":
        from mmdet.testing import demo_mm_inputs

        inputs = demo_mm_inputs(batch, [(3, height, width)] * batch, [8] * batch, num_classes=80, with_mask=True)
    else:
        from mmseg.structures import SegDataSample

        cfg.model.data_preprocessor.update(size=(height, width))
        for part in (cfg.model.decode_head, *cfg.model.auxiliary_head):
            part.update(norm_cfg=dict(type="BN"))
        samples = [SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))] * batch
        samples[0].gt_sem_seg = PixelData(data=torch.zeros(1, height, width, dtype=torch.long))
        inputs = {"inputs": [torch.zeros(3, height, width, dtype=torch.uint8)] * batch, "data_samples": samples}
    model = MODELS.build(cfg.model).train()
    return model, partial(head_loss, model, inputs), batch


def kept_for_backward(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """The loss, and the bytes of all that autograd keeps for it, the model's own tensors left out."""
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = dict[int, tuple[int, Tensor]]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # held: its address is not given away
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    return value, sum(size for size, _ in kept.values())


def run(quick: bool = False) -> list[Row]:
    """Operations, memory of an image in fp32 and under autocast, and memory of the model's state."""
    rows = []
    for name in ("MST, ViT-S/16", *HEADS):
        model, loss, batch = head(name, quick) if name in HEADS else pretraining(quick)
        with FlopCounterMode(display=False) as counter:
            loss().backward()
        rows.append(
            alone(
                f"{name}: forward and backward", ("an image", [counter.get_total_flops() / batch / 1e9]), unit="GFLOP"
            )
        )
        for dtype in ("float32", "bfloat16"):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                _, size = kept_for_backward(model, loss)
            rows.append(alone(f"{name}: kept for backward, {dtype}", ("an image", [size / batch / 1e9]), unit="GB"))
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        state = 4 * (3 * trained + sum(one.numel() for one in model.parameters()))  # gradient, two moments; all weights
        rows.append(alone(f"{name}: weights, gradients, AdamW", ("a process", [state / 1e9]), unit="GB"))
    return rows
