"""Encoded masks equal pycocotools', whatever the hint."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from mst_transfer.evaluation.mask_encoding import (
    _changes_on_device,
    _changes_on_host,
    _compress,
    _sum_of_bytes,
    encode_masks,
)


def random_masks(seed):
    """Masks with something in a part of each, and the boxes of these parts."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    masks = np.zeros((rng.integers(1, 6), height, width), dtype=bool)
    boxes = []
    for mask in masks:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, n + 1, 2)) for n in (height, width))
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < rng.choice([0, 0.05, 0.5, 0.95, 1])
        boxes.append([left, top, right, bottom])
    return masks, np.array(boxes, dtype=np.float64)


def expected(masks):
    return [mask_util.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


@pytest.mark.parametrize("hint", ["none", "right", "too small", "nonsense"])
def test_equals_pycocotools(hint):
    for seed in range(200):
        masks, boxes = random_masks(seed)
        if hint == "too small":
            boxes = boxes * 0.5
        elif hint == "nonsense":
            boxes = np.full_like(boxes, [np.nan, 1e30, -np.inf, 7][seed % 4])
        given = None if hint == "none" else torch.from_numpy(boxes)
        assert list(encode_masks(torch.from_numpy(masks), given)) == expected(masks), seed


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (300, 400)])
@pytest.mark.parametrize("value", [True, False])
def test_full_and_empty_masks(shape, value):
    masks = np.full((2, *shape), value)
    assert list(encode_masks(torch.from_numpy(masks))) == expected(masks)


@pytest.mark.parametrize("largest", [20, 600, 20_000, 700_000, 20_000_000, 2**31 - 1, 2**32 - 1])
def test_letters_are_those_of_a_plain_loop(largest):
    rng = np.random.default_rng(largest)
    numbers = rng.integers(1, 9, 40)
    lengths = np.concatenate([rng.integers(0, largest + 1, numbers.sum() - 2), [0, largest]])
    text, ends = _compress(lengths, numbers)
    expected, first = [], 0
    for number in numbers.tolist():
        runs = lengths[first : first + number].tolist()
        first += number
        letters = ""
        for place, run in enumerate(runs):
            rest, more = run - runs[place - 2] if place > 2 else run, True
            while more:
                low, rest = rest & 31, rest >> 5
                more = rest != (-1 if low & 16 else 0)
                letters += chr(48 + low + 32 * more)
        expected.append(letters.encode())
    starts = [0, *ends.tolist()]
    assert [text[a:b] for a, b in zip(starts, starts[1:], strict=False)] == expected


def test_one_pixel_outside_its_box_is_found_anywhere():
    for place in np.random.default_rng(0).integers(0, 3 * 61 * 83, 40).tolist():
        masks = np.zeros((3, 61, 83), dtype=bool)
        masks[:, 20:30, 30:50] = True
        assert _sum_of_bytes(masks) == 600
        masks.flat[place] ^= True
        boxes = torch.tensor([[30.0, 20, 50, 30]] * 3)
        assert list(encode_masks(torch.from_numpy(masks), boxes)) == expected(masks)


def test_a_byte_that_is_not_one_makes_up_for_no_pixel():
    masks = np.zeros((1, 40, 50), dtype=bool)
    masks[0, 10:20, 10:20] = masks[0, 35, 45] = True
    masks.view(np.uint8)[0, 12, 12] = 2  # occupied, as any byte but 0
    boxes = torch.tensor([[10.0, 10, 20, 20]])
    assert list(encode_masks(torch.from_numpy(masks), boxes)) == expected(masks.view(np.uint8) != 0)


def test_a_device_is_searched_alike(monkeypatch):
    monkeypatch.setattr("mst_transfer.evaluation.mask_encoding._MAX_ELEMENTS", 500)  # several masks at once or one
    for seed in range(100):
        masks, _ = random_masks(seed)
        host, device = _changes_on_host(masks, None), _changes_on_device(torch.from_numpy(masks))
        for ours, theirs in zip(host, device, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_view_of_other_strides():
    masks, boxes = random_masks(3)
    view = torch.from_numpy(np.ascontiguousarray(masks.transpose(2, 1, 0))).permute(2, 1, 0)
    assert list(encode_masks(view, torch.from_numpy(boxes))) == expected(masks)


def test_behaves_as_a_sequence():
    masks, _ = random_masks(1)
    encoded = encode_masks(torch.from_numpy(masks))
    assert len(encoded) == len(masks)
    assert encoded[-1] == expected(masks)[-1] and encoded[:2] == expected(masks)[:2]
    empty = encode_masks(torch.zeros(0, 4, 5, dtype=torch.bool))
    assert len(empty) == 0 and list(empty) == []
