"""A dataset in COCO's format that does not fit the config is refused with the way out."""

import pytest
from small_sets import annotation, coco_config, coco_dataset, write_coco

from mst_transfer.preflight.check import check_datasets

# names in the file and in the config, what is said
CLASSES = {
    "the same": (("cat", "dog"), ("cat", "dog"), ""),
    "none in the file": (("cat", "dog"), ("car", "bus"), r"none of the classes \[car, bus\] occurs.*num_classes=2"),
    "one not in the file": (("cat", "dog"), ("cat", "cow", "dog"), r"classes \[cow\] do not occur"),
    "another order": (("cat", "dog"), ("dog", "cat"), r"in the order of the file.*\('cat', 'dog'\)"),
    "some of COCO's": (
        ("cat", "dog", "robot"),
        ("person", "cat", "dog"),
        r'(?s)classes \[person\] do not occur.*2 are classes of the config.*"auto"',
    ),
}


@pytest.mark.parametrize(("names", "classes", "message"), CLASSES.values(), ids=CLASSES)
def test_classes_are_those_of_the_file_in_its_order(tmp_path, names, classes, message):
    write_coco(tmp_path, names)
    cfg = coco_config(tmp_path, classes=classes)
    if not message:
        check_datasets(cfg)
        return
    with pytest.raises(ValueError, match=message):
        check_datasets(cfg)


def test_ids_may_have_gaps_and_any_order(tmp_path):
    categories = [dict(id=90, name="cat"), dict(id=3, name="dog")]
    annotations = [annotation(100, category_id=3), annotation(5, category_id=90), annotation(6, category_id=90)]
    write_coco(tmp_path, categories=categories, annotations=annotations)
    (summary,) = check_datasets(coco_config(tmp_path))
    assert summary.counts == [2, 1]


def test_order_rule_is_mmdets(tmp_path):
    """The oracle for the rule above: mmdet numbers categories by the file, whatever metainfo says."""
    from mmdet.datasets import CocoDataset

    write_coco(tmp_path)
    options = coco_dataset(tmp_path, metainfo=dict(classes=("dog", "cat")), pipeline=[])
    dataset = CocoDataset(**{key: value for key, value in options.items() if key != "type"})
    assert dataset.get_data_info(0)["instances"][0]["bbox_label"] == 0  # a cat, though metainfo[0] is "dog"


@pytest.mark.parametrize(
    ("content", "message"), [(dict(annotated=False), "3 images and 0"), (dict(num_images=0), "0 images and 0")]
)
def test_nothing_to_learn_is_refused(tmp_path, content, message):
    write_coco(tmp_path, **content)
    with pytest.raises(ValueError, match=f"{message} instances"):
        check_datasets(coco_config(tmp_path))


def test_datasets_with_rules_of_their_own_keep_them(tmp_path):
    """LVIS numbers and finds images by its own rules; a dataset without a file has nothing to compare."""
    write_coco(tmp_path)
    (tmp_path / "train" / "1.png").unlink()
    check_datasets(coco_config(tmp_path, classes=("dog", "cat"), type="LVISV1Dataset"))
    cfg = coco_config(tmp_path, ann_file="")
    check_datasets(cfg)


def test_all_images_filtered_away_is_refused(tmp_path):
    """Images of 8 px and mmdet's usual min_size of 32: nothing would be left, and mmdet would not say so."""
    write_coco(tmp_path)
    options = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32))
    with pytest.raises(ValueError, match="leave out all 3 images .*: 3 a side below filter_cfg.min_size=32 px"):
        check_datasets(coco_config(tmp_path, **options))
    check_datasets(coco_config(tmp_path, test_mode=True, **options))


def test_what_an_evaluator_needs_is_asked_of_its_file(tmp_path):
    """Without a pipeline that reads masks, and an evaluator, neither is asked for."""
    path = write_coco(tmp_path, annotations=[annotation(1, iscrowd=None, segmentation=[])])
    cfg = coco_config(tmp_path)
    cfg.val_dataloader = cfg.train_dataloader
    check_datasets(cfg, ["val_dataloader"])
    cfg.val_evaluator = dict(type="CocoMetric", metric=["bbox", "segm"], ann_file=str(path))
    with pytest.raises(ValueError, match="(?s)without iscrowd; the evaluation needs it.*without a segmentation, which"):
        check_datasets(cfg, ["val_dataloader"])


def test_panoptic_files_have_their_classes_compared(tmp_path):
    segments = [dict(id=0, image_id=0, segments_info=[dict(id=1, category_id=2)], file_name="0.png")]
    write_coco(tmp_path, annotations=segments)
    options = dict(type="CocoPanopticDataset")
    check_datasets(coco_config(tmp_path, **options))
    with pytest.raises(ValueError, match=r"classes \[cow\] do not occur"):
        check_datasets(coco_config(tmp_path, classes=("cat", "dog", "cow"), **options))
