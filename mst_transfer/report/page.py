"""The page: what was collected and drawn, in HTML. Everything is inside the one file, which can be mailed."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mst_transfer.report.collect import TASKS, Collected, Missing, Picture, Run, Stage
from mst_transfer.report.style import SKELETON, STYLE
from mst_transfer.report.table import TableRow, header_and_cells

_FACTS = ("task", "config", "checkpoint", "seed", "minutes", "date", "hardware", "versions")


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``anchor`` is its address within it."""

    anchor: str
    title: str
    body: str


def build_page(
    title: str,
    collected: Collected,
    table: list[TableRow],
    drawn: dict[str, list[Picture]],
) -> str:
    """The whole page.

    Args:
        title: heading of the page.
        collected: what was found.
        table: what was measured.
        drawn: pictures that the report made, by "pretrain", "det" and "seg".
    """
    pretrain_pictures = [*collected.pictures, *drawn.get("pretrain", [])]
    sections = [
        Section("results", "Results", _results(table, collected)),
        Section("pretrain", "Pre-training", _figures(pretrain_pictures)),
        Section("det", "Detection and instance segmentation", _figures(drawn.get("det", []))),
        Section("seg", "Semantic segmentation", _figures(drawn.get("seg", []))),
        Section("runs", "How it was made", _runs(collected)),
    ]
    if collected.missing:
        sections.append(Section("missing", "Not there", _missing(collected.missing)))
    sections = [section for section in sections if section.body]
    navigation = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    return SKELETON.substitute(
        title=escape(title),
        style=STYLE,
        lead=(
            "A Vision Transformer is pre-trained by MST on photos without labels, then carries a detector "
            "and a segmenter. The same heads also start from random weights."
        ),
        navigation=navigation,
        sections="\n".join(
            f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.body}</section>'
            for section in sections
        ),
        footer=f"Made by <code>mst report {escape(str(collected.out))}</code> from the runs under it.",
    )


def _results(table: list[TableRow], collected: Collected) -> str:
    if not table:
        return '<p class="missing">No run has measured anything yet; see “Not there” below.</p>'
    header, cells = header_and_cells(table)
    gain = len(header) - 2
    lines = []
    for row, values in zip(table, cells, strict=True):
        tds = []
        for column, value in enumerate(values):
            classes = ["number"] if column > 1 else []
            if column == gain and row.gain:
                classes.append("better" if row.gain > 0 else "worse")
            tds.append(f'<td class="{" ".join(classes)}">{escape(value)}</td>')
        lines.append(f"<tr>{''.join(tds)}</tr>")
    heads = "".join(
        f'<th class="{"number" if column > 1 else ""}">{escape(name)}</th>' for column, name in enumerate(header)
    )
    note = (
        "Points of 100, on the validation images, after the last training step; minutes of training, in the "
        "order of the starts. – : not measured."
    )
    commands = "".join(_measured_by(run) for task in TASKS for run in collected.runs[task] if run.results)
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="lead">{note}</p><h3>Measured by</h3>{commands}'
    )


def _measured_by(run: Run) -> str:
    seed = f", seed {_text(run.results['seed'])}" if "seed" in run.results else ""
    command = _text(run.results.get("command", "the command was not recorded"))
    return f"<div>{TASKS[run.task]} from {escape(run.label)}{escape(seed)}<pre>{escape(command)}</pre></div>"


def _figures(pictures: list[Picture]) -> str:
    return "".join(
        f'<figure><img src="{_embedded(picture.path)}" alt="{escape(picture.title, quote=True)}">'
        f"<figcaption><b>{escape(picture.title)}.</b> {escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )


def _embedded(path: Path) -> str:
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".svg": "svg+xml"}.get(path.suffix.lower(), "png")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _runs(collected: Collected) -> str:
    runs = [collected.pretrain] if collected.pretrain else []
    runs += [run for task in TASKS for run in collected.runs[task]]
    facts = "".join(_run_facts(run) for run in runs if run.results)
    return _stages(collected.stages) + (f"<h3>Every run</h3>{facts}" if facts else "")


def _stages(stages: list[Stage]) -> str:
    if not stages:
        return ""
    rows = "".join(
        f'<tr><td>{escape(stage.name)}</td><td class="number">{stage.minutes:.1f}</td>'
        f"<td><code>{escape(stage.command)}</code></td></tr>"
        for stage in stages
    )
    total = sum(stage.minutes for stage in stages)
    return (
        '<div class="scroll"><table><thead><tr><th>stage</th><th class="number">minutes</th>'
        f"<th>command</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="lead">{total:.1f} minutes in all; both starts of a task may run at the same time.</p>'
    )


def _run_facts(run: Run) -> str:
    title = "Pre-training" if run.task == "pretrain" else f"{TASKS[run.task].capitalize()} from {run.label}"
    facts = [("folder", str(run.folder))]
    facts += [("command", _text(run.results["command"]))] if "command" in run.results else []
    named = [key for key in _FACTS if key in run.results]
    others = sorted(run.results.keys() - set(_FACTS) - {"command", "metrics"})
    facts += [(key, _text(run.results[key])) for key in [*named, *others]]
    facts += [("metrics", _text(run.results["metrics"]))] if run.results.get("metrics") else []
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts)
    if run.load_report:
        rows += f"<tr><th>weights</th><td><pre>{escape(run.load_report)}</pre></td></tr>"
    return f'<details><summary><b>{escape(title)}</b></summary><table class="facts">{rows}</table></details>'


def _missing(missing: list[Missing]) -> str:
    items = "".join(
        f"<li>{escape(item.reason)}: <code>{escape(str(item.path))}</code>, made by "
        f"<code>{escape(item.command)}</code></li>"
        for item in missing
    )
    return f'<div class="missing"><ul>{items}</ul></div>'


def _text(value: Any) -> str:
    """A value of results.json for readers: nested ones in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
