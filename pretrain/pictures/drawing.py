"""Figures of photographs with attention, masks and restored views."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mst_transfer.probes.maps import overlay

_MAX_PANELS_A_ROW = 7


def grey_out(photos: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Photos [B, H, W, 3] with the hidden cells, mask [B, h, w], in grey."""
    scale = photos.shape[1] // mask.shape[1]
    hidden = mask.repeat(scale, axis=1).repeat(scale, axis=2)[..., None]
    return np.where(hidden, 0.5, photos)


def _show(axis: Axes, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def draw_rows(rows: dict[str, np.ndarray]) -> Figure:
    """One row a name, one picture [H, W, 3] an image; all [B, H, W, 3]."""
    first = next(iter(rows.values()))
    count, aspect = len(first), first.shape[1] / first.shape[2]
    size = (1.6 * count + 0.2, (1.6 * aspect + 0.05) * len(rows))
    figure = Figure(size, dpi=140, layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01))
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            _show(axis, picture)
        line[0].set_ylabel(name, fontsize=9)
    return figure


def draw_heads(photo: np.ndarray, heads: np.ndarray) -> Figure:
    """A photo [H, W, 3], the mean of its attention heads [n, h, w], and each head."""
    panels = {"photo": photo, "mean": overlay(photo, heads.mean(axis=0))}
    panels |= {f"head {number}": overlay(photo, head) for number, head in enumerate(heads, 1)}
    lines = math.ceil(len(panels) / _MAX_PANELS_A_ROW)
    columns = math.ceil(len(panels) / lines)
    size = (1.8 * columns, (1.8 * photo.shape[0] / photo.shape[1] + 0.22) * lines)
    figure = Figure(size, dpi=140, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01))
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (name, picture) in zip(axes.flat, panels.items(), strict=False):
        _show(axis, picture)
        axis.set_title(name, fontsize=9, pad=3)
    return figure
