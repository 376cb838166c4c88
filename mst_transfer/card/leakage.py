"""Finds validation images that are near duplicates of images that a checkpoint has seen: ``docs/card_leakage.md``.

A grey thumbnail [SIDE, SIDE] stands for each file. The whole of one is correlated with windows of the other, both ways
and mirrored, so that a crop meets its origin; the best candidates are aligned by an affine map (OpenCV's ECC: Evangelidis
and Psarakis, PAMI 2008), and what a band-pass leaves of both, edges without light and noise, is correlated.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mst_transfer.files.atomic_files import write_atomically
from mst_transfer.files.image_crops import Image, resize
from mst_transfer.files.image_files import UnreadableImageError, shown_path
from mst_transfer.files.image_folder import read_image
from mst_transfer.probes.labelled_images import load
from mst_transfer.runs.progress import Progress

SIDE, CELLS, MIN_AREA, THRESHOLD = 48, 10, 0.66, 0.85  # a window holds MIN_AREA of its image, in CELLS × CELLS means
_NUM_CANDIDATES, _NUM_SHOWN, _BLOCK, _BLURS = 5, 20, 64, (1.0, 6.0)
_SPANS = [(at, at + n) for n in (48, 44, 40, 35) for at in sorted({0, (SIDE - n) // 2, SIDE - n})]
_WINDOWS = [
    (y, x) for y in _SPANS for x in _SPANS if (y[1] - y[0]) * (x[1] - x[0]) >= MIN_AREA * SIDE**2
]  # whole first
METHOD = (
    f"correlation of grey thumbnails ({SIDE} × {SIDE}, band-pass, affine alignment, mirrored too) with the {_NUM_CANDIDATES} "
    f"images of a pool that are most alike, whole or cropped to at least {MIN_AREA:.0%} of the area"
)


class Pool(NamedTuple):
    """A set of images, how many validation images have a near duplicate in it, and files that cannot be read."""

    name: str
    num_images: int
    num_leaked: int
    unreadable: list[str]


@dataclass(frozen=True)
class Leakage:
    """What :func:`find_leaks` found.

    Attributes:
        val: The validation set itself.
        pairs: Validation image, name of the pool, its image, score (correlation, at most 1); the surest first.
        leaked: Validation images with a near duplicate in any pool.
    """

    method: str
    threshold: float
    val: Pool
    pools: list[Pool]
    pairs: list[tuple[str, str, str, float]]
    leaked: set[str]

    def as_dict(self, root: str | os.PathLike[str] = os.curdir) -> dict[str, Any]:
        """Counts, and at most 20 pairs and unreadable files, for JSON; paths are relative to ``root``."""

        def shown(path: str) -> str:
            return shown_path(os.path.relpath(path, root))

        def counts(pool: Pool) -> dict[str, Any]:
            names = [shown(path) for path in pool.unreadable[:_NUM_SHOWN]]
            return {**pool._asdict(), "num_unreadable": len(pool.unreadable), "unreadable": names}

        pairs = [dict(val=shown(v), pool=n, path=shown(p), score=round(s, 3)) for v, n, p, s in self.pairs[:_NUM_SHOWN]]
        found = dict(method=self.method, threshold=self.threshold, sentence=self.sentence(), val=counts(self.val))
        return {**found, "pools": [counts(pool) for pool in self.pools], "pairs": pairs}

    def sentence(self) -> str:
        """How many validation images have a near duplicate, and where."""
        where = ", ".join(f"{pool.num_leaked:,} in {pool.name} ({pool.num_images:,} images)" for pool in self.pools)
        lost = sum(len(pool.unreadable) for pool in (self.val, *self.pools))
        end = f"; {lost:,} files could not be read" if lost else ""
        return f"{len(self.leaked):,} of {self.val.num_images:,} validation images have a near duplicate: {where}{end}."


def find_leaks(
    val_paths: Sequence[str],
    *pools: tuple[str, Sequence[str]],
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
    sets = [("val", val_paths), *pools]
    if not 0 < threshold <= 1 or len(dict(sets)) < len(sets) or not all(len(paths) for _, paths in sets):
        sizes = ", ".join(f"{name} {len(paths)}" for name, paths in sets)
        raise ValueError(
            f"threshold={threshold}, images: {sizes}; give a threshold in (0, 1], and to each set a name and images"
        )
    looks = _look(sets, num_processes, cache)
    pairs = sorted(
        (pair for name, _ in pools for pair in _pairs(looks, name) if pair[3] >= threshold), key=lambda pair: -pair[3]
    )
    found = {name: {val for val, pool, *_ in pairs if name in ("val", pool)} for name in looks}
    val, *others = [
        Pool(name, len(paths), len(found[name]), [path for path in paths if path not in looks[name]])
        for name, paths in sets
    ]
    return Leakage(METHOD, threshold, val, others, pairs, found["val"])


def _look(
    sets: list[tuple[str, Sequence[str]]], num_processes: int, cache: str | os.PathLike[str]
) -> dict[str, dict[str, Image]]:
    """Name of a set → path → thumbnail of each file that can be read."""
    known: dict[str, Image] = {}
    try:
        with np.load(cache) as held:
            known = dict(zip(held["keys"].tolist(), held["thumbnails"].reshape(-1, SIDE, SIDE), strict=True))
    except Exception:  # none yet, or a broken one
        pass
    looks = {}
    for name, paths in sets:
        keys = {path: _key(path) for path in paths}
        missing: Any = [path for path in keys if keys[path] not in known]
        progress = Progress(f"looking at images of {name}:", len(missing))
        for number, batch in enumerate(load(missing, num_processes, batch_size=_BLOCK, collate_fn=_thumbnails)):
            known.update({keys[path]: thumbnail for path, thumbnail in batch.items()})
            progress(number * _BLOCK + 1)
        looks[name] = {path: known[key] for path, key in keys.items() if key in known}

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, keys=list(known), thumbnails=np.stack(list(known.values())))

    if cache:
        write_atomically(cache, write)
    return looks


def _key(path: str) -> str:
    status = os.stat(path) if os.path.exists(path) else None
    return f"{os.path.abspath(path)} {status and (status.st_size, status.st_mtime_ns)}"


def _thumbnails(paths: list[str]) -> dict[str, Image]:
    """Path → grey [SIDE, SIDE] of the files that can be read."""
    found = {}
    for path in paths:
        with suppress(UnreadableImageError, MemoryError):
            image = read_image(
                path, reduction=lambda *sides: max(k for k in (1, 2, 4, 8) if k * 2 * SIDE <= max(min(sides), 2 * SIDE))
            )
            found[path] = cv2.cvtColor(resize(image, SIDE, SIDE), cv2.COLOR_RGB2GRAY)
    return found


def _windows(thumbnails: Image) -> Tensor:
    """All windows of thumbnails [N, SIDE, SIDE], the whole first: [N, W, CELLS²], each of mean 0 and length 1."""
    pixels = torch.from_numpy(thumbnails).float()
    cells = [adaptive_avg_pool2d(pixels[:, y0:y1, x0:x1], CELLS) for (y0, y1), (x0, x1) in _WINDOWS]
    windows = torch.stack(cells, 1).flatten(2)
    windows -= windows.mean(-1, keepdim=True)
    return windows / windows.norm(dim=-1, keepdim=True).clamp_min(CELLS)  # the noise of a flat image is not blown up


def _pairs(looks: dict[str, dict[str, Image]], name: str) -> Iterator[tuple[str, str, str, float]]:
    """Each validation image with its best candidates of a pool, and their scores."""
    (ours, val), (theirs, pool) = ((list(looks[key]), np.stack(list(looks[key].values()))) for key in ("val", name))
    views = _windows(np.concatenate([val, val[..., ::-1]]))  # [2V, W, D], mirrored ones behind
    best, which = torch.empty(len(val), 0), torch.empty(len(val), 0, dtype=torch.long)
    progress = Progress(f"comparing with {name}:", len(pool))
    for start in range(0, len(pool), _BLOCK):
        block = _windows(pool[start : start + _BLOCK])  # [B, W, D]
        inside = (block.flatten(0, 1) @ views[:, 0].T).unflatten(0, block.shape[:2]).amax(1).T
        around = (views.flatten(0, 1) @ block[:, 0].T).unflatten(0, views.shape[:2]).amax(1)
        scores = torch.maximum(inside, around).view(2, len(val), -1).amax(0)  # [V, B]
        number = torch.arange(start, start + len(block)).expand(len(val), -1)
        scores, number = torch.cat([best, scores], 1), torch.cat([which, number], 1)
        best, order = scores.topk(min(_NUM_CANDIDATES, scores.shape[1]))
        which = number.gather(1, order)
        progress(start + len(block))
    for i, row in enumerate(which.tolist()):
        yield from ((ours[i], name, theirs[j], _score(val[i], pool[j])) for j in row)


def _edges(thumbnail: Image) -> Any:
    fine, coarse = (cv2.GaussianBlur(thumbnail.astype(np.float32), (0, 0), sigma) for sigma in _BLURS)
    return fine - coarse


def _score(val: Image, other: Image) -> float:
    """Correlation of two thumbnails, one aligned with the other; 0 where they do not overlap as a crop does."""
    views = np.stack([val, val[:, ::-1], other])
    windows = _windows(views)
    scores = torch.stack([windows[:2, 0] @ windows[2].T, windows[:2] @ windows[2, 0]])  # [2, 2, W]
    around, mirrored, window = np.unravel_index(int(scores.argmax()), scores.shape)
    (y0, y1), (x0, x1) = _WINDOWS[window]
    a, b = (x1 - x0) / SIDE, (y1 - y0) / SIDE
    warp = np.array([[a, 0, x0 + (a - 1) / 2], [0, b, y0 + (b - 1) / 2]], np.float32)
    small, large = (_edges(view) for view in (views[mirrored], other)[:: -1 if around else 1])
    try:
        score, warp = cv2.findTransformECC(small, large, warp, cv2.MOTION_AFFINE, (3, 30, 1e-4), None, 1)
    except cv2.error:  # no way to align them
        return 0.0
    overlap = cv2.warpAffine(np.ones_like(large), warp, (SIDE, SIDE), flags=cv2.WARP_INVERSE_MAP).mean()
    area = abs(np.linalg.det(warp[:, :2]))
    return float(score) if overlap >= 0.85 and 0.6 <= area <= 1.2 else 0.0
