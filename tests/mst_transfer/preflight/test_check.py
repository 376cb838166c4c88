"""All data of a run are checked, and all that is wrong is said at once."""

import pytest
from mmengine.config import Config
from small_sets import annotation, coco_config, write_coco

from mst_transfer.preflight.check import check_datasets, inspect_datasets


def test_all_missing_paths_are_named_with_layout_and_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path))
    cfg = coco_config(tmp_path / "coco")
    with pytest.raises(FileNotFoundError) as error:
        check_datasets(cfg)
    text = str(error.value)
    assert f"{tmp_path}/coco/annotations/train.json   (train_dataloader.dataset)" in text
    assert f"{tmp_path}/coco/train/" in text
    assert "https://cocodataset.org" in text and "train_dataloader.dataset.data_root=" in text
    assert f"export MST_DATA_ROOT=FOLDER, the folder that holds coco/ (now {tmp_path})" in text


def test_sets_that_number_their_classes_otherwise_are_refused(tmp_path):
    for split, names in (("train", ("car", "bus")), ("val", ("bus", "car"))):
        (tmp_path / split).mkdir()
        write_coco(tmp_path / split, names)
    cfg = coco_config(tmp_path / "train", classes=("car", "bus"))
    cfg.val_dataloader = coco_config(tmp_path / "val", classes=("bus", "car")).train_dataloader
    cfg.pop("val_evaluator", None)
    with pytest.raises(ValueError, match="val_dataloader.dataset: 'bus' is class 0, and class 1 in train_dataloader"):
        check_datasets(cfg)


@pytest.mark.parametrize("kind", ["RepeatDataset", "ConcatDataset"])
def test_datasets_inside_wrappers_are_checked(tmp_path, kind):
    write_coco(tmp_path)
    cfg = coco_config(tmp_path, classes=("car",))
    inner = cfg.train_dataloader.dataset
    wrapped = dict(type=kind, datasets=[inner]) if kind == "ConcatDataset" else dict(type=kind, dataset=inner, times=2)
    cfg.train_dataloader.dataset = wrapped
    with pytest.raises(ValueError, match="train_dataloader.dataset.dataset.* none of the classes"):
        check_datasets(cfg)


@pytest.mark.parametrize(
    ("root", "says_sample"), [("cityscapes/sample/coco", True), ("sample/work/coco", False)], ids=str
)
def test_the_last_known_folder_decides_the_advice(tmp_path, root, says_sample):
    with pytest.raises(FileNotFoundError, match="val_evaluator.ann_file") as error:
        check_datasets(coco_config(tmp_path / root))
    assert ("mst sample-data" in str(error.value)) is says_sample
    assert ("cocodataset.org" in str(error.value)) is not says_sample


def test_only_the_loaders_asked_for_are_checked_and_a_test_set_needs_no_instances(tmp_path):
    write_coco(tmp_path, annotated=False)
    cfg = coco_config(tmp_path)
    cfg.test_dataloader = dict(dataset=cfg.train_dataloader.dataset)
    cfg.train_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, data_root="nowhere"))
    check_datasets(cfg, ["test_dataloader"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check_datasets(cfg)


def test_an_evaluator_reads_the_file_of_its_dataset(tmp_path):
    write_coco(tmp_path)
    cfg = coco_config(tmp_path)
    cfg.val_dataloader = cfg.train_dataloader
    right = f"{tmp_path}/annotations/../annotations/train.json"
    cfg.val_evaluator = [dict(type="CocoMetric", ann_file=right)]
    check_datasets(cfg)
    other = tmp_path / "val.json"
    other.write_text("{}")
    for path in (str(other), "elsewhere/val.json"):
        cfg.val_evaluator = dict(type="CocoMetric", ann_file=path)
        with pytest.raises(ValueError, match=f"val_evaluator.ann_file={path} is not .* {tmp_path}/annotations/train"):
            check_datasets(cfg)
    cfg.val_dataloader = dict(dataset=dict(type="Other"))
    check_datasets(cfg, [])
    with pytest.raises(ValueError, match="val_evaluator.ann_file=elsewhere/val.json does not exist"):
        check_datasets(Config(dict(cfg, default_scope="mmengine")), ["val_dataloader"])


@pytest.mark.parametrize(("indices", "used"), [(2, 2), (-1, 1), ([0, 2], 2), (3, 3), (5, 3), (None, 3)])
def test_images_that_are_not_used_are_said_and_mmdets_metric_must_not_count_them(tmp_path, indices, used):
    path = str(write_coco(tmp_path))  # of three images
    cfg = coco_config(tmp_path)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, indices=indices))
    for evaluator in (dict(type="mst_transfer.CocoMetric", ann_file=path), dict(type="CocoMetric", ann_file=None)):
        cfg.val_evaluator = evaluator
        (summary,) = check_datasets(cfg, ["val_dataloader"])
        said = [text for text in summary.notes if f"{used} of the 3 images are used, and the figures" in text]
        assert len(said) == (used < 3)
    cfg.val_evaluator = [dict(type="mmdet.CocoMetric", ann_file=path)]
    if used == 3:
        check_datasets(cfg, ["val_dataloader"])
        return
    with pytest.raises(ValueError, match=f"{used} of the 3 .*val_evaluator.0, mmdet's CocoMetric, counts all others"):
        check_datasets(cfg, ["val_dataloader"])
    cfg.train_dataloader.dataset.indices = indices
    (summary,) = check_datasets(cfg, ["train_dataloader"])
    assert any(text.endswith(f"{used} of the 3 images are used") for text in summary.notes)


def test_all_problems_come_in_one_message(tmp_path):
    """Missing images, a bad box and another number of classes, in two sets; a set that is not there at all."""
    write_coco(tmp_path, annotations=[annotation(1), annotation(2, bbox=[1, 1, float("nan"), 4])])
    (tmp_path / "train" / "1.png").unlink()
    cfg = coco_config(tmp_path, num_classes=80)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, ann_file="annotations/val.json"))
    with pytest.raises(ValueError) as error:
        check_datasets(cfg)
    text = str(error.value)
    assert text.startswith("5 problems with the data of this config:\n1. the data of this config are not there:")
    assert "val.json   (val_dataloader.dataset)" in text
    assert "1 of 2 annotations (id 2) whose bbox is not 4 finite numbers" in text
    assert "1 of 3 images" in text and "e.g. 1.png" in text
    assert "bbox_head.num_classes=80" in text and "mask_head.num_classes=80" in text


def test_missing_files_alone_are_a_missing_file(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, split="val")
    (tmp_path / "train" / "1.png").unlink()
    (tmp_path / "val" / "2.png").unlink()
    cfg = coco_config(tmp_path)
    cfg.val_dataloader = dict(
        dataset=dict(cfg.train_dataloader.dataset, ann_file="annotations/val.json", data_prefix=dict(img="val/"))
    )
    with pytest.raises(FileNotFoundError, match="(?s)2 problems.*e.g. 1.png.*e.g. 2.png"):
        check_datasets(cfg)


def test_what_stops_nothing_is_noted(tmp_path):
    annotations = [annotation(1), annotation(2, bbox=[1, 1, 0, 4]), annotation(3, bbox=[6, 6, 4, 4])]
    write_coco(tmp_path, annotations=annotations)
    findings, (summary,) = inspect_datasets(coco_config(tmp_path))
    assert not any(finding.stops for finding in findings)
    assert "mmdet leaves out 1 of 3 annotations (id 2): no box side of 1 px or more" in summary.notes
    assert summary.counts == [2, 0] and summary.num_images == 3
    assert "classes without an instance: [dog]" in summary.facts
