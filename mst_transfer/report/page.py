"""The page: what was collected and drawn, in HTML. Everything is inside the one file, which can be mailed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from mst_transfer.report.collect import Collected, Picture


def build_page(collected: Collected, table: list[list[str]], drawn: dict[str, list[Picture]]) -> str:
    """The whole page, from ``page.html``.

    Args:
        collected: what was found.
        table: what was measured, see :func:`~mst_transfer.report.table.build_table`.
        drawn: pictures by "pretrain", "det" and "seg".
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(embedded=_embedded, words=_words)
    return environment.get_template("page.html").render(collected._asdict(), table=table, drawn=drawn)


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _words(value: Any) -> str:
    """A value of results.json for readers: nested ones in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
