"""The checked loaders of detection and segmentation: mmcv's pixels on good files, a name and a reason on bad ones."""

import pickle
from pathlib import Path

import bad_images
import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS
from small_sets import mask_file

from mst_transfer.datasets.load_image import LoadImage, LoadSegMap
from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.runs.unreadable_images import TooManyUnreadableError, read_list


@pytest.mark.parametrize("case", bad_images.EVERY, ids=lambda case: case.name)
@pytest.mark.parametrize("flag", ["color", "color_ignore_orientation"])
def test_every_image_is_mmcvs_or_refused(tmp_path: Path, case: bad_images.Case, flag: str) -> None:
    path = str(case.make(tmp_path))
    loader = LoadImage(color_type=flag)
    if case.pixels is None:
        with pytest.raises(UnreadableImageError, match=case.reason):
            loader(dict(img_path=path))
        skipping = LoadImage(color_type=flag, skip_unreadable=True, list_file=str(tmp_path / "list.txt"))
        assert skipping(dict(img_path=path)) is None and skipping(dict(img_path=path)) is None
        assert list(read_list(tmp_path / "list.txt")) == [path]
        return
    image = loader.read(path)
    assert np.array_equal(image, mmcv.imread(path, flag=flag))
    expected = case.turned if flag == "color" and case.turned is not None else case.pixels
    assert np.abs(image[..., ::-1].astype(int) - expected).max() <= case.tolerance


@pytest.mark.parametrize("name", ["plain.jpg", "gray_16_bit.png", "rgba.png", "exif_6.jpg"])
@pytest.mark.parametrize(
    "options",
    [
        dict(to_float32=True),
        dict(color_type="unchanged"),
        dict(color_type="grayscale"),
        dict(imdecode_backend="pillow"),
        dict(backend_args=dict(backend="local")),
    ],
    ids=str,
)
def test_results_are_those_of_mmcv(tmp_path: Path, name: str, options: dict) -> None:
    case = next(case for case in bad_images.GOOD if case.name == name)
    path = str(case.make(tmp_path))
    theirs = LoadImageFromFile(**options)
    for ours in (LoadImage(**options), LoadImage.like(theirs), pickle.loads(pickle.dumps(LoadImage.like(theirs)))):
        mine, expected = ours(dict(img_path=path)), theirs(dict(img_path=path))
        assert mine.keys() == expected.keys() and mine["img"].dtype == expected["img"].dtype
        assert np.array_equal(mine["img"], expected["img"])
        assert mine["img_shape"] == expected["img_shape"] and mine["ori_shape"] == expected["ori_shape"]


def test_is_found_from_any_config() -> None:
    transform = TRANSFORMS.build(dict(type="mst_transfer.LoadImage", max_pixels=5, to_float32=True))
    assert isinstance(transform, LoadImage) and transform.max_pixels == 5 and transform.to_float32


def test_sides_and_sizes_are_checked(tmp_path: Path) -> None:
    line = str(next(case for case in bad_images.GOOD if case.name == "line.png").make(tmp_path))
    with pytest.raises(UnreadableImageError, match="it is 10000 × 1: one side is more than max_aspect_ratio=100 times"):
        LoadImage()(dict(img_path=line))
    assert LoadImage(max_aspect_ratio=10_000)(dict(img_path=line))["img_shape"] == (1, 10_000)
    turned = str(next(case for case in bad_images.GOOD if case.name == "exif_6.jpg").make(tmp_path))
    with pytest.raises(UnreadableImageError, match="it is 24 × 36, but its annotations say 36 × 24"):
        LoadImage()(dict(img_path=turned, width=36, height=24))
    assert LoadImage()(dict(img_path=turned, width=24, height=36))
    with pytest.raises(UnreadableImageError, match="more than max_pixels=100"):
        LoadImage(max_pixels=100)(dict(img_path=turned))


def test_a_vanished_disk_stops_training(tmp_path: Path) -> None:
    loader = LoadImage(skip_unreadable=True)
    good = str(bad_images.GOOD[0].make(tmp_path))
    for _ in range(2):
        assert loader(dict(img_path=good)) is not None  # counts anew
        for number in range(99):
            assert loader(dict(img_path=f"/nowhere/{number}.jpg")) is None
    with pytest.raises(TooManyUnreadableError, match=r"100 samples in a row .*/nowhere/0.jpg \(No such file"):
        loader(dict(img_path="/nowhere/99.jpg"))


def mask_loader(**options: object) -> LoadSegMap:
    from mmseg.datasets.transforms import LoadAnnotations

    return LoadSegMap(LoadAnnotations(**options))


def results(path: Path, size: tuple[int, int] = (6, 8)) -> dict:
    image = np.zeros((*size, 3), np.uint8)
    return dict(
        seg_map_path=str(path), img=image, ori_shape=size, seg_fields=[], reduce_zero_label=False, label_map=None
    )


IDS = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize("name", ["gray", "palette", "one bit", "16 bits"])
def test_good_masks_are_mmsegs(tmp_path: Path, name: str) -> None:
    """Of palettes the values, not the colours."""
    path = tmp_path / "mask.png"
    path.write_bytes(mask_file(name, IDS))
    checked = mask_loader()
    mine, theirs = checked(results(path)), checked.loader(results(path))
    assert mine["gt_seg_map"].dtype == np.uint8 and np.array_equal(mine["gt_seg_map"], theirs["gt_seg_map"])
    assert np.array_equal(mine["gt_seg_map"], IDS > 0 if name == "one bit" else IDS)
    assert mine["seg_fields"] == ["gt_seg_map"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut off", "truncated or broken"),
        ("colours", "3 channels: colours instead of class ids"),
        ("alpha", "2 channels"),
        ("16 bits beyond", "values from 0 to 12032; class ids go from 0 to 255"),
        ("float", "floating-point"),
        ("another size", "it is 9 × 6, its image 8 × 6"),
    ],
)
def test_bad_masks_are_named(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(mask_file(name, IDS))
    with pytest.raises(UnreadableImageError, match=f"mask.png cannot be read: .*{reason}"):
        mask_loader()(results(path))
    skipping = LoadSegMap(mask_loader().loader, skip_unreadable=True, list_file=str(tmp_path / "list.txt"))
    assert skipping(results(path)) is None and str(path) in read_list(tmp_path / "list.txt")


def test_masks_fit_the_file_in_tests_and_the_current_image_in_training(tmp_path: Path) -> None:
    """Pipelines of tests read the mask behind Resize; in training that would teach from another place."""
    (tmp_path / "mask.png").write_bytes(mask_file("gray", IDS))
    resized = results(tmp_path / "mask.png") | dict(img=np.zeros((9, 12, 3), np.uint8))
    assert np.array_equal(mask_loader()(dict(resized))["gt_seg_map"], IDS)
    with pytest.raises(UnreadableImageError, match="it is 8 × 6, its image 12 × 9"):
        mask_loader()(resized | dict(ori_shape=(9, 12)))
    training = LoadSegMap(mask_loader().loader, skip_unreadable=True, list_file=str(tmp_path / "list.txt"))
    assert training(dict(resized)) is None and "its image 12 × 9" in (tmp_path / "list.txt").read_text()
    assert training(results(tmp_path / "mask.png")) is not None


def test_palettes_and_opencv_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(mask_file("palette", IDS))
    with pytest.raises(UnreadableImageError, match="read with 3 channels; a mask with a palette needs"):
        mask_loader(imdecode_backend="cv2")(results(tmp_path / "mask.png"))
