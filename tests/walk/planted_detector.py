"""A detector that answers with what it sees: rectangles of known colours in the tensor that the net is given.

All that stands between image file and figure is the recipe's own: loading, resizing, normalisation, padding and
batching before, the return to the original image, run lengths and metric behind. Only the second stage's boxes and
masks are replaced, so any fault of geometry, colours, classes or bookkeeping costs mAP.
"""

from collections.abc import Sequence

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import roi_align
from true_sizes import GROUND, OBJECTS

PALETTE = torch.tensor([GROUND, *(entry[1:] for entry in OBJECTS.values())], dtype=torch.float32)


def plant(monkeypatch: pytest.MonkeyPatch, classes: Sequence[int]) -> list[int]:
    """Replaces the second stage of mmdet's detectors.

    Args:
        monkeypatch: undoes it.
        classes: class index of each colour of ``OBJECTS``.

    Returns:
        Number of images of each batch that it was shown; it grows.
    """
    from mmdet.models.detectors.two_stage import TwoStageDetector
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead

    seen: dict[str, Tensor] = {}
    batches: list[int] = []
    extract = TwoStageDetector.extract_feat

    def extract_and_look(self, inputs: Tensor):
        normal = self.data_preprocessor
        rgb = inputs * normal.std.view(1, 3, 1, 1) + normal.mean.view(1, 3, 1, 1)
        seen["colour"] = (rgb.unsqueeze(1) - PALETTE.view(1, -1, 3, 1, 1)).square().sum(2).argmin(1)  # [B, H, W]
        batches.append(len(inputs))
        return extract(self, inputs)

    def boxes(self, x, metas, *args, **kwargs):
        return [boxes_of(image, classes) for image in seen["colour"]]

    def masks(self, *args, **kwargs):
        stage_and_features = args if isinstance(args[0], int) else (0, *args)
        rois = kwargs.get("rois", stage_and_features[-1])
        wanted = torch.cat([boxes_of(image, classes).colour for image in seen["colour"]])
        inside = (seen["colour"][rois[:, 0].long()] == wanted.view(-1, 1, 1)).float().unsqueeze(1)
        local = torch.cat([torch.arange(len(rois)).view(-1, 1).float(), rois[:, 1:]], 1)
        share = roi_align(inside, local, 28, aligned=True)
        head = self.mask_head[-1] if isinstance(self.mask_head, torch.nn.ModuleList) else self.mask_head
        return dict(mask_preds=(share - 0.5).mul(20).expand(-1, head.num_classes, -1, -1))

    monkeypatch.setattr(TwoStageDetector, "extract_feat", extract_and_look)
    for head in (StandardRoIHead, CascadeRoIHead):
        monkeypatch.setattr(head, "predict_bbox", boxes)
        monkeypatch.setattr(head, "_mask_forward", masks)
    return batches


def boxes_of(image: Tensor, classes: Sequence[int]) -> InstanceData:
    """One box for each colour [H, W], in pixels of the tensor; blended edges count from half of the colour on."""
    found: list[list[float]] = []
    for colour in range(1, len(PALETTE)):
        area = image == colour
        sides = []
        for counts in (area.sum(0), area.sum(1)):
            there = (counts > 0.5 * counts.max()).nonzero().flatten()
            sides.append((float(there[0]), float(there[-1]) + 1) if counts.max() > 20 else (0.0, 0.0))
        (x1, x2), (y1, y2) = sides
        if x2 > x1 and y2 > y1:
            found.append([x1, y1, x2, y2, colour])
    table = torch.tensor(found).reshape(-1, 5)
    colours = table[:, 4].long()
    return InstanceData(
        bboxes=table[:, :4],
        scores=torch.full((len(table),), 0.9),
        labels=torch.tensor(classes)[colours - 1],
        colour=colours,
    )
