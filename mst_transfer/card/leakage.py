"""Finds validation images that are near duplicates of images that a checkpoint has seen: ``docs/card_leakage.md``.

A grey thumbnail [SIDE, SIDE] stands for each file. The whole of one is correlated with windows of the other, both ways
and mirrored, so that a crop meets its origin. An affine map aligns the best candidates (OpenCV's ECC: Evangelidis and
Psarakis, PAMI 2008); what a band-pass leaves of both, edges without light and noise, is correlated again.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mst_transfer.files.atomic_files import write_atomically
from mst_transfer.files.image_crops import resize
from mst_transfer.files.image_files import UnreadableImageError, shown_path
from mst_transfer.files.image_folder import read_image
from mst_transfer.probes.labelled_images import load
from mst_transfer.runs.progress import Progress

SIDE, CELLS, MIN_AREA, THRESHOLD = 48, 10, 0.66, 0.88  # a window holds MIN_AREA of its image, in CELLS × CELLS means
METHOD = f"correlation of aligned, band-passed {SIDE} × {SIDE} thumbnails, also mirrored, cropped to {MIN_AREA:.0%}"
Paths = Iterable[str | os.PathLike[str]]
_CANDIDATES, _SHOWN, _BLOCK, _MARGIN = 5, 20, 64, 4
_SPANS = [(at, at + n) for n in (48, 44, 40, 35) for at in sorted({0, (SIDE - n) // 2, SIDE - n})]
_WINDOWS = [(y, x) for y in _SPANS for x in _SPANS if (y[1] - y[0]) * (x[1] - x[0]) >= MIN_AREA * SIDE**2]


@dataclass(frozen=True)
class Leakage:
    """What ``find_leaks`` found."""

    threshold: float
    val: dict[str, Any]  # of the validation set, as of each pool: see below
    pools: list[dict[str, Any]]  # name, num_images, num_leaked (validation images), num_unreadable, unreadable (paths)
    pairs: list[tuple[str, str, str, float]]  # validation image, pool's name, image, score up to 1; the surest first
    leaked: set[str]  # validation images with a near duplicate in any pool

    def as_dict(self, root: str | os.PathLike[str] = os.curdir) -> dict[str, Any]:
        """For JSON: counts, and 20 pairs and unreadable files at most, with paths relative to ``root``."""

        def shown(path: str) -> str:
            return shown_path(os.path.relpath(path, root))

        sets = ({**one, "unreadable": [*map(shown, one["unreadable"][:_SHOWN])]} for one in (self.val, *self.pools))
        pairs = [dict(val=shown(v), pool=n, path=shown(p), score=s) for v, n, p, s in self.pairs[:_SHOWN]]
        found = dict(method=METHOD, threshold=self.threshold, sentence=self.sentence(), pairs=pairs)
        return {**found, "val": next(sets), "pools": [*sets]}

    def sentence(self) -> str:
        """How many validation images have a near duplicate, and where."""
        where = ", ".join("{num_leaked:,} in {name} ({num_images:,} images)".format(**pool) for pool in self.pools)
        lost = sum(pool["num_unreadable"] for pool in (self.val, *self.pools))
        end = f"; {lost:,} files could not be read" if lost else ""
        count = f"{len(self.leaked):,} of {self.val['num_images']:,} validation images"
        return f"{count} have a near duplicate: {where}{end}."


def find_leaks(
    val_paths: Paths,
    *pools: tuple[str, Paths],
    threshold: float = THRESHOLD,
    num_processes: int = 0,
    cache: str | os.PathLike[str] = "",
) -> Leakage:
    """Finds validation images that are near duplicates of images in pools.

    Args:
        val_paths, pools: The validation images; name and images of each set that a checkpoint has seen.
        threshold: Score from which a pair counts, in (0, 1].
        num_processes: That read images; 0: none but this one.
        cache: An ``.npz`` file that keeps thumbnails by path, size and time of change; a broken one is replaced.

    Raises:
        ValueError: The threshold is out of range, a set is empty, or two have one name.
    """
    sets = [(name, [os.fspath(path) for path in paths]) for name, paths in [("val", val_paths), *pools]]
    if not 0 < threshold <= 1 or len(dict(sets)) < len(sets) or not all(len(paths) for _, paths in sets):
        sizes = ", ".join(f"{name} {len(paths)}" for name, paths in sets)
        advice = "give a threshold in (0, 1], and each set at least one image and a name of its own"
        raise ValueError(f"threshold={threshold}, number of images: {sizes}; {advice}")
    looks = _look(sets, num_processes, cache)
    pairs = [pair for name, _ in pools for pair in _pairs(looks, name) if pair[3] >= threshold]
    leaked = {name: {pair[0] for pair in pairs if name in ("val", pair[1])} for name in looks}
    counts = []
    for name, paths in sets:
        lost = [path for path in paths if path not in looks[name]]
        both = dict(num_leaked=len(leaked[name]), num_unreadable=len(lost), unreadable=lost)
        counts.append(dict(name=name, num_images=len(paths), **both))
    return Leakage(threshold, counts[0], counts[1:], sorted(pairs, key=lambda pair: -pair[3]), leaked["val"])


def _look(sets: Any, num_processes: int, cache: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Name of a set → path → thumbnail of each file that can be read."""
    known: dict[str, Any] = {}
    with suppress(Exception), np.load(cache) as held:  # there is none yet, or it is broken
        known = dict(zip(held["keys"].tolist(), held["thumbnails"].reshape(-1, SIDE, SIDE), strict=True))

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, keys=[*known], thumbnails=[*known.values()])

    looks = {}
    for name, paths in sets:
        keys = {}
        for path in paths:
            with suppress(OSError):
                keys[path] = f"{os.path.abspath(path)} {os.path.getsize(path)} {os.path.getmtime(path)}"
        missing: Any = [path for path, key in keys.items() if key not in known]
        progress = Progress(f"looking at images of {name}:", len(missing))
        for number, batch in enumerate(load(missing, num_processes, batch_size=_BLOCK, collate_fn=_thumbnails)):
            known.update({keys[path]: thumbnail for path, thumbnail in batch.items()})
            progress(number * _BLOCK + 1)
        looks[name] = {path: known[key] for path, key in keys.items() if key in known}
        if cache and missing:
            write_atomically(cache, write)
    return looks


def _thumbnails(paths: list[str]) -> dict[str, Any]:
    """Path → grey [SIDE, SIDE] of the files that can be read; large JPEG files are decoded at a fraction."""
    found = {}
    for path in paths:
        with suppress(UnreadableImageError, MemoryError):
            image = read_image(path, reduction=lambda *s: max(k for k in (8, 4, 2, 1) if k < 2 or min(s) >= 96 * k))
            found[path] = cv2.cvtColor(resize(image, SIDE, SIDE), cv2.COLOR_RGB2GRAY)
    return found


def _windows(thumbnails: Any) -> torch.Tensor:
    """All windows of thumbnails [N, SIDE, SIDE], the whole first: [N, W, CELLS²], each of mean 0 and length 1."""
    pixels = torch.from_numpy(thumbnails).float()
    windows = [adaptive_avg_pool2d(pixels[:, y0:y1, x0:x1], CELLS) for (y0, y1), (x0, x1) in _WINDOWS]
    cells = torch.stack(windows, 1).flatten(2)
    cells -= cells.mean(-1, keepdim=True)
    return cells / cells.norm(dim=-1, keepdim=True).clamp_min(CELLS)  # the noise of a flat image is not blown up


def _correlations(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[A, W, D] and [B, W, D] → [A, B]: highest of the whole of one with any window of the other."""
    inside = (theirs.flatten(0, 1) @ ours[:, 0].T).unflatten(0, theirs.shape[:2]).amax(1).T
    return torch.maximum(inside, (ours.flatten(0, 1) @ theirs[:, 0].T).unflatten(0, ours.shape[:2]).amax(1))


def _pairs(looks: dict[str, dict[str, Any]], name: str) -> Iterator[tuple[str, str, str, float]]:
    """Each validation image with its best candidates of a pool, and their scores."""
    if not looks["val"] or not looks[name]:
        return
    (ours, val), (theirs, pool) = ((list(looks[key]), np.stack([*looks[key].values()])) for key in ("val", name))
    views = _windows(np.concatenate([val, val[..., ::-1]]))  # [2V, W, D], mirrored ones behind
    progress = Progress(f"comparing with {name}:", len(pool))
    best, which = torch.empty(len(val), 0), torch.empty(len(val), 0, dtype=torch.long)
    for start in range(0, len(pool), _BLOCK):
        block = _windows(pool[start : start + _BLOCK])  # [B, W, D]
        scores = torch.cat([_correlations(part, block) for part in views.split(_BLOCK)])  # in parts that caches hold
        scores = torch.cat([best, scores.view(2, len(val), -1).amax(0)], 1)
        numbers = torch.arange(start, start + len(block)).expand(len(val), -1)
        best, order = scores.topk(min(_CANDIDATES, scores.shape[1]))
        which = torch.cat([which, numbers], 1).gather(1, order)
        progress(start + len(block))
    for i, row in enumerate(which.tolist()):
        yield from ((ours[i], name, theirs[j], _score(val[i], pool[j])) for j in row)


def _score(val: Any, other: Any) -> float:
    """Correlation of two thumbnails, the one aligned with the other; 0 where none is a crop of the other."""
    views = np.stack([val, val[:, ::-1], other]).astype(np.float32)
    cells = _windows(views)
    scores = torch.stack([cells[:2, 0] @ cells[2].T, cells[:2] @ cells[2, 0]])  # [2, 2, W]
    around, mirrored, window = np.unravel_index(int(scores.argmax()), scores.shape)
    edges = [cv2.GaussianBlur(view, (0, 0), 0.7) - cv2.GaussianBlur(view, (0, 0), 4) for view in views]
    small, large = (edges[mirrored], edges[2])[:: -1 if around else 1]
    small = small[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].copy()  # beyond it a blur would have needed what the crop lacks
    scale, start = np.array([((b - a) / SIDE, a) for a, b in _WINDOWS[window][::-1]]).T
    warp = np.column_stack([np.diag(scale), start + (scale - 1) / 2 + scale * _MARGIN]).astype(np.float32)
    with suppress(cv2.error):  # where they cannot be aligned
        score, warp = cv2.findTransformECC(small, large, warp, cv2.MOTION_AFFINE, (3, 30, 1e-4), None, 1)
        overlap = cv2.warpAffine(np.ones_like(large), warp, small.shape, flags=cv2.WARP_INVERSE_MAP).mean()
        if overlap > 0.9 and 0.6 < np.linalg.det(warp[:, :2]) < 1.2:
            return min(float(score), 1.0)
    return 0.0
