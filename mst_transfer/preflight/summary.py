"""What is in the data of a config, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class SetSummary:
    """Content of one dataset.

    Attributes:
        place: where it stands in the config.
        source: annotation file, or folder of masks.
        num_images: images that it names.
        classes: names of its classes.
        counts: one number a class: instances, or percent of all pixels that were read.
        unit: ``instances`` or ``% of pixels``.
        facts: further sentences.
        notes: what is left out or odd, but stops nothing.
    """

    place: str
    source: str
    num_images: int
    classes: tuple[str, ...] = ()
    counts: list[float] = field(default_factory=list)
    unit: str = "instances"
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def summary_text(summaries: Sequence[SetSummary]) -> str:
    """All sets: a line or more for each, then a table of classes × sets."""
    lines = []
    for one in summaries:
        lines.append(f"{_short(one.place)}: {one.source}: {one.num_images} images")
        lines += [f"  {fact}" for fact in one.facts]
        lines += [f"  note: {text}" for text in one.notes]
    for classes in dict.fromkeys(one.classes for one in summaries if one.counts):
        of_these = [one for one in summaries if one.classes == classes and one.counts]
        lines += ["", *_table(classes, of_these)]
    return "\n".join(lines)


def _table(classes: Sequence[str], summaries: Sequence[SetSummary]) -> list[str]:
    heads = [f"{_short(one.place)} ({one.unit})" for one in summaries]
    width = max(len("class"), *(len(name) for name in classes)) + len(str(len(classes))) + 1
    lines = ["  ".join([f"{'class':{width}}", *heads])]
    for index, name in enumerate(classes):
        label = f"{index:>{len(str(len(classes)))}} {name}"
        values = [f"{_number(one.counts[index]):>{len(head)}}" for one, head in zip(summaries, heads, strict=True)]
        lines.append("  ".join([f"{label:{width}}", *values]))
    return lines


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _short(place: str) -> str:
    """``train_dataloader.dataset`` → train; what is inside wrappers keeps its place."""
    loader, _, inside = place.partition("_dataloader.dataset")
    return loader + inside
