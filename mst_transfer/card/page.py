"""The page: ``DIR/card.json`` → ``DIR/card.html``, one file that opens without a network, and ``DIR/card.md``."""

import base64
import json
import mimetypes
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
NAMES = {"knn": "k-NN", "dense_knn": "dense k-NN", "dense_linear": "dense linear", "linear_head": "linear head, tuned"}
NAMES |= {"mask_rcnn": "Mask R-CNN, tuned", "mask_rcnn_frozen": "Mask R-CNN, frozen", "setr_pup": "SETR-PUP, tuned"}
SIGNS = {"better": "▲", "worse": "▼", "open": "◇"}  # of a verdict


def write_page(folder: str | Path, pretraining: Sequence[str | Path] = ()) -> Path:
    """Writes ``card.html``, which it returns, and ``card.md`` from ``card.json`` and the pictures beside it.

    ``pretraining``: work directories of pre-trainings to show; without any, those that ``card.json`` lists.

    Raises:
        FileNotFoundError: there is no card, or no such work directory.
        ValueError: the card is broken, or of another version.
    """
    folder = Path(folder)
    card = read_card(folder / "card.json")
    styles = {one["name"]: number % len(GLYPHS) for number, one in enumerate(card["checkpoints"])}
    for one in card["differences"]:
        first = one["verdict"].partition(" ")[0]
        one |= dict(value=one["difference"], glyph="●", style=first if first in SIGNS else "open")
    for one in card["rows"]:
        one |= dict(glyph=GLYPHS[styles[one["checkpoint"]]], style=f"s{styles[one['checkpoint']]}")
    content = dict(
        dict(card, styles=styles, curves=label_curves(card["rows"], styles)),
        faults=[job for job in card["jobs"] if job["status"] != "done"],
        pictures=read_pictures([folder / "pictures" / Path(job["id"]).name for job in card["jobs"]], styles),
        elsewhere={job["id"]: job["environment"] for job in card["jobs"] if job.get("environment")},
        runs=[read_pretraining(Path(run)) for run in pretraining or card.get("pretraining", ())],
    )
    for suffix in (".md", ".html"):
        write_text_atomically(folder / f"card{suffix}", render(f"page{suffix}", content))
    return folder / "card.html"


def render(template: str, content: dict[str, Any]) -> str:
    """Fills in a template of this folder; what it holds is escaped, for Markdown if the name ends in ``.md``."""
    finalize = as_markdown if template.endswith(".md") else None
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=finalize)
    environment.filters.update(embedded=embedded, flat=flat, grouped=grouped, points=points, span=span)
    environment.globals.update(axis=axis, draw=draw, glyphs=GLYPHS, names=NAMES, signs=SIGNS)
    return environment.get_template(template).render(content)


def side_by_side(folder: str | Path, other: str | Path) -> str:
    """Lists the figures of two cards of one protocol, a line for each that either has.

    Raises:
        FileNotFoundError, ValueError: see ``write_page``; the protocols differ: says in what.
    """
    cards = [read_card(Path(one) / "card.json") for one in (folder, other)]
    if cards[0]["protocol_hash"] != cards[1]["protocol_hash"]:
        ours, theirs = (dict(flat(card["protocol"])) for card in cards)
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        lines = [f"  {name}: {ours.get(name, 'not set')} against {theirs.get(name, 'not set')}" for name in names]
        raise ValueError(
            "\n".join([f"the protocols of {folder} and {other} differ, so do not compare figures:", *lines])
        )
    keys = ("task", "metric", "protocol", "labels", "checkpoint")
    left, right = (
        {tuple(row[key] for key in keys): f"{points(row['value'])} ({span(row['ci95'])})" for row in card["rows"]}
        for card in cards
    )
    rows = [(*row, left.get(row, "–"), right.get(row, "–")) for row in sorted({**left, **right})]
    return "\n".join("  ".join(row) for row in [(*keys, str(folder), str(other)), *rows])


def read_card(path: Path) -> dict[str, Any]:
    """Reads ``card.json``. Raises: see ``write_page``."""
    advice = f"mst evaluate CHECKPOINT … --out {path.parent} writes one"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; {advice}")
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = card["version"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no card ({type(error).__name__}: {error}); {advice}") from error
    if version != VERSION:
        raise ValueError(f"{path} has version {version!r}, this program reads {VERSION}; {advice}")
    return card


def grouped(items: Iterable[dict[str, Any]], *keys: str) -> list[tuple[tuple, list[dict[str, Any]]]]:
    """Puts items together that agree in some keys, in the order of their first."""
    groups: dict[tuple, list] = {}
    for item in items:
        groups.setdefault(tuple(item[key] for key in keys), []).append(item)
    return list(groups.items())


def label_curves(rows: list[dict[str, Any]], styles: dict[str, int]) -> list[tuple[tuple, list[str], list[Line]]]:
    """(Task, metric, protocol), its two or more numbers of labels, counts before shares, and a curve a checkpoint."""
    curves = []
    for group, found in grouped(rows, "task", "metric", "protocol"):
        labels = sorted({row["labels"] for row in found}, key=lambda text: ("%" in text, float(text.rstrip("%"))))
        lines = []
        for (name,), own in grouped(found, "checkpoint"):
            ends = sorted((labels.index(row["labels"]), row["value"], *row["ci95"]) for row in own)
            columns: Any = zip(*ends, strict=True)
            lines.append(Line(name, *columns, style=styles[name]))  # type: ignore[misc]
        curves += [(group, labels, lines)] if len(labels) > 1 else []
    return curves


def points(value: float | None, form: str = ".1f") -> str:
    """Writes a figure."""
    if value is None:
        return "–"
    text = f"{value:{form}}".replace("-", "−")
    return text if text.strip("+−0.") else text.lstrip("+−")  # 0 has no sign


def span(ends: Sequence[float], form: str = ".1f") -> str:
    """Writes both ends of an interval."""
    return " … ".join(points(end, form) for end in ends)


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Writes a nested value as names and words, e.g. ``[("knn · k", "30")]``."""
    nested = isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
    if nested or isinstance(value, dict):
        items = enumerate(value, 1) if nested else value.items()
        return [pair for key, inner in items for pair in flat(inner, f"{name} · {key}" if name else str(key))]
    listed = value if isinstance(value, list) else [value]
    return [(name, ", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in listed))]


def embedded(path: Path) -> str:
    """Writes a picture's file as an address that holds it."""
    return f"data:{mimetypes.guess_type(path)[0]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def as_markdown(value: Any) -> Any:
    """Writes text that Markdown shows as it is, in one line; what a template has written stays."""
    words = re.sub(r"([\\`*\[\]|#~]|\b_|_\b)", r"\\\1", " ".join(str(value).split()))
    return value if hasattr(value, "__html__") else Markup(escape(words))
