"""Points a segmentation config at a user's own images and label maps: ``--masks IMAGES MASKS``, in any layout."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mst_transfer.configs.datasets import AUTO, all_datasets, dataset_class, is_segmentation, unique_datasets
from mst_transfer.preflight.data_files import dataset_path

NAMES, _KEPT = ("img_path", "seg_map_path"), ("pipeline", "indices", "ignore_index", "reduce_zero_label")


def use_masks(cfg: Any, patterns: Sequence[str]) -> None:
    """Sets the data of a config's loaders, and leaves its classes to ``classes.txt`` or to the masks.

    ``patterns`` are of images and masks, with ``{split}`` for ``train`` and ``val``; or for training, then for
    validation. The test loader gets the latter too.

    Raises:
        ValueError: another number of patterns, or a config of another kind.
    """
    paths = [os.path.abspath(pattern) for pattern in patterns]
    if len(paths) == 2 and all("{split}" in path for path in paths):
        paths = [path.replace("{split}", split) for split in ("train", "val") for path in paths]
    if len(paths) != 4 or "{split}" in str(paths):
        raise ValueError(
            f"--masks {' '.join(patterns)}: give patterns of images and of masks, for training and for validation: "
            "'{split}/images/{}.jpg' '{split}/masks/{}.png', with train and val for {split}; or IMAGES MASKS twice"
        )
    root = os.path.commonpath([os.path.dirname(path.partition("{}")[0]) for path in paths])
    prefixes = [os.path.relpath(path, root) for path in paths]
    for split, first in (("train", 0), ("val", 2), ("test", 2)):
        datasets = [dataset for _, dataset in all_datasets(cfg, [f"{split}_dataloader"])]
        if len(datasets) != 1 or not is_segmentation(dataset_class(datasets[0], str(cfg.get("default_scope")))):
            found = ", ".join(str(dataset.get("type")) for dataset in datasets) or "no dataset"
            raise ValueError(
                f"--masks: {split}_dataloader must have one dataset of mmseg, it has {found}. Take a segmentation "
                "config such as seg_configs/mst_setr_pup_cityscapes.py; a detector's labels are --coco, --yolo, …"
            )
        dataset, kept = datasets[0], {name: datasets[0][name] for name in _KEPT if name in datasets[0]}
        dataset.clear()
        dataset.update(kept, type="mst_transfer.MaskPairs", data_root=root, metainfo=dict(classes=AUTO))
        dataset["data_prefix"] = dict(zip(NAMES, prefixes[first : first + 2], strict=True))
        _leave_zero_to_the_dataset(dataset["pipeline"])
    _leave_zero_to_the_dataset(cfg.get("tta_pipeline"))


def _leave_zero_to_the_dataset(node: Any) -> None:
    """Lets ``LoadAnnotations``, in steps of any depth, ask the dataset what the value 0 means."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        _leave_zero_to_the_dataset(child)
    if isinstance(node, dict) and node.get("type") == "LoadAnnotations":
        node.pop("reduce_zero_label", None)


def say_pairs(cfg: Any) -> Iterator[str]:
    """What the patterns of training and validation match, and what they leave out.

    Raises:
        ValueError: images are in both, and the two are not the same.
    """
    seen: set[str] = set()
    for place, dataset in unique_datasets(cfg, ("train_dataloader", "val_dataloader")):
        if dataset.get("type") == "mst_transfer.MaskPairs":
            from mst_transfer.datasets.mask_pairs import match  # loads mmseg

            images, masks = (dataset_path(dataset, dataset["data_prefix"][name]) for name in NAMES)
            try:
                pairs, *alone = match(images, masks)
            except ValueError:  # said by the checks of the loaders that a run uses
                continue
            if (both := [image for image, _ in pairs if image in seen]) and len(both) < max(len(seen), len(pairs)):
                raise ValueError(
                    f"{len(both)} images are in training and in validation, e.g. {both[0]}: {{}} takes sub-folders "
                    "too. Next step: patterns that keep them apart, or the same ones for both"
                )
            seen.update(image for image, _ in pairs)
            yield f"{place.partition('_')[0]}: {len(pairs)} images with masks, {images} and {masks}"
            for what, paths in zip(("images without a mask", "masks without an image"), alone, strict=True):
                if paths:
                    yield f"{len(paths)} {what} are left out, e.g. {paths[0]}"
