"""Plots inside the page: small SVG whose colours are the page's, in light and in dark."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

GLYPHS = "●■▲◆▼★"  # of a style in the page's text
MARKERS = "os^Dv*"  # the same for matplotlib
INK, FAINT, SERIES = "#010101", "#020202", [f"#03030{style}" for style in range(len(GLYPHS))]
COLOURS = {"xlink:": "", INK: "currentColor", FAINT: "var(--line)"} | {ink: f"var(--c{ink[-1]})" for ink in SERIES}


class Line(NamedTuple):
    """A curve: x and y, lower and upper end of an interval at each x, and the number of its colour and marker."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: int = 0


class Axis(NamedTuple):
    """A horizontal axis over the width of whatever shows it."""

    low: float
    high: float
    ticks: list[float]

    def at(self, value: float) -> str:
        """Where a value stands, in per cent of the width."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


def axis(items: Iterable[dict[str, Any]], form: str) -> Axis:
    """Makes an axis with round ticks that holds each ``value`` and ``ci95``, and 0 if the form of figures has a sign."""
    from matplotlib.ticker import MaxNLocator

    known = [value for one in items if one["value"] is not None for value in (one["value"], *(one["ci95"] or ()))]
    known += [0.0] if "+" in form or not known else []
    margin = 0.08 * (max(known) - min(known)) or 1.0
    low, high = min(known) - margin, max(known) + margin
    return Axis(low, high, [tick for tick in MaxNLocator(4).tick_values(low, high).tolist() if low <= tick <= high])


def draw(lines: Sequence[Line], x_label: str, y_label: str, x_ticks: Sequence[str] = ()) -> Markup:
    """Draws one pair of axes as inline SVG, without the lines' names; ``x_ticks`` are words at x = 0, 1, 2, …"""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure, file = Figure(figsize=(3.3, 2.1), layout="constrained"), io.StringIO()
    axes = figure.add_subplot()
    for line in lines:
        colour, shown = SERIES[line.style], max(1, len(line.x) // 6)
        axes.plot(line.x, line.y, color=colour, marker=MARKERS[line.style], markersize=4, markevery=shown, lw=1.4)
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    if x_ticks:
        axes.set_xticks(range(len(x_ticks)), x_ticks, parse_math=False)
    axes.set_xlabel(x_label, fontsize=8, color=INK, parse_math=False)
    axes.set_ylabel(y_label, fontsize=8, color=INK, parse_math=False)
    axes.tick_params(labelsize=8, labelcolor=INK, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(color=FAINT, linewidth=0.6)
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": repr((lines, x_ticks))}):
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = re.sub(r"^.*?<svg .*?(?=viewBox)", "<svg ", file.getvalue(), flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"|<style.*?</style>|<metadata.*?</metadata>', "", svg, flags=re.DOTALL)
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, variable)
    return Markup(svg)
