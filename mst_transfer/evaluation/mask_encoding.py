"""Binary masks to COCO's compressed run lengths, an image's at a time.

The result equals ``pycocotools.mask.encode`` byte for byte. What makes it quick: only the part of a mask that is
occupied is read column by column, and the changes, run lengths and letters of all masks are found in one go. Boxes
are taken as a hint of where that part is; counts of pixels tell whether the hint was right. Masks on a device are
searched there, so that only the places of changes travel.

Positions count pixels column by column, as COCO does: row ``y`` of column ``x`` is ``x * H + y``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

_MAX_ELEMENTS = 2**26  # pixels that are searched at once on a device
_MAX_LETTERS = 7  # 5 bits each: enough for differences of 32-bit counts
_MARGIN = 1  # pixels by which a mask may stand out from its box


@dataclass(frozen=True)
class EncodedMasks(Sequence):
    """The run lengths of an image's masks, kept in one text: quick to gather from other processes.

    As a sequence: dicts ``{"size": [H, W], "counts": bytes}``, made when they are asked for.
    """

    size: tuple[int, int]  # H and W in pixels
    text: bytes  # the counts of all masks, one after the other
    ends: np.ndarray  # [N], where each one's end

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        ends = self.ends.tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield {"size": list(self.size), "counts": self.text[start:end]}

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


class _Changes(NamedTuple):
    """Where N masks differ from the pixel before, 0 before the first."""

    positions: np.ndarray  # [K], those of the first mask in ascending order, then those of the second, ...
    counts: np.ndarray  # [N], how many belong to each mask; their sum is K


def encode_masks(masks: torch.Tensor, boxes: torch.Tensor | None = None) -> EncodedMasks:
    """Encodes boolean masks.

    Args:
        masks: ``[N, H, W]``, bool, on any device.
        boxes: ``[N, 4]``, x1, y1, x2, y2 in pixels, where the masks probably lie; they change the speed only.
    """
    num_masks, height, width = masks.shape
    if not num_masks:
        return EncodedMasks((height, width), b"", np.zeros(0, dtype=np.int64))
    if masks.device.type == "cpu":
        changes = _changes_on_host(masks.detach().numpy(), None if boxes is None else boxes.detach().cpu().numpy())
    else:
        changes = _changes_on_device(masks.detach())
    return EncodedMasks((height, width), *_compress(*_run_lengths(changes, height * width)))


def _changes_on_host(masks: np.ndarray, boxes: np.ndarray | None) -> _Changes:
    if boxes is not None:
        bounds = _bounds_of_boxes(boxes, *masks.shape[1:])
        changes, num_pixels = _changes_within(masks, bounds)
        if num_pixels == _sum_of_bytes(masks):
            return changes
    return _changes_within(masks, _occupied(masks))[0]


def _sum_of_bytes(masks: np.ndarray) -> int:
    """Number of occupied pixels, read at the speed of the memory; more if a byte is neither 0 nor 1.

    ``numpy.count_nonzero`` takes a third longer.
    """
    return int(cv2.norm(masks.view(np.uint8).reshape(-1, masks.shape[2]), cv2.NORM_L1))


def _bounds_of_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes ``[N, 4]`` with a margin, cut to the image, as ``[4, N]``."""
    limits = np.array([width, height, width, height])
    grown = np.concatenate([np.floor(boxes[:, :2]) - _MARGIN, np.ceil(boxes[:, 2:]) + _MARGIN], axis=1)
    left, top, right, bottom = np.fmin(np.fmax(grown, 0), limits).astype(np.int64).T  # NaN becomes 0
    return np.stack([left, top, np.maximum(left, right), np.maximum(top, bottom)])


def _occupied(masks: np.ndarray) -> np.ndarray:
    """The smallest bounds ``[4, N]`` of masks ``[N, H, W]``; zeros for an empty one."""
    bounds = np.zeros((4, len(masks)), dtype=np.int64)
    rows_used = np.asarray(masks.any(axis=2))  # [N, H]
    for index, mask in enumerate(masks):
        rows = np.flatnonzero(rows_used[index])
        if rows.size:
            top, bottom = rows[0], rows[-1] + 1
            columns = np.flatnonzero(np.bitwise_or.reduce(mask[top:bottom].view(np.uint8), axis=0))
            bounds[:, index] = columns[0], top, columns[-1] + 1, bottom
    return bounds


def _changes_within(masks: np.ndarray, bounds: np.ndarray) -> tuple[_Changes, int]:
    """Changes of masks that are empty outside bounds.

    The parts are laid out column by column, one after the other, with a zero before each. A part that ends above
    the last row gets an empty row below, which ends its runs; one that reaches the last row takes whole columns,
    as its runs may go on at the head of the next column.

    Args:
        masks: ``[N, H, W]``, bool.
        bounds: ``[4, N]``, left, top, right, bottom of where each mask may be occupied.

    Returns:
        The changes, and the number of occupied pixels within bounds.
    """
    height, width = masks.shape[1:]
    left, top, right, bottom = bounds
    to_the_foot = bottom == height
    top = np.where(to_the_foot, 0, top)
    tall = bottom - top + ~to_the_foot
    sizes = (right - left) * tall
    zeros = np.cumsum(sizes + 1) - sizes - 1  # [N], place of the zero before each part
    line = np.zeros(int(zeros[-1] + sizes[-1]) + 2, dtype=bool)
    corners = np.stack([zeros + 1, sizes, tall, left, top, right, bottom], axis=1).tolist()
    bytes_of_line = line.view(np.uint8)
    for mask, (start, size, rows, x1, y1, x2, y2) in zip(masks.view(np.uint8), corners, strict=True):
        if size and y2 > y1:
            part = bytes_of_line[start : start + size].reshape(x2 - x1, rows)[:, : y2 - y1]
            cv2.transpose(mask[y1:y2, x1:x2], part)
    found = np.flatnonzero(line[1:] != line[:-1])
    counts = np.diff(np.searchsorted(found, zeros), append=len(found))
    offsets, talls = found - np.repeat(zeros, counts), np.repeat(tall, counts)
    columns = (offsets / talls).astype(np.int64)  # exact: both are far below 2**53
    positions = np.repeat(left * height + top, counts) + columns * (height - talls) + offsets
    beyond = np.flatnonzero(positions == height * width)  # the end of an image is no change
    if beyond.size:
        owner = np.searchsorted(np.cumsum(counts), beyond, side="right")
        counts = counts - np.bincount(owner, minlength=len(counts))
        positions = np.delete(positions, beyond)
    return _Changes(positions, counts), int(np.count_nonzero(line))


def _changes_on_device(masks: torch.Tensor) -> _Changes:
    """Changes of masks ``[N, H, W]`` that lie on a device."""
    positions, counts = [], []
    for chunk in masks.split(max(1, _MAX_ELEMENTS // masks[0].numel())):
        line = torch.nn.functional.pad(chunk.transpose(1, 2).reshape(len(chunk), -1), (1, 0))  # [n, 1 + H * W]
        owner, place = (line[:, 1:] != line[:, :-1]).nonzero().cpu().numpy().T
        positions.append(place)
        counts.append(np.bincount(owner, minlength=len(chunk)))
    return _Changes(np.concatenate(positions), np.concatenate(counts))


def _run_lengths(changes: _Changes, num_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the runs of zeros and ones in turn, zeros first, of all masks, and how many each mask has."""
    numbers = changes.counts + 1
    last = np.cumsum(numbers) - 1
    ends = np.full(len(changes.positions) + len(numbers), num_pixels)
    inner = np.ones(len(ends), dtype=bool)
    inner[last] = False
    ends[inner] = changes.positions
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    first = last - changes.counts
    lengths[first] = ends[first]
    return lengths, numbers


def _compress(lengths: np.ndarray, numbers: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Run lengths as text in COCO's format.

    From a mask's fourth run on, the difference to the run before the previous is written. Each number becomes
    letters of five bits, lowest first, with a sixth bit that says whether more follow, plus 48; the fifth bit of
    the last letter is the sign.

    Args:
        lengths: ``[R]``, runs of all masks.
        numbers: ``[N]``, how many of them belong to each mask.

    Returns:
        The text of all masks, and where each one's ends.
    """
    starts = np.cumsum(numbers) - numbers
    if lengths.max() < 2**31:
        lengths = lengths.astype(np.int32)
    differences = lengths.copy()
    differences[2:] -= lengths[:-2]
    plain = (starts[:, None] + np.arange(3)).ravel()[(np.arange(3) < numbers[:, None]).ravel()]
    differences[plain] = lengths[plain]

    largest = np.where(differences < 0, ~differences, differences)
    num_letters = np.ones(len(lengths), dtype=np.int64)
    for place in range(1, _MAX_LETTERS):
        more = largest >> (5 * place - 1) != 0  # n letters hold values below 2**(5n - 1)
        if not more.any():
            break
        num_letters += more
    ends = np.cumsum(num_letters)
    text = np.empty(ends[-1], dtype=np.uint8)
    rest, places, left = differences, ends - num_letters, num_letters
    while rest.size:
        text[places] = (rest & 31) + (48 + 32 * (left > 1))
        unfinished = np.flatnonzero(left > 1)
        rest, places, left = rest[unfinished] >> 5, places[unfinished] + 1, left[unfinished] - 1
    return text.tobytes(), ends[np.cumsum(numbers) - 1]
