"""A segmentor that answers right, for tests of everything around the net.

Images are painted from their label maps, one colour a class (``write_image``, in the layouts of the recipes' data).
``planted`` fills the maps of a segmentor's net with the classes of the colours that the net was given; nobody tells
it of sizes, windows, padding and mirror images. So predictions equal the label maps unless pixels are moved, stretched
or lost on the way to the net or back. Resizing loses some: ``best_labels`` is what OpenCV and torch alone leave.

Shapes: label map [H, W] of class numbers and 255, picture [H, W, 3] BGR, logits [B, K, H, W].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from numpy.typing import NDArray
from torch import Tensor

IGNORED = 255
MAX_COLOURS = 50
TOLERANCE = 6.0  # of a colour: more than JPEG takes away, less than a mixture of two others may come near
LOGIT = 8.0  # of the right class
BEST = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class Layout(NamedTuple):
    """Where a data set has its files, and how it numbers its classes."""

    image: str  # path below the data root; {split} and {name} are filled in
    mask: str
    splits: Mapping[str, str]  # the set's own names of train and val
    values: Sequence[int]  # file value of each class
    ignored: int = IGNORED  # file value of pixels without a class


def _cityscapes(root: str, suffix: str, values: Sequence[int], ids: str = "labelTrainIds") -> Layout:
    image = f"{root}/leftImg8bit/{{split}}/town/{{name}}_leftImg8bit.{suffix}"
    mask = f"{root}/gtFine/{{split}}/town/{{name}}_gtFine_{ids}.png"
    ignored = 0 if ids == "labelIds" else IGNORED  # "unlabeled"
    return Layout(image, mask, dict(train="train", val="val"), values, ignored)


_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LAYOUTS = {
    "ade20k": Layout(
        "ade/ADEChallengeData2016/images/{split}/{name}.jpg",
        "ade/ADEChallengeData2016/annotations/{split}/{name}.png",
        dict(train="training", val="validation"),
        range(1, 151),
        ignored=0,
    ),
    "cityscapes": _cityscapes("cityscapes", "png", range(19)),
    "cityscapes_as_downloaded": _cityscapes("cityscapes", "png", _LABEL_IDS, "labelIds"),
    "camvid": _cityscapes("camvid", "jpg", (0, 1, 2, 4, 5, 7, 8, 10, 11, 12, 13)),
    "sample": _cityscapes("sample/cityscapes", "png", range(10)),
}


# ---- data


def draw_labels(height: int, width: int, num_classes: int, seed: int, cell: int = 1) -> NDArray[np.uint8]:
    """A label map of some forty regions and thin poles; about a twentieth is ignored, and class 0 occurs.

    Borders lie on multiples of ``cell``, and there are no poles if it is more than 1.
    """
    rng = np.random.default_rng(seed)
    rows, columns = -(-height // cell), -(-width // cell)
    used = painted_classes(num_classes)
    centres = rng.random((40, 2)) * (rows, columns)
    places = np.stack(np.mgrid[:rows, :columns], axis=-1) + 0.5
    region = ((places[:, :, None] - centres) ** 2).sum(-1).argmin(-1)
    classes = rng.choice(used, 40).astype(np.uint8)
    classes[:3] = (IGNORED, IGNORED, 0)  # 0: argmax of no logits
    labels = classes[region].repeat(cell, 0).repeat(cell, 1)[:height, :width].copy()
    for column in rng.integers(0, width, 0 if cell > 1 else 8):
        labels[:, column : column + 3] = rng.choice(used)
    return labels


def painted_classes(num_classes: int) -> NDArray[np.intp]:
    """The classes that occur in pictures: all, or up to ``MAX_COLOURS`` evenly spaced ones."""
    return np.arange(0, num_classes, -(-num_classes // MAX_COLOURS))


def colours(num_classes: int) -> NDArray[np.uint8]:
    """A colour [K, 3] for each class that occurs, on a sphere: no mixture of two is another's; black for the others."""
    places = painted_classes(num_classes)
    height = 1 - (2 * np.arange(len(places)) + 1) / len(places)
    angle, radius = np.arange(len(places)) * np.pi * (1 + 5**0.5), np.sqrt(1 - height**2)
    table = np.zeros((num_classes, 3), np.uint8)
    table[places] = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1) * 127 + 127.5
    return table


def paint(labels: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """The picture of a label map; pixels to be ignored have class 0's colour."""
    return colours(num_classes)[np.where(labels == IGNORED, 0, labels)]


def write_image(root: Path, kind: str, name: str, labels: NDArray[np.uint8], split: str = "val") -> Path:
    """Writes the painted image and the mask of a label map below the data root; the image's path.

    JPEG files have quality 100 and all their colours, so that every pixel is decoded as it was painted.
    """
    layout = LAYOUTS[kind]
    folder = layout.splits[split]
    image, mask = (root / path.format(split=folder, name=name) for path in (layout.image, layout.mask))
    table = np.full(256, layout.ignored, np.uint8)
    table[: len(layout.values)] = list(layout.values)
    table[IGNORED] = layout.ignored
    for path, pixels in ((image, paint(labels, len(layout.values))), (mask, table[labels])):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels, BEST if path.suffix == ".jpg" else [])
    return image


# ---- the net


def right_logits(pixels: Tensor, num_classes: int) -> Tensor:
    """Logits [B, K, H, W] of BGR pixels [B, 3, H, W] of 0 to 255: ``LOGIT`` for the class of the colour, else 0.

    Mixed colours, as resizing makes them along borders, have no class.
    """
    logits = torch.zeros(len(pixels), num_classes, *pixels.shape[2:])
    table = torch.from_numpy(colours(num_classes)).float()[..., None, None]
    for label in painted_classes(num_classes):
        logits[:, label] = LOGIT * (pixels - table[label]).square().sum(1).lt(TOLERANCE**2)
    return logits


def unwrapped(model: Any) -> Any:
    """The segmentor within a wrapper of processes or of test-time augmentation."""
    while hasattr(model, "module"):
        model = model.module
    return model


@contextmanager
def planted(model: Any, cells: bool = False) -> Iterator[None]:
    """Makes a segmentor answer right, within a ``with`` block.

    The net still runs, for the size of its finest map [h, w] of stride s: the answer has h·s × w·s pixels, as many as
    SETR's heads give, so it covers the padding of the backbone too.

    Args:
        model: a segmentor with one of our backbones, wrapped or not, in evaluation.
        cells: answer for each cell [h, w], as linear heads do, with its pixels' share of each class.
    """
    segmentor = unwrapped(model)
    backbone, head, preprocessor = segmentor.backbone, segmentor.decode_head, segmentor.data_preprocessor
    real = backbone.forward

    def answer(image: Tensor) -> tuple[Tensor, ...]:
        maps = real(image)
        height, width = maps[0].shape[2:]
        stride = backbone.patch_size if hasattr(backbone, "patch_size") and maps[0].shape == maps[-1].shape else 4
        padding = (0, width * stride - image.shape[3], 0, height * stride - image.shape[2])
        assert max(padding) < stride and min(padding) >= 0, f"{tuple(image.shape)} → {tuple(maps[0].shape)}"
        pixels = F.pad(image, padding) * preprocessor.std + preprocessor.mean
        if any(vars(preprocessor).get(name) for name in ("channel_conversion", "_channel_conversion")):  # _: the fork
            pixels = pixels.flip(1)
        logits = right_logits(pixels, segmentor.num_classes)
        if cells:
            logits = F.avg_pool2d(logits, stride)
            logits *= LOGIT / logits.sum(1, keepdim=True).clamp(min=1e-6)
        return (logits,)

    replaced = {backbone: answer, head: lambda maps: maps[0]}
    if segmentor.with_neck:
        replaced[segmentor.neck] = lambda maps: maps
    for module, forward in replaced.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


@HOOKS.register_module(force=True)
class PlantHook(Hook):
    """Plants the answer for validations and tests, and keeps what was predicted.

    Attributes:
        predictions: path of the image → predicted classes [H, W].
    """

    def __init__(self) -> None:
        self.predictions: dict[str, Tensor] = {}

    def before_val(self, runner: Any) -> None:
        """Plants."""
        self._planted = planted(runner.model)
        self._planted.__enter__()

    def after_val(self, runner: Any) -> None:
        """Undoes it, since training goes on."""
        self._planted.__exit__(None, None, None)

    before_test, after_test = before_val, after_val

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keeps the predictions."""
        for sample in outputs:
            self.predictions[sample.img_path] = sample.pred_sem_seg.data.squeeze().cpu()

    after_test_iter = after_val_iter


# ---- what can be reached


class View(NamedTuple):
    """An image as a net sees it: height and width after resizing, mirrored or not."""

    height: int
    width: int
    mirrored: bool = False


def scaled(height: int, width: int, scale: tuple[float, float] | float) -> tuple[int, int]:
    """Height and width after ``Resize`` with ``keep_ratio``, to fit into (long, short) sides or by a factor."""
    if isinstance(scale, Sequence):
        scale = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def views_of(cfg: Any, augmented: bool, size: tuple[int, int]) -> Sequence[View]:
    """The views that a test has of an image, from the config's steps."""
    steps = cfg.test_dataloader.dataset.pipeline
    if not augmented:
        scales = [step["scale"] for step in steps if step["type"] == "Resize"]
        return [View(*(scaled(*size, tuple(scales[0])) if scales else size))]
    resizes, flips = cfg.tta_pipeline[1].transforms[:2]
    sizes = [scaled(*size, tuple(step["scale"]) if "scale" in step else step["scale_factor"]) for step in resizes]
    return [View(*one, mirrored=flip["prob"] == 1) for one in sizes for flip in flips]


def best_labels(picture: NDArray[np.uint8], num_classes: int, views: Sequence[View]) -> Tensor:
    """What a net predicts [H, W] that sees each pixel of the resized pictures right, averaged over views."""
    size = picture.shape[:2]
    total = torch.zeros(num_classes, *size)
    for view in views:
        seen = cv2.resize(picture, (view.width, view.height))
        seen = torch.from_numpy(seen[:, ::-1].copy() if view.mirrored else seen)
        logits = right_logits(seen.permute(2, 0, 1)[None].float(), num_classes)
        logits = logits.flip(3) if view.mirrored else logits
        logits = F.interpolate(logits, size, mode="bilinear")[0]
        total += logits.softmax(0) if len(views) > 1 else logits
    return total.argmax(0)


def mean_iou(pairs: Sequence[tuple[Any, Any]], num_classes: int) -> float:
    """Mean IoU in per cent over the classes that occur, of (predicted, true) label maps."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for predicted, true in pairs:
        predicted, true = (np.asarray(one).astype(np.int64) for one in (predicted, true))
        kept = true != IGNORED
        matrix.reshape(-1)[:] += np.bincount(true[kept] * num_classes + predicted[kept], minlength=matrix.size)
    both, union = matrix.diagonal(), matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return float(100 * (both[union > 0] / union[union > 0]).mean())
