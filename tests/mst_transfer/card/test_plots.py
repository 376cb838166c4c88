"""Plots: what is drawn stands where the numbers say, in the page's colours, with its words as text."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mst_transfer.card.plots import GLYPHS, MARKERS, Line, axis, draw

SVG = "{http://www.w3.org/2000/svg}"


def paths(svg: str, ink: str) -> list[np.ndarray]:
    """Points [n, 2] of every drawn path of a colour."""
    parsed = ElementTree.fromstring(svg)
    drawn = [path for path in parsed.iter(f"{SVG}path") if f"stroke: {ink};" in path.get("style", "")]
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d")), float) for path in drawn]


def test_a_curve_is_drawn_to_scale() -> None:
    x, y = [0.0, 1.0, 4.0], [1.0, 3.0, 2.0]
    svg = draw([Line("a", x, y, style=2)], "labels", "mIoU")
    (points,) = [found for found in paths(svg, "var(--c2)") if len(found) == 3 and np.ptp(found[:, 0]) > 50]
    for drawn, values in zip(points.T, (x, y), strict=True):
        slope, start = np.polyfit(values, drawn, 1)
        np.testing.assert_allclose(start + slope * np.array(values), drawn, atol=1e-3)
    assert points[1, 1] < points[0, 1], "more is higher"


def test_words_are_text_and_colours_the_pages() -> None:
    svg = draw([Line("<b>", [0, 1], [1, 2], [0, 1], [2, 3])], "$x$ & <i>", "$y$", ["<u>", "$a$"])
    texts = {"".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")}
    assert {"$x$ & <i>", "$y$", "<u>", "$a$"} <= texts and "<b>" not in svg
    assert "var(--c0)" in svg and "currentColor" in svg and "var(--line)" in svg and "#0" not in svg.replace("#m", "")
    assert "<style" not in svg and "<metadata" not in svg and svg.startswith("<svg viewBox")
    assert svg == draw([Line("<b>", [0, 1], [1, 2], [0, 1], [2, 3])], "$x$ & <i>", "$y$", ["<u>", "$a$"])


def test_two_plots_share_no_names() -> None:
    found = [set(re.findall(r'id="(.*?)"', draw([Line("", [0, 1], [1, last])], "", ""))) for last in (2, 3)]
    assert all(found) and not found[0] & found[1]


def test_axis_holds_what_it_shows() -> None:
    items = [dict(value=2.0, ci95=[1.0, 3.5]), dict(value=-1.0, ci95=[-1.0, -1.0])]
    found = axis(items, ".1f")
    places = [float(found["at"](value)[:-1]) for value in (-1.0, 1.0, 2.0, 3.5)]
    assert 0 < places[0] and places[3] < 100 and np.polyfit((-1.0, 1.0, 2.0, 3.5), places, 1, full=True)[1] < 1e-3
    assert len(found["ticks"]) >= 3 and all(0 <= float(found["at"](tick)[:-1]) <= 100 for tick in found["ticks"])
    alone = dict(value=5.0, ci95=[4.0, 6.0])
    assert 0 not in axis([alone], ".1f")["ticks"] and 0 in axis([alone], "+.1f")["ticks"]
    assert axis([dict(value=5.0, ci95=[5.0, 5.0])], ".1f")["at"](5.0) == "50.00%"


@pytest.mark.parametrize("style", range(len(GLYPHS)))
def test_every_style_has_a_marker_of_its_own(style: int) -> None:
    assert len(set(MARKERS)) == len(set(GLYPHS)) == len(MARKERS) == len(GLYPHS)
    assert f"var(--c{style})" in draw([Line("", [0, 1], [0, 1], style=style)], "", "")
