"""Plots inside the page: small SVG whose colours are the page's, in light and in dark."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

GLYPHS, MARKERS = "●■▲◆▼★", "os^Dv*"  # of a style, in the page's text and for matplotlib
INK, FAINT, SERIES = "#010101", "#020202", [f"#03030{style}" for style in range(len(GLYPHS))]
FINAL = {"xlink:": "", INK: "currentColor", FAINT: "var(--line)"} | {ink: f"var(--c{ink[-1]})" for ink in SERIES}
LOOK = {"font.size": 8, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "axes.grid": True, "grid.color": FAINT}
LOOK |= {f"{axis}tick.{name}": colour for axis in "xy" for name, colour in (("color", FAINT), ("labelcolor", INK))}
LOOK |= {"axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 4, "text.parse_math": False}


class Line(NamedTuple):
    """A curve, the ends of an interval at each x, and the number of its colour and marker."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: int = 0


def axis(items: Iterable[dict[str, Any]], form: str) -> dict[str, Any]:
    """Makes an axis that holds each ``value`` and ``ci95``, and 0 if the form of figures has a sign.

    It has round ``ticks``, and ``at``, which says where a value stands in per cent of the width.
    """
    from matplotlib.ticker import MaxNLocator

    known = [value for one in items for value in (one["value"], *one["ci95"])] + [0.0] * ("+" in form)
    margin = 0.08 * (max(known) - min(known)) or 1.0
    low, high = min(known) - margin, max(known) + margin
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    return dict(ticks=ticks, at=lambda value: f"{100 * (value - low) / (high - low):.2f}%")


def draw(lines: Sequence[Line], x_label: str, y_label: str, x_ticks: Sequence[str] = ()) -> Markup:
    """Draws one pair of axes as inline SVG, without the lines' names; ``x_ticks`` are words at x = 0, 1, 2, …"""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.StringIO()
    with rc_context({**LOOK, "svg.fonttype": "none", "svg.hashsalt": repr((lines, x_ticks))}):
        figure = Figure(figsize=(3.3, 2.1), layout="constrained")
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
        for line in lines:
            colour, every = SERIES[line.style], max(1, len(line.x) // 6)
            axes.plot(line.x, line.y, color=colour, marker=MARKERS[line.style], markevery=every, linewidth=1.4)
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        if x_ticks:
            axes.set_xticks(range(len(x_ticks)), x_ticks)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"^.*?<svg .*?(?=viewBox)", "<svg ", file.getvalue(), flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"|<style.*?</style>|<metadata.*?</metadata>', "", svg, flags=re.DOTALL)
    for colour, variable in FINAL.items():
        svg = svg.replace(colour, variable)
    return Markup(svg)
