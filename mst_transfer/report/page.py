"""The page: what was collected and drawn, in HTML. Everything is inside the one file, which can be mailed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from mst_transfer.report.collect import Collected, Picture, Run
from mst_transfer.report.table import TableRow, header_and_cells

_FIRST_FACTS = ("command", "task", "config", "checkpoint", "seed", "minutes", "date", "hardware", "versions")


def build_page(title: str, collected: Collected, table: list[TableRow], drawn: dict[str, list[Picture]]) -> str:
    """The whole page, from ``page.html``.

    Args:
        title: heading of the page.
        collected: what was found.
        table: what was measured.
        drawn: pictures that the report made, by "pretrain", "det" and "seg".
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(embedded=_embedded, facts=_facts, words=_words)
    header, cells = header_and_cells(table)
    return environment.get_template("page.html").render(
        title=title,
        out=collected.out,
        header=header,
        table=list(zip(table, cells, strict=True)),
        drawn={**drawn, "pretrain": [*collected.pictures, *drawn.get("pretrain", [])]},
        stages=collected.stages,
        runs=collected.all_runs,
        missing=collected.missing,
    )


def _embedded(path: Path) -> str:
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".svg": "svg+xml"}.get(path.suffix.lower(), "png")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _facts(run: Run) -> list[tuple[str, Any]]:
    """What is known of a run; its metrics last."""
    others = sorted(run.results.keys() - set(_FIRST_FACTS) - {"metrics"})
    last = ["metrics"] if run.results.get("metrics") else []
    names = [name for name in [*_FIRST_FACTS, *others, *last] if name in run.results]
    return [("folder", run.folder), *((name, run.results[name]) for name in names)]


def _words(value: Any) -> str:
    """A value of results.json for readers: nested ones in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(inner) for inner in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
