"""The classes of segmentation masks: from a list of names beside them, or from the values that they hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mst_transfer.preflight.findings import shown
from mst_transfer.preflight.mask_values import IGNORED, count_values, list_pairs, option
from mst_transfer.preflight.paths import dataset_path
from mst_transfer.preflight.progress import Progress

NAMES_FILE = "classes.txt"
MAX_MASKS = 5000  # all are read: a rare class may be in one mask only


def mask_classes(place: str, dataset: Any, kind: Any) -> tuple[tuple[str, ...], str]:
    """Names of the classes of a dataset of mmseg, and where they come from.

    ``classes.txt`` in the data root has one name a line. Without it the masks must hold every number from 0 (from 1
    with ``reduce_zero_label``) to the last class; the names are then ``class 0``, ``class 1``, …

    Raises:
        ValueError: if the file names none or one twice, there are too many masks, or their values have gaps.
    """
    file = Path(dataset_path(dataset, NAMES_FILE))
    if file.is_file():
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            wrong = f"names {shown(twice)} more than once" if twice else "names no class"
            raise ValueError(f"{file} {wrong}. Write one name a line, in the order of the values in the masks")
        return tuple(names), str(file)
    advice = f"Write {file}: one name a line, the first for value 0"
    masks = [mask for _, mask in list_pairs(place, dataset, kind) if os.path.isfile(mask)]
    if len(masks) > MAX_MASKS:
        raise ValueError(f'{place}: classes="auto" would have to read {len(masks)} masks for the classes. {advice}')
    ignored = {int(dataset.get("ignore_index", IGNORED)), IGNORED}
    values: set[int] = set()
    progress = Progress(f"masks of {place} for their classes", len(masks))
    for number, mask in enumerate(masks):
        values |= set(count_values(mask)[0])
        progress.update(number)
    first = 1 if option(dataset, kind, "reduce_zero_label") else 0
    found = sorted(values - ignored - ({0} if first else set()))
    if found != list(range(first, first + len(found))) or len(found) < 2:
        hint = " Black-and-white masks must hold 0 and 1 instead of 0 and 255." if values == {0, 255} else ""
        raise ValueError(
            f'{place}: classes="auto" needs masks that hold every number from {first} to the last class; they hold '
            f"{shown(sorted(values), 40)}.{hint} {advice}"
        )
    source = f"the values of {len(masks)} masks below {os.path.commonpath([os.path.dirname(mask) for mask in masks])}"
    return tuple(f"class {value - first}" for value in found), source
