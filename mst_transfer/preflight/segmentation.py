"""Checks segmentation masks against the images and the classes of the config, by their histograms."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mst_transfer.datasets.cityscapes_ids import LABEL_IDS_SUFFIX, label_map_of_ids
from mst_transfer.files.image_files import MAX_PIXELS, open_image_file
from mst_transfer.preflight.data_files import image_size, missing_files
from mst_transfer.preflight.findings import Finding, SetSummary
from mst_transfer.preflight.num_classes import ignored_values
from mst_transfer.preflight.segmentation_masks import (
    IGNORED,
    count_values,
    list_pairs,
    option,
    value_map,
)
from mst_transfer.runs.progress import Progress

MAX_MASKS = 400
MAX_SECONDS = 10.0
_MAX_SHOWN = 3


def check_masks(
    place: str,
    dataset: Mapping[str, Any],
    kind: Any,
    classes: Sequence[str],
    model: Mapping[str, Any],
    max_pixels: int = MAX_PIXELS,
) -> tuple[list[Finding], SetSummary | None]:
    """Checks one dataset of mmseg: images, their masks, and sizes and values of a sample of the masks.

    All masks of a small set are read; of a larger one up to ``MAX_MASKS``, evenly spaced, in ``MAX_SECONDS``.

    ``place`` is where it stands in the config, ``kind`` its class.

    Returns:
        Findings, and what is in the masks as far as they could be read.
    """
    findings = [*_check_subset(place, kind, classes), *_check_options(place, dataset, kind, model)]
    if any(finding.stops for finding in findings):
        return findings, None
    try:
        pairs = list_pairs(place, dataset, kind)
    except ValueError as error:
        return [Finding(str(error))], None
    absent = set(missing_files([path for pair in pairs for path in pair]))
    for what, name, files in zip(("image", "mask"), ("img", "seg_map"), zip(*pairs, strict=True), strict=True):
        if paths := [path for path in files if path in absent]:
            text = (
                f"{place}: {len(paths)} of {len(pairs)} images have no {what}, e.g. {paths[0]}. Complete the folder, "
                f"or correct data_prefix.{name}_path and {name}_suffix."
            )
            findings.append(Finding(text, missing_file=True))
    there = [pair for pair in pairs if not absent.intersection(pair)]
    read = _Reading(place, dataset, kind, list(classes), max_pixels)
    read.look(there[:: max(-(-len(there) // MAX_MASKS), 1)])
    findings += read.findings(there)
    return findings, read.summary(there, len(pairs), tuple(classes))


def _check_subset(place: str, kind: Any, classes: Sequence[str]) -> Iterator[Finding]:
    """A class of datasets that has classes of its own can only be used with some of them."""
    full: Sequence[str] = getattr(kind, "METAINFO", {}).get("classes") or ()
    strangers = [name for name in classes if full and name not in full]
    if strangers:
        yield Finding(
            f"{place}: {kind.__name__} has no class {', '.join(map(repr, strangers))}; its classes are "
            f"{', '.join(full)}. For classes of your own use type='BaseSegDataset', with img_suffix and "
            "seg_map_suffix as your files end"
        )
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        yield Finding(f"{place}: metainfo.classes names {', '.join(map(repr, twice))} more than once. Name each once")


def _check_options(place: str, dataset: Mapping[str, Any], kind: Any, model: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings of dataset, pipeline and heads that must agree, but are not compared by mmseg before a run."""
    reduced = bool(option(dataset, kind, "reduce_zero_label"))
    for step in dataset.get("pipeline") or ():
        if step.get("type") != "LoadAnnotations":
            continue
        asked = step.get("reduce_zero_label")
        if asked is not None and bool(asked) != reduced:
            yield Finding(
                f"{place}: LoadAnnotations has reduce_zero_label={asked}, the dataset {reduced}: mmseg would stop at "
                "the first image. Leave it out of LoadAnnotations, and set it in the dataset"
            )
        if step.get("imdecode_backend") == "cv2" and _has_palette(dataset, kind):
            yield Finding(
                f"{place}: the masks have palettes, and LoadAnnotations with imdecode_backend='cv2' would read their "
                "colours instead of their values. Leave imdecode_backend out: mmseg's default, 'pillow', reads values"
            )
    ignored = int(dataset.get("ignore_index", IGNORED))
    for path, value in ignored_values(model).items():
        if value != ignored:
            yield Finding(
                f"{place}: ignore_index={ignored}, but {path}={value}: pixels to be ignored would be learned, or the "
                f"other way round. Set both to the value in the masks (255 is mmseg's default)"
            )
    suffix = str(option(dataset, kind, "seg_map_suffix"))
    cityscapes = "rider" in (getattr(kind, "METAINFO", {}).get("classes") or ())
    if suffix.endswith(LABEL_IDS_SUFFIX) and cityscapes and not getattr(kind, "reads_label_ids", False):
        yield Finding(
            f"{place}: {kind.__name__} takes the values of *{suffix} for train ids, but they are label ids: road is 7 "
            "there, not 0. Set type='mst_transfer.CityscapesDataset', which maps them"
        )


def _has_palette(dataset: Mapping[str, Any], kind: Any) -> bool:
    """Whether the first mask that can be read has a palette."""
    for _, mask in list_pairs("", dataset, kind)[:_MAX_SHOWN]:
        with suppress(ValueError, OSError), open_image_file(mask) as image:
            return image.mode == "P"
    return False


class _Reading:
    """Values and sizes of the masks that were read."""

    def __init__(self, place: str, dataset: Mapping[str, Any], kind: Any, classes: list[str], max_pixels: int) -> None:
        self._place, self._num_classes, self._max_pixels = place, len(classes), max_pixels
        self._ignored = int(dataset.get("ignore_index", IGNORED))
        self._reduced = bool(option(dataset, kind, "reduce_zero_label"))
        self._map = value_map(dataset, kind, classes, self._ignored)
        by_ids = getattr(kind, "reads_label_ids", False)
        self._raw_map = label_map_of_ids(value_map(dataset, kind, classes, IGNORED)) if by_ids else {}
        self.num_read = self.num_raw = 0
        self._values: Counter[int] = Counter()  # as they become
        self._wrong: list[str] = []
        self._sizes: list[str] = []
        self._broken: list[str] = []

    def look(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Reads masks, and the headers of their images, until the time is up."""
        started, progress = time.monotonic(), Progress(f"checking masks of {self._place}:", len(pairs))
        for image, path in pairs:
            self.num_read += 1
            try:
                counts, size = count_values(path, self._max_pixels)
                found = image_size(image, self._max_pixels)
            except ValueError as error:
                self._broken.append(str(error))
                continue
            if found != size:
                self._sizes.append(f"{path} is {size[0]} × {size[1]}, its image {found[0]} × {found[1]}")
            self._count(path, counts)
            progress(self.num_read)
            if time.monotonic() - started > MAX_SECONDS:
                break

    def _count(self, path: str, counts: Mapping[int, int]) -> None:
        raw = bool(self._raw_map) and path.endswith(LABEL_IDS_SUFFIX)
        self.num_raw += raw
        mapping = self._raw_map if raw else self._map
        wrong = sorted(set(counts) - set(mapping))
        if wrong:
            total = sum(counts.values())
            histogram = ", ".join(f"{value}: {100 * count / total:.1f} %" for value, count in sorted(counts.items()))
            self._wrong.append(f"mask {path} holds {', '.join(map(str, wrong))}{self._allowed(wrong, raw, histogram)}")
        for value, count in counts.items():
            self._values[mapping.get(value, self._ignored)] += count

    def _allowed(self, wrong: Sequence[int], raw: bool, histogram: str) -> str:
        """What a mask may hold, and what the values suggest."""
        if raw:
            return f"; allowed are Cityscapes' label ids 0 to 33. Its values: {histogram}."
        numbers = [value for value in self._map if value not in (self._ignored, IGNORED)]
        hint = ""
        if max(wrong) <= 33 and len(numbers) == 19:
            hint = (
                " These look like Cityscapes labelIds: training wants labelTrainIds; "
                "type='mst_transfer.CityscapesDataset' makes them from files that end in _gtFine_labelIds.png."
            )
        elif list(wrong) == [len(numbers)] and not self._reduced:
            hint = " If 0 means unlabelled and classes begin at 1, set reduce_zero_label=True in the dataset."
        return (
            f"; allowed are {min(numbers)} to {max(numbers)} for the {self._num_classes} classes and {self._ignored} "
            f"for ignored pixels. Its values: {histogram}.{hint}"
        )

    def findings(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Finding]:
        """In words."""
        place, of = self._place, f"of {self.num_read} masks that were read"
        if self._broken:
            yield Finding(f"{place}: {len(self._broken)} {of} are broken: {'; '.join(self._broken[:_MAX_SHOWN])}")
        if self._sizes:
            yield Finding(
                f"{place}: {len(self._sizes)} {of} are of another size than their image: "
                f"{'; '.join(self._sizes[:_MAX_SHOWN])}. Write masks of the images' size, resized with nearest "
                "neighbours"
            )
        if self._wrong:
            more = "" if len(self._wrong) == 1 else f" And {len(self._wrong) - 1} more {of}."
            yield Finding(
                f"{place}: {self._wrong[0]} Convert the masks, or correct metainfo.classes and the heads' "
                f"num_classes.{more}"
            )
        elif pairs and not self._broken and not set(self._values) - {self._ignored, IGNORED}:
            yield Finding(
                f"{place}: every pixel of the masks below {os.path.dirname(pairs[0][1])} is {self._ignored} (ignored): "
                "nothing to learn from. Are they the right masks?"
            )

    def summary(self, pairs: Sequence[tuple[str, str]], num_images: int, classes: tuple[str, ...]) -> SetSummary:
        """Share of each class in the pixels that were read."""
        total = max(sum(self._values.values()), 1)
        ignored = sum(self._values[value] for value in {self._ignored, IGNORED})
        facts = [f"{self.num_read} of {len(pairs)} masks read, {100 * ignored / total:.1f} % of their pixels ignored"]
        if self.num_raw:
            facts.append(f"train ids are made from labelIds on the fly ({self.num_raw} of {self.num_read} masks)")
        elif self._raw_map:
            facts.append("prepared labelTrainIds are read")
        shares = [100 * self._values[index] / total for index in range(len(classes))]
        source = os.path.commonpath([os.path.dirname(mask) for _, mask in pairs]) if pairs else "no masks"
        return SetSummary(self._place, source, num_images, classes, shares, "% of pixels", facts)
