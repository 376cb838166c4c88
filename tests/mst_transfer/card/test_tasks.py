"""Data of a card: label maps as the libraries read them, objects drawn as maps, sequences."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mst_transfer.card.task_data import draw_objects, open_task
from mst_transfer.card.tasks import (
    CATALOGUE,
    DETECTION,
    SEGMENTATION,
    Task,
    heads,
    load_task_config,
    own_masks,
    sequences,
)
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample data, small; their folder is the data root."""
    root = tmp_path_factory.mktemp("data")
    make_sample_data(root / "sample", SampleDataRequest(num_train=5, num_val=3, num_photos=1, size=64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MST_DATA_ROOT", str(root))
        yield root


def test_label_maps_are_those_of_mmseg(sample):
    (task, _) = CATALOGUE["sample"]
    data = open_task(task)
    from mmseg.datasets.transforms import LoadAnnotations

    assert (len(data.train), len(data.val)) == (5, 3)
    for image in (*data.train, *data.val):
        theirs = dict(seg_map_path=image.files[0], seg_fields=[], reduce_zero_label=False, label_map=None)
        assert np.array_equal(image.label_map(), LoadAnnotations()(theirs)["gt_seg_map"])


def test_own_masks_have_classes_of_their_own(tmp_path):
    """``--seg``: counted or named in classes.txt; Cityscapes as downloaded keeps its own."""
    for split in ("train", "val"):
        for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
            path = tmp_path / folder / split / "a" / f"a_{ending}.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.array([[0, 1], [2, 255]], np.uint8).repeat(8, 0).repeat(8, 1))

    def classes():
        recipes = heads("seg_configs/mst_setr_pup_cityscapes.py")
        return open_task(Task("segments", SEGMENTATION, recipes, options=own_masks(str(tmp_path)))).classes

    assert classes() == ("class 0", "class 1", "class 2")
    (tmp_path / "gtFine/train/a/a_gtFine_labelIds.png").touch()
    assert len(classes()) == 19
    (tmp_path / "classes.txt").write_text("nut\nbolt\nscrew\nnail\n")
    assert classes() == ("nut", "bolt", "screw", "nail")


@pytest.mark.parametrize("reduce, mapping", [(True, None), (False, {0: 3, 1: 255, 2: 255, 3: 0}), (True, {1: 0})])
def test_zero_labels_and_label_maps_are_applied_as_mmseg_does(reduce, mapping, tmp_path):
    import cv2
    from mmseg.datasets.transforms import LoadAnnotations

    from mst_transfer.card.task_data import _segmented

    path, values = str(tmp_path / "map.png"), np.arange(6, dtype=np.uint8).repeat(2).reshape(3, 4)
    cv2.imwrite(path, values)
    info = dict(img_path="", seg_map_path=path, reduce_zero_label=reduce, label_map=mapping)
    theirs = LoadAnnotations(reduce_zero_label=reduce)(dict(info, seg_fields=[]))["gt_seg_map"]
    assert np.array_equal(_segmented(info).label_map(), np.where(theirs == -1, 255, theirs))


def test_objects_become_a_map_with_small_ones_on_top_and_crowds_ignored():
    square = lambda x, y, side: [[x, y, x + side, y, x + side, y + side, x, y + side]]  # noqa: E731
    from pycocotools import mask as coco_mask

    crowd = coco_mask.encode(np.asfortranarray(np.eye(8, dtype=np.uint8)[:1].repeat(8, axis=0).T))
    instances = [
        dict(mask=square(2, 2, 2), bbox=[2, 2, 4, 4], bbox_label=1, ignore_flag=0),
        dict(mask=square(1, 1, 6), bbox=[1, 1, 7, 7], bbox_label=0, ignore_flag=0),
        dict(mask={**crowd, "counts": crowd["counts"].decode()}, bbox=[0, 0, 8, 1], bbox_label=0, ignore_flag=1),
    ]
    expected = np.zeros((8, 8), dtype=np.uint8)
    expected[0] = 255
    expected[1:7, 1:7] = 4
    expected[2:4, 2:4] = 7
    found = draw_objects(dict(height=8, width=8, instances=instances), number=[4, 7])
    assert np.array_equal(found, expected)
    boxes = [{key: value for key, value in one.items() if key != "mask"} for one in instances]
    assert np.array_equal(draw_objects(dict(height=8, width=8, instances=boxes), number=[4, 7]), expected)


def test_objects_are_what_the_detector_learns_in_the_order_of_the_validation_file(sample, tmp_path):
    names = ("flag", "cow")
    classes = f"dict(dataset=dict(metainfo=dict(classes={names}, palette=[(0, 0, 0)] * 2)))"
    config = tmp_path / "two.py"
    config.write_text(
        '_base_ = "mst_transfer::det_configs/mst_maskrcnn_sample.py"\n'
        f"train_dataloader = {classes}\nval_dataloader = {classes}\ntest_dataloader = val_dataloader\n"
        "model = dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2)))\n"
    )
    data = open_task(Task("two", DETECTION, heads(str(config))))
    assert data.objects == names and data.classes == ("background", *names)
    path = Path(data.annotations[1])
    before = path.read_text()
    content = json.loads(before)
    highest = max(one["id"] for one in content["categories"])
    for one in content["categories"]:  # ids the other way round, names as they were
        one["id"] = highest + 1 - one["id"]
    for one in content["annotations"]:
        one["category_id"] = highest + 1 - one["category_id"]
    path.write_text(json.dumps(content))
    try:
        assert open_task(Task("two", DETECTION, heads(str(config)))).objects == names[::-1]
    finally:
        path.write_text(before)


def test_many_categories_become_their_supercategories(shared_data, monkeypatch):
    monkeypatch.setenv("MST_DATA_ROOT", str(shared_data))
    data = open_task(CATALOGUE["coco_mini"][0])
    assert data.classes[:3] == ("background", "person", "vehicle") and len(data.classes) == 13
    assert len(data.objects) == 80 and data.objects[0] == "person"
    assert data.train[0].label_map().max() <= 255


def test_the_held_out_drive_is_not_trained_on(shared_data, monkeypatch):
    monkeypatch.setenv("MST_DATA_ROOT", str(shared_data))
    (task,) = CATALOGUE["camvid"]
    data = open_task(task)
    drives = [{image.path.split("/")[-2] for image in part} for part in (data.train, data.val)]
    assert drives == [{"0001TP", "0016E5"}, {"0006R0"}]
    blocks = sequences([image.path for image in data.val], task.group)
    assert len(blocks) == 101 and np.bincount(blocks).max() == 10  # ten seconds, a frame a second
    linear = load_task_config(task, task.recipes[1])
    assert linear.val_dataloader.dataset == data.cfg.val_dataloader.dataset


def test_data_that_are_missing_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path))
    for name in ("sample", "camvid", "coco_mini"):
        with pytest.raises(FileNotFoundError, match=name):
            open_task(CATALOGUE[name][0])


def test_classes_in_one_split_only_are_refused(tmp_path):
    for split, classes in (("train", "ab"), ("val", "ac")):
        for name in classes:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\['b', 'c'\]"):
        open_task(Task("images", "classification", root=str(tmp_path)))


def test_another_file_is_another_digest(sample):
    (task, _) = CATALOGUE["sample"]
    data = open_task(task)
    before = data.digest()
    assert before == open_task(task).digest()
    with open(data.val[0].files[0], "ab") as file:
        file.write(b"0")
    assert data.digest() != before


def test_another_border_between_train_and_val_is_another_digest(sample):
    data = open_task(CATALOGUE["sample"][0])
    moved = replace(data, train=data.train[:-1], val=[data.train[-1], *data.val])
    assert [*moved.train, *moved.val] == [*data.train, *data.val] and moved.digest() != data.digest()


def test_a_value_of_no_class_other_than_255_is_refused(sample, tmp_path):
    config = tmp_path / "mst_other.py"
    config.write_text(
        '_base_ = "mst_transfer::seg_configs/mst_setr_pup_sample.py"\n'
        "train_dataloader = dict(dataset=dict(ignore_index=0))\nval_dataloader = dict(dataset=dict(ignore_index=0))\n"
        "val_evaluator = dict(ignore_index=0)\n"
        "_head = dict(ignore_index=0)\n"
        "model = dict(data_preprocessor=dict(seg_pad_val=0), decode_head=_head, auxiliary_head=_head)\n"
    )
    with pytest.raises(ValueError, match=r"train_dataloader\.dataset\.ignore_index = 0: .* Next step"):
        open_task(Task("x", SEGMENTATION, heads(str(config))))


def test_other_labels_are_another_digest_though_no_name_and_size_changes(sample, tmp_path):
    for split in ("train", "val"):
        for name, numbers in (("a", (1, 2)), ("b", (3, 4))):
            (tmp_path / split / name).mkdir(parents=True)
            for number in numbers:
                (tmp_path / split / name / f"{number}.jpg").write_bytes(b"x")
    task = Task("images", "classification", root=str(tmp_path))
    before = open_task(task).digest()
    (tmp_path / "val" / "b" / "3.jpg").rename(tmp_path / "val" / "a" / "3.jpg")
    assert open_task(task).digest() != before

    masks, objects = (open_task(task) for task in CATALOGUE["sample"])
    annotations = Path(objects.annotations[1])
    assert annotations.name == "instances_val.json"
    for data, path in ((masks, Path(masks.val[0].files[0])), (objects, annotations)):
        before, content = data.digest(), path.read_bytes()
        path.write_bytes(content[::-1])
        assert data.digest() != before
        path.write_bytes(content)
        assert data.digest() == before


def test_sequences():
    names = ["x/a_f000.png", "x/a_f290.png", "y/a_f300.png", "x/b_f000.png"]
    assert sequences(names, "") is None
    assert sequences(names, r"(\w)_").tolist() == [0, 0, 0, 1]
    assert sequences(names, r"(\w)_f(\d+)/300").tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("pattern", ["(", "a_f", r"(\w)_/300", "(nothing)"])
def test_patterns_that_say_nothing_are_refused(pattern):
    with pytest.raises(ValueError, match="--group"):
        sequences(["a_f000.png"], pattern)


def test_heads_are_named_after_their_configs():
    names = [recipe.name for recipe in heads("det_configs/mst_maskrcnn_coco.py", frozen=True)]
    assert names == ["maskrcnn_coco", "maskrcnn_coco_frozen"]
