"""Records of a file in COCO's format that cannot be right are found, with id, value and what to do."""

import pytest
from small_sets import annotation, coco_config, write_coco

from mst_transfer.preflight.dataset_checks import check_datasets, inspect_datasets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(bbox=[1, 1, float("nan"), 4]), "id 7. whose bbox is not 4 finite numbers"),
        (dict(bbox=[1, 1, 4]), "id 7. whose bbox is not 4 finite numbers"),
        (dict(bbox=[1, 1, "4", 4]), "id 7. whose bbox is not 4 finite numbers"),
        (dict(bbox=None), "id 7. whose bbox is not 4 finite numbers"),
        (dict(category_id=9), r"id 7. have a category_id that no category has: \[9\]; categories have \[1, 2\]"),
        (dict(id=1), r"annotation ids that occur more than once: \[1\]"),
        (dict(area=None), "id 7. without an area"),
        (dict(id="7"), r"annotations\[1\].id is '7'; it must be a whole number"),
        (dict(image_id=1.0), r"annotations\[1\].image_id is 1.0; it must be a whole number"),
        (dict(id=10**30), "beyond 64 bits"),
    ],
)
def test_bad_annotations_are_refused(tmp_path, changes, message):
    write_coco(tmp_path, annotations=[annotation(1), annotation(7, **{"image_id": 1} | changes)])
    with pytest.raises(ValueError, match=message):
        check_datasets(coco_config(tmp_path))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (dict(id=0, file_name="1.png", width=8, height=8), r"image ids that occur more than once: \[0\]"),
        (dict(id=5, width=8, height=8), "1 of 2 images .id 5. without a file_name"),
        (dict(id=5, file_name="1.png", height=8), "id 5. without a width and height"),
        (dict(id=5, file_name="1.png", height=0, width=8), r"id 5. without a width and height .*\[8.0, 0.0\]"),
        ("1.png", "images must be a list of objects"),
    ],
)
def test_bad_image_records_are_refused(tmp_path, image, message):
    images = [dict(id=0, file_name="0.png", width=8, height=8), image]
    write_coco(tmp_path, images=images, annotations=[annotation(1)])
    with pytest.raises(ValueError, match=message):
        check_datasets(coco_config(tmp_path))


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([dict(id=1, name="cat"), dict(id=2, name="cat")], r"categories with the same name: \[cat\]"),
        ([dict(id=1, name="cat"), dict(id=1, name="dog")], r"categories with the same id: \[1\]"),
        ([dict(id=1, name="cat"), dict(id=2)], r"categories without a name: ids \[2\]"),
        ([dict(id=1, name="cat"), dict(id="2", name="dog")], "category ids must be whole numbers"),
    ],
)
def test_bad_categories_are_refused(tmp_path, categories, message):
    write_coco(tmp_path, categories=categories)
    with pytest.raises(ValueError, match=message):
        check_datasets(coco_config(tmp_path, classes=("cat",)))


def test_ids_may_have_gaps_and_any_order(tmp_path):
    categories = [dict(id=90, name="cat"), dict(id=3, name="dog")]
    annotations = [annotation(100, category_id=3), annotation(5, category_id=90), annotation(6, category_id=90)]
    write_coco(tmp_path, categories=categories, annotations=annotations)
    (summary,) = check_datasets(coco_config(tmp_path))
    assert summary.counts == [2, 1]


def many(box, number=25):
    return [annotation(index, bbox=box) for index in range(number)]


def test_corners_taken_for_sizes_are_refused(tmp_path):
    write_coco(tmp_path, annotations=many([2, 3, 7, 8]))
    with pytest.raises(ValueError, match=r"looks like two corners.*in 25 of 25 .*e.g. \[2.0, 3.0, 7.0, 8.0\]"):
        check_datasets(coco_config(tmp_path))


def test_fractions_taken_for_pixels_are_refused(tmp_path):
    write_coco(tmp_path, annotations=many([0.1, 0.2, 0.5, 1.0]))
    with pytest.raises(ValueError, match="looks like fractions of the image: no side is longer than 1"):
        check_datasets(coco_config(tmp_path))


def notes_of(root):
    findings, (summary,) = inspect_datasets(coco_config(root))
    assert not any(finding.stops for finding in findings), findings
    return summary.notes


def test_boxes_partly_outside_are_counted(tmp_path):
    write_coco(tmp_path, annotations=[*many([0, 0, 4, 4]), annotation(99, bbox=[6, 6, 8, 8])])
    assert notes_of(tmp_path) == ["1 boxes reach more than 1 px beyond their image; mmdet clips them"]


def test_a_file_named_twice_is_noted(tmp_path):
    images = [dict(id=index, file_name="0.png", width=8, height=8) for index in range(2)]
    write_coco(tmp_path, images=images)
    assert "1 image files are named under several ids, e.g. 0.png" in notes_of(tmp_path)
