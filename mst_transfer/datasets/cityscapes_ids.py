"""Cityscapes' two numberings of a mask: ``labelIds``, as downloaded, and the 19 ``trainIds`` that training wants.

Source of the table: ``cityscapesscripts/helpers/labels.py`` of cityscapesScripts. Its ``createTrainIdLabelImgs``
draws the same polygons in the same order with either number, so mapping a ``labelIds`` mask pixel by pixel gives
exactly the ``labelTrainIds`` mask.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cache

LABEL_IDS_SUFFIX = "_labelIds.png"
TRAIN_IDS_SUFFIX = "_labelTrainIds.png"
IGNORED = 255
NUM_LABEL_IDS = 34
# id of each class in the order of the train ids: road, sidewalk, building, …, bicycle
_IDS_OF_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_ID_OF: dict[int, int] = dict.fromkeys(range(NUM_LABEL_IDS), IGNORED) | {
    label_id: train_id for train_id, label_id in enumerate(_IDS_OF_TRAIN_IDS)
}


def label_map_of_ids(label_map: Mapping[int, int] | None = None) -> dict[int, int]:
    """What each label id of a mask becomes.

    Args:
        label_map: train id → class, where a dataset picks some of the 19 classes; None keeps the train ids.

    Returns:
        Label id, 0 to 33 → class or 255 (ignored). Only the values of one mask; simultaneous, not in sequence.
    """
    chosen = {IGNORED: IGNORED} | dict(label_map if label_map is not None else {i: i for i in range(19)})
    return {label_id: chosen[train_id] for label_id, train_id in TRAIN_ID_OF.items()}


def choose_masks(masks: Iterable[str]) -> list[tuple[str, bool]]:
    """For each mask the file to read: its train ids if they are there, else its label ids.

    Args:
        masks: paths that end in ``_labelTrainIds.png`` or, to be mapped in any case, in ``_labelIds.png``;
            others are kept.

    Returns:
        Path, and whether it holds label ids. Where neither file exists, the path that was given.
    """

    @cache
    def names_in(folder: str) -> set[str]:  # one listing instead of a look-up a file: quick on network disks
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()

    def exists(path: str) -> bool:
        folder, name = os.path.split(path)
        return name in names_in(folder)

    chosen = []
    for mask in masks:
        raw = mask.removesuffix(TRAIN_IDS_SUFFIX) + LABEL_IDS_SUFFIX
        if mask.endswith(LABEL_IDS_SUFFIX):
            chosen.append((mask, True))
        elif mask.endswith(TRAIN_IDS_SUFFIX) and not exists(mask) and exists(raw):
            chosen.append((raw, True))
        else:
            chosen.append((mask, False))
    return chosen
