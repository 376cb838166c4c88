"""What checks of data find, and one message of all that must stop a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing about the data.

    Attributes:
        text: where, what, what is allowed, what to do.
        stops: whether a run must not start; else it is worth knowing, e.g. what mmdet leaves out silently.
        missing_file: whether it is a file that is not there.
    """

    text: str
    stops: bool = True
    missing_file: bool = False


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
    if len(stops) == 1:
        text = stops[0].text
    else:
        text = f"{len(stops)} problems with the data of this config:\n" + "\n".join(
            f"{number}. {finding.text}" for number, finding in enumerate(stops, start=1)
        )
    raise (FileNotFoundError if all(finding.missing_file for finding in stops) else ValueError)(text)


def shown(items: Sequence[Any], limit: int = 8) -> str:
    """The first items in brackets, with their number if there are more."""
    text = ", ".join(map(str, items[:limit]))
    return f"[{text}]" if len(items) <= limit else f"[{text}, … {len(items)} in all]"
