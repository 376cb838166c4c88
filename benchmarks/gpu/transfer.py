"""Stage ``transfer``: training steps of heads at their true sizes, against mmdet's Swin and mmseg's SETR head.

Mask R-CNN on Swin-T, 2 images of 800 x 1333 pixels; SETR-PUP on ViT-S, 2 crops of 768 x 768. The same weights and
inputs: the maps that come of them are compared before times count. In fp32, with TF32, and with automatic mixed
precision (AMP).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import ARITHMETIC, Task, arithmetic, each
from benchmarks.measure import Row, compare, take_turns, within
from mst_transfer.checkpoint.sources.swin import from_mm
from mst_transfer.registry import MODELS

DETECTOR, SEGMENTOR = "Mask R-CNN, Swin-T", "SETR-PUP, ViT-S"
PEERS = {DETECTOR: "mmdet's Swin", SEGMENTOR: "mmseg's head"}
TOLERANCE = 1e-3  # of the largest value of a map, in fp32


def image_size(name: str, tiny: bool) -> tuple[int, int]:
    """Height and width in pixels."""
    return (64, 64) if tiny else (800, 1333) if name == DETECTOR else (768, 768)


def build_head(name: str, ours: bool, task: Task) -> Any:
    """The net of our recipe, or with the peer's part; on the device, in training mode."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    det, size = name == DETECTOR, image_size(name, task.tiny)
    init_default_scope("mmdet" if det else "mmseg")
    config = "det_configs/mst_maskrcnn_swin_tiny_coco.py" if det else "seg_configs/mst_setr_pup_cityscapes.py"
    model: dict[str, Any] = Config.fromfile(config).model
    model["backbone"].update(checkpoint=None)
    if det:
        if not ours:
            model["backbone"] = dict(type="mmdet.SwinTransformer", drop_path_rate=0.2)
        if task.tiny:
            model["train_cfg"]["rcnn"]["sampler"].update(num=16)
    else:
        model["backbone"].update(img_size=size)
        model["data_preprocessor"].update(size=size)
        for head in (model["decode_head"], *model["auxiliary_head"]):
            kind = "mst_transfer.SETRUPHead" if ours else "mmseg.SETRUPHead"
            head.update(type=kind, norm_cfg=dict(type="BN"))  # of one process
    return MODELS.build(model).to(task.device).train()


def random_inputs(name: str, tiny: bool) -> dict[str, Any]:
    """Random images with boxes and masks, or with label maps, as a data loader gives them."""
    height, width = image_size(name, tiny)
    if name == DETECTOR:
        from mmdet.testing import demo_mm_inputs

        found: dict[str, Any] = demo_mm_inputs(2, [(3, height, width)] * 2, [8] * 2, num_classes=80, with_mask=True)
        return found
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    inputs, samples = [], []
    for _ in range(2):
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
        samples.append(SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width))))
        samples[-1].gt_sem_seg = PixelData(data=torch.randint(0, 19, (1, height, width)))
    return {"inputs": inputs, "data_samples": samples}


def head_loss(net: Any, inputs: dict[str, Any]) -> Tensor:
    """The sum of a net's losses, from what a data loader gives on."""
    loss: Tensor = net.parse_losses(net(**net.data_preprocessor(inputs, True), mode="loss"))[0]
    return loss


def training_step(net: Any, inputs: dict[str, Any]) -> None:
    """Loss and gradients."""
    net.zero_grad()
    head_loss(net, inputs).backward()


def equal_nets(name: str, task: Task) -> tuple[Any, Any, float]:
    """The peer's net, ours, and the largest difference of their maps, relative to the map's largest value."""
    peer, ours = build_head(name, False, task), build_head(name, True, task)
    state = peer.state_dict()
    if name == DETECTOR:
        ours.backbone.vit.load_state_dict(from_mm(peer.backbone.state_dict()))
        state = ours.state_dict() | {key: value for key, value in state.items() if not key.startswith("backbone.")}
    ours.load_state_dict(state)
    image, maps = torch.randn(1, 3, *image_size(name, task.tiny), device=task.device), []
    for net in (peer.eval(), ours.eval()):
        with torch.no_grad():
            features = net.extract_feat(image)
            maps.append(features if name == DETECTOR else [net.decode_head(features)])
        net.train()
    return peer, ours, max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*maps, strict=True))


def compare_head(name: str, task: Task) -> Iterator[Row]:
    """Equal maps, then time and memory in each arithmetic."""
    with arithmetic("fp32", task.device):
        peer, ours, difference = equal_nets(name, task)
    yield within(f"{name}: maps of both", "relative difference", difference, TOLERANCE)
    inputs, other = random_inputs(name, task.tiny), PEERS[name]
    works = {key: partial(training_step, net, inputs) for key, net in ((other, peer), ("ours", ours))}
    for kind in ARITHMETIC:
        with arithmetic(kind, task.device):
            times = take_turns(works, 1 if task.tiny else 7, task.clock, warm_up=0 if task.tiny else 3)
            memory = {key: [task.added_memory(work)] for key, work in works.items()}
        for unit, scale, values in (("ms", 1e3, times), ("GB", 1e-9, memory)):
            title = f"{name}: training step, {kind}" + ", added memory" * (unit == "GB")
            sides = (other, values[other]), ("ours", values["ours"])
            yield compare(title, *sides, unit=unit, scale=scale, goal=task.goal(1.0))


def run(task: Task) -> Iterator[Row]:
    """Both heads."""
    yield from each({name: compare_head(name, task) for name in PEERS})
