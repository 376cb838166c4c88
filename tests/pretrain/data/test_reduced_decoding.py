"""Crops of photographs decoded at a fraction of their size, against crops of the whole photograph."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from pretrain.data.augment import CropPlan, MultiCropOptions, draw_crops
from pretrain.data.dataset import MultiCropDataset
from mst_transfer.files.image_folder import find_images, read_image
from mst_transfer.files.image_crops import resized_crop
from pretrain.data.reduced_decoding import PlannedReduction, reduce_box, reduction_for


def plan(side: int, size: int = 96, top: int = 0, left: int = 0) -> CropPlan:
    return CropPlan(top, left, side, side, size, False, (), False, 0.0, 256)


@pytest.mark.parametrize(("side", "factor"), [(96, 1), (287, 1), (288, 2), (575, 2), (576, 4), (1151, 4), (1152, 8)])
def test_every_crop_still_shrinks_by_half_again(side: int, factor: int) -> None:
    assert reduction_for([plan(side), plan(5000)]) == factor


def test_boxes_stay_inside_the_reduced_image() -> None:
    for index in range(200):
        height, width = np.random.default_rng(index).integers(600, 3000, 2).tolist()
        for drawn in draw_crops(MultiCropOptions(), height, width, seed=0, epoch=0, index=index):
            for factor in (2, 4, 8):
                reduced = reduce_box(drawn, factor)
                assert reduced.top >= 0 and reduced.top + reduced.height <= height // factor
                assert reduced.left >= 0 and reduced.left + reduced.width <= width // factor
                assert 0 <= drawn.top - factor * reduced.top < factor
                assert abs(drawn.height - factor * reduced.height) < factor
                assert reduced[4:] == drawn[4:]


def differences(photographs: list[np.ndarray], folder: Path, options: MultiCropOptions) -> dict[int, np.ndarray]:
    """For each factor, of all resized crops: mean, 99 % and largest difference to the same box of the whole."""
    found: dict[int, list[list[float]]] = {}
    for index, photograph in enumerate(photographs):
        path = folder / f"{index}.jpg"
        Image.fromarray(photograph).save(path, quality=90)
        whole = read_image(path)
        planned = PlannedReduction(partial(draw_crops, options, seed=0, epoch=0, index=index))
        image = read_image(path, reduction=planned)
        factor = round(whole.shape[0] / image.shape[0])
        for p in planned.plans_for(image) if factor > 1 else ():
            ours = resized_crop(image, p.top, p.left, p.height, p.width, p.size).astype(int)
            top, left, height, width = (factor * side for side in (p.top, p.left, p.height, p.width))
            error = np.abs(ours - resized_crop(whole, top, left, height, width, p.size))
            found.setdefault(factor, []).append([error.mean(), np.quantile(error, 0.99), error.max()])
    return {factor: np.array(rows) for factor, rows in found.items()}


def test_crops_of_large_photographs_are_those_of_the_whole(tmp_path: Path) -> None:
    photographs = [
        cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        for image, height, width in [
            (data.astronaut(), 1501, 1999), (data.coffee(), 1500, 2000), (data.chelsea(), 3000, 4001),
        ]
    ]  # fmt: skip
    found = differences(photographs, tmp_path, MultiCropOptions())
    assert set(found) >= {2, 4}
    for errors in found.values():
        assert errors[:, 0].mean() <= 0.3 and errors[:, 0].max() <= 0.6


def test_dataset_reduces_large_jpegs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = cv2.resize(data.coffee(), (2000, 1500), interpolation=cv2.INTER_CUBIC)
    for name, image in (("large.jpg", large), ("large.png", large), ("small.jpg", data.coffee())):
        Image.fromarray(image).save(tmp_path / name)
    images: list[np.ndarray] = []

    def read_and_keep(*args: Any) -> np.ndarray:
        images.append(read_image(*args))
        return images[-1]

    monkeypatch.setattr("pretrain.data.dataset.read_image", read_and_keep)
    reduced = MultiCropDataset(tmp_path, num_local_crops=2, reduced_decoding=True)
    whole = MultiCropDataset(tmp_path, num_local_crops=2)
    turned = MultiCropDataset(tmp_path, num_local_crops=2, exif_orientation=True, reduced_decoding=True)
    for index, side in enumerate((750, 1500, 400)):
        samples = [dataset[(0, index)] for dataset in (reduced, whole, turned)]
        assert [len(image) for image in images[-3:]] == [side, *[1500 if index < 2 else 400] * 2]
        error = (samples[0]["global_crops"].int() - samples[1]["global_crops"].int()).abs().float()
        assert error.mean() <= (4 if index == 0 else 0)
        assert (samples[1]["local_crops"] == samples[2]["local_crops"]).all()
