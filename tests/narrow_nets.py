"""Makes the net of a recipe shallow and narrow; data, sizes, classes, losses and schedules stay. Random samples."""

from typing import Any

import torch

VIT = dict(embed_dim=48, depth=4, num_heads=3)
SWIN = dict(embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
CHANNELS = ("in_channels", "out_channels", "channels", "feat_channels", "conv_out_channels", "fc_out_channels")


def narrow_backbone(backbone: Any) -> dict[int, int]:
    """Changes a backbone's config in place; width before -> width now."""
    if backbone.arch.startswith("swin"):
        backbone.update(SWIN)
        return {96 * 2**stage: 24 * 2**stage for stage in range(4)}
    backbone.update(VIT)
    return {384: VIT["embed_dim"], 768: VIT["embed_dim"], 192: VIT["embed_dim"]}


def narrow_transfer(model: Any) -> None:
    """Changes a detector's or segmentor's config in place."""
    widths = narrow_backbone(model.backbone)
    for key, node in model.items():
        if key != "backbone":
            narrow(node, widths)


def narrow_pretraining(model: Any) -> None:
    """Changes a pre-training model's config in place; the prototypes stay."""
    narrow_backbone(model.backbone)
    model.head.update(hidden_dim=32, bottleneck_dim=16)
    if model.get("decoder"):
        model.decoder.channels = tuple(8 for _ in model.decoder.channels)


def narrow(node: Any, widths: dict[int, int]) -> None:
    """Changes the channels of necks and heads in place: to those of the backbone's widths, else to a sixteenth."""
    if isinstance(node, list | tuple):
        for child in node:
            narrow(child, widths)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in CHANNELS:
            smaller = [widths.get(one, one // 16) for one in ([value] if isinstance(value, int) else value)]
            node[key] = smaller[0] if isinstance(value, int) else smaller
        elif key == "mla_channels":
            node[key] = value // 16
        else:
            narrow(value, widths)
    if node.get("type") == "SETRMLAHead":
        node.setdefault("mla_channels", 8)


def random_samples(scope: str, size: tuple[int, int], num_classes: int, number: int) -> list:
    """What a model of mmdet (two instances an image) or mmseg is given beside images [3, H, W] of that size."""
    if scope == "mmdet":
        from mmdet.testing import demo_mm_inputs

        shapes, items = [(3, *size)] * number, [2] * number
        return demo_mm_inputs(number, shapes, num_items=items, num_classes=num_classes, with_mask=True)["data_samples"]
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = [PixelData(data=torch.randint(0, num_classes, (1, *size))) for _ in range(number)]
    return [SegDataSample(gt_sem_seg=one, metainfo=dict(img_shape=size, ori_shape=size)) for one in labels]
