"""The page: ``DIR/card.json`` → ``DIR/card.html``, one file that opens without a network, and ``DIR/card.md``."""

import base64
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from mst_transfer.card.pictures import read_pictures
from mst_transfer.card.plots import GLYPHS, Line, axis, draw
from mst_transfer.card.pretraining import read_pretraining
from mst_transfer.files.atomic_files import write_text_atomically

VERSION = 1  # of card.json
MISSING = "–"
NAMES = {"knn": "k-NN", "dense_knn": "dense k-NN", "dense_linear": "dense linear", "linear_head": "linear head, tuned"}
NAMES |= {"mask_rcnn": "Mask R-CNN, tuned", "mask_rcnn_frozen": "Mask R-CNN, frozen", "setr_pup": "SETR-PUP, tuned"}


def write_page(folder: str | Path, pretraining: Sequence[str | Path] = ()) -> Path:
    """Writes ``card.html`` and ``card.md`` from ``card.json`` and the pictures beside it.

    Args:
        folder: of the card.
        pretraining: work directories of pre-trainings to show; without any, those that ``card.json`` lists.

    Returns:
        The page.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_card`.
    """
    folder = Path(folder)
    card = read_card(folder)
    names = [checkpoint["name"] for checkpoint in card["checkpoints"]]
    for one in card["differences"]:
        first = (one["verdict"] or "").partition(" ")[0]
        one["tone"] = first if first in ("better", "worse") else "open"
    content = dict(
        card,
        styles={name: number % len(GLYPHS) for number, name in enumerate(names)},
        faults=[job for job in card["jobs"] if job["status"] != "done"],
        curves=label_curves(card["rows"], names),
        pictures=read_pictures(folder / "pictures"),
        runs=[read_pretraining(Path(run)) for run in pretraining or card.get("pretraining", ())],
    )
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update((tool.__name__, tool) for tool in (embedded, flat, grouped, points, probability, span))
    environment.filters.update(named=lambda protocol: NAMES.get(protocol, protocol), numbers=numbers)
    environment.globals.update(axis=axis, draw=draw, glyphs=GLYPHS)
    for suffix, finalize in ((".md", as_markdown), (".html", None)):
        page = environment.overlay(finalize=finalize).get_template(f"page{suffix}").render(content)
        write_text_atomically(folder / f"card{suffix}", page)
    return folder / "card.html"


def read_card(folder: Path) -> dict[str, Any]:
    """Reads ``card.json``; what is no number (NaN, Infinity) is None.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is broken, or of another version.
    """
    path = folder / "card.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; mst evaluate CHECKPOINT … --out {folder} writes it")
    try:
        card = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        version = card.get("version")
    except (ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"{path} is no card ({error}); run mst evaluate … --out {folder} again") from error
    if version != VERSION:
        raise ValueError(f"{path} has version {version!r}, this program reads {VERSION}; run mst evaluate again")
    return card


def grouped(items: Iterable[dict[str, Any]], *keys: str) -> list[tuple[tuple, list[dict[str, Any]]]]:
    """Puts items together that agree in some keys, in the order of their first."""
    groups: dict[tuple, list] = {}
    for item in items:
        groups.setdefault(tuple(item[key] for key in keys), []).append(item)
    return list(groups.items())


def label_curves(rows: list[dict[str, Any]], names: Sequence[str]) -> list[tuple[tuple, list[str], list[Line]]]:
    """Task, metric and protocol, numbers of labels (counts before shares), and a curve a checkpoint, where there are two."""
    curves = []
    for group, measured in grouped([row for row in rows if row["value"] is not None], "task", "metric", "protocol"):
        amounts = sorted({str(row["labels"]) for row in measured}, key=lambda text: ("%" in text, len(text), text))
        lines = []
        for style, name in enumerate(names):
            found = [row for row in measured if row["checkpoint"] == name]
            found.sort(key=lambda row: amounts.index(str(row["labels"])))
            ends = [row["ci95"] if span(row["ci95"]) != MISSING else [row["value"]] * 2 for row in found]
            if found:
                places = [amounts.index(str(row["labels"])) for row in found]
                low, high = zip(*ends, strict=True)
                lines.append(Line(name, places, [row["value"] for row in found], low, high, style % len(GLYPHS)))
        curves += [(group, amounts, lines)] if len(amounts) > 1 else []
    return curves


def numbers(items: Iterable[dict[str, Any]], *keys: str) -> list[float | None]:
    """All numbers under some keys, of intervals both ends."""
    found = [item[key] for item in items for key in keys]
    return [end for value in found for end in (value if isinstance(value, list) else [value])]


def points(value: float | None, sign: str = "") -> str:
    """Writes a figure with one decimal, signed if ``sign`` is "+"."""
    return MISSING if value is None else f"{value:{sign}.1f}".replace("-", "−")


def span(ends: Sequence[float | None] | None, sign: str = "") -> str:
    """Writes both ends of an interval."""
    return MISSING if not ends or None in ends else " … ".join(points(end, sign) for end in ends)


def probability(value: float | None) -> str:
    """Writes a p-value."""
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Writes a nested value as names and words, e.g. ``[("knn · k", "30")]``."""
    nested = isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
    if nested or isinstance(value, dict):
        items = enumerate(value, 1) if nested else value.items()
        return [pair for key, inner in items for pair in flat(inner, f"{name} · {key}" if name else str(key))]
    listed = value if isinstance(value, list) else [value]
    return [(name, ", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in listed))]


def embedded(path: Path) -> str:
    """Writes a PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def as_markdown(value: Any) -> Any:
    """Writes text that Markdown shows as it is, in one line."""
    if hasattr(value, "__html__"):
        return value
    return Markup(escape(re.sub(r"([\\`*\[\]|#~]|\b_|_\b)", r"\\\1", " ".join(str(value).split()))))
