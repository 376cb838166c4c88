"""Says what checks of data find: findings, and a table of what is in the data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing about the data."""

    text: str  # where, what, what is allowed, what to do
    stops: bool = True  # whether a run must not start; else it is worth knowing, e.g. what mmdet leaves out silently
    missing_file: bool = False  # whether it is a file that is not there


def note(text: str) -> Finding:
    """A finding that stops nothing."""
    return Finding(text, stops=False)


def raise_if_any(findings: Iterable[Finding]) -> None:
    """Raises one error of all findings that must stop a run.

    Raises:
        FileNotFoundError: if all that stops the run are missing files.
        ValueError: else.
    """
    stops = [finding for finding in findings if finding.stops]
    if not stops:
        return
    lines = [f"{number}. {finding.text}" for number, finding in enumerate(stops, start=1)]
    several = "\n".join([f"{len(stops)} problems with the data of this config:", *lines])
    kind = FileNotFoundError if all(finding.missing_file for finding in stops) else ValueError
    raise kind(several if len(stops) > 1 else stops[0].text)


def shown(items: Sequence[Any], limit: int = 8) -> str:
    """The first items in brackets, with their number if there are more."""
    text = ", ".join(map(str, items[:limit]))
    return f"[{text}]" if len(items) <= limit else f"[{text}, … {len(items)} in all]"


@dataclass
class SetSummary:
    """Content of one dataset."""

    place: str  # where it stands in the config
    source: str  # annotation file, or folder of masks
    num_images: int
    classes: tuple[str, ...] = ()
    counts: list[float] = field(default_factory=list)  # one a class: instances, or percent of all pixels that were read
    unit: str = "instances"  # or "% of pixels"
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is left out or odd, but stops nothing


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
    digits = len(str(len(classes)))
    labels = ["class", *(f"{index:>{digits}} {name}" for index, name in enumerate(classes))]
    columns = [[label.ljust(max(map(len, labels))) for label in labels]]
    for one in summaries:
        head = f"{_short(one.place)} ({one.unit})"
        values = [f"{count:,}" if isinstance(count, int) else f"{count:.2f}" for count in one.counts]
        columns.append([head, *(value.rjust(len(head)) for value in values)])
    return ["  ".join(row) for row in zip(*columns, strict=True)]


def _short(place: str) -> str:
    """``train_dataloader.dataset`` → train; what is inside wrappers keeps its place."""
    loader, _, inside = place.partition("_dataloader.dataset")
    return loader + inside
