"""Images and label maps in any layout: two patterns of paths, in which ``{}`` stands for the same text."""

import os
from typing import Any

from mmseg.datasets import BaseSegDataset

from mst_transfer.files.image_folder import find_images
from mst_transfer.registry import DATASETS


def match(images: str, masks: str) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Pairs of the files of two patterns, images without a mask, and masks without an image.

    A file that fits both, as ``a_mask.png`` does ``{}.png`` and ``{}_mask.png``, belongs to the longer one.

    Raises:
        ValueError: there is no pair, a pattern is none, or the two are the same.
    """
    for pattern in (images, masks):
        if pattern.count("{}") != 1 or "." not in os.path.basename(pattern.partition("{}")[2]) or images == masks:
            raise ValueError(
                f"{pattern!r}: give two patterns with {{}} once, and an ending: images/{{}}.jpg masks/{{}}.png"
            )
    found, labels = _files(images), _files(masks)
    shared, vaguer = {*found.values()} & {*labels.values()}, found if len(images) < len(masks) else labels
    for text in [text for text, path in vaguer.items() if path in shared]:
        del vaguer[text]
    pairs = [(path, labels[text]) for text, path in found.items() if text in labels]
    if not pairs:
        there = [f"{len(files)} files {pattern}" for files, pattern in ((found, images), (labels, masks))]
        first = "".join(f", e.g. {next(iter(files.values()))}" for files in (found, labels) if files)
        raise ValueError(
            f"no image has a mask: {' and '.join(there)}{first}. {{}} must stand for the same text in both: compare "
            "folders, names and endings, large and small letters too"
        )
    images_alone = [path for text, path in found.items() if text not in labels]
    return pairs, images_alone, [path for text, path in labels.items() if text not in found]


def _files(pattern: str) -> dict[str, str]:
    """What ``{}``, which may hold ``/``, stands for in each file of a pattern, and its path."""
    before, _, after = pattern.partition("{}")
    start = before if os.path.dirname(before) else f"./{before}"
    try:
        paths = find_images(os.path.dirname(start), [after.rpartition(".")[2]])
    except FileNotFoundError:
        return {}
    names = (path for path in paths if path.startswith(start) and path.endswith(after))
    return {text: path for path in names if (text := path[len(start) : len(path) - len(after)])}


@DATASETS.register_module()
class MaskPairs(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` of pairs: ``data_prefix=dict(img_path="images/{}.jpg", seg_map_path="masks/{}.png")``.

    Patterns are below ``data_root`` unless absolute; suffixes and lists have no effect.
    """

    match = staticmethod(match)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One dict an image, as mmseg's."""
        pairs, *_ = match(self.data_prefix["img_path"], self.data_prefix["seg_map_path"])
        options = dict(label_map=self.label_map, reduce_zero_label=self.reduce_zero_label)
        return [dict(img_path=image, seg_map_path=mask, seg_fields=[], **options) for image, mask in pairs]
