"""A dataset in COCO's format that does not fit the config is refused with the way out."""

import pytest
from small_sets import annotation, coco_config, write_coco

from mst_transfer.preflight.check import check_datasets


def test_good_coco_data_pass(tmp_path):
    write_coco(tmp_path)
    check_datasets(coco_config(tmp_path))


def test_no_matching_class_is_refused(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match=r"none of the classes \[car, bus\] occurs.*\[cat, dog\].*num_classes=2"):
        check_datasets(coco_config(tmp_path, classes=("car", "bus")))


def test_missing_class_is_refused(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match=r"classes \[cow\] do not occur"):
        check_datasets(coco_config(tmp_path, classes=("cat", "cow", "dog")))


def test_other_order_of_classes_is_refused(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match=r"in the order of the file.*\('cat', 'dog'\)"):
        check_datasets(coco_config(tmp_path, classes=("dog", "cat")))


def test_order_rule_is_mmdets(tmp_path):
    """The oracle for the rule above: mmdet numbers categories by the file, whatever metainfo says."""
    from mmdet.datasets import CocoDataset

    write_coco(tmp_path)
    dataset = CocoDataset(
        data_root=str(tmp_path),
        ann_file="annotations/train.json",
        data_prefix=dict(img="train/"),
        metainfo=dict(classes=("dog", "cat")),
        pipeline=[],
    )
    assert dataset.get_data_info(0)["instances"][0]["bbox_label"] == 0  # a cat, though metainfo[0] is "dog"


def test_nothing_to_learn_is_refused(tmp_path):
    write_coco(tmp_path, annotated=False)
    with pytest.raises(ValueError, match="3 images and 0 instances"):
        check_datasets(coco_config(tmp_path))


def test_no_images_is_refused(tmp_path):
    write_coco(tmp_path, num_images=0)
    with pytest.raises(ValueError, match="0 images and 0 instances"):
        check_datasets(coco_config(tmp_path))


def test_missing_image_files_are_named(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 images .* e.g. 1.png"):
        check_datasets(coco_config(tmp_path))


@pytest.mark.parametrize("text", ["not json", "[]", '{"images": []}'])
def test_files_that_are_not_cocos_are_refused(tmp_path, text):
    write_coco(tmp_path)
    (tmp_path / "annotations" / "train.json").write_text(text)
    with pytest.raises(ValueError, match="is not an annotation file in COCO's format"):
        check_datasets(coco_config(tmp_path))


def test_datasets_with_rules_of_their_own_keep_them(tmp_path):
    """LVIS numbers and finds images by its own rules; a dataset without a file has nothing to compare."""
    write_coco(tmp_path)
    (tmp_path / "train" / "1.png").unlink()
    check_datasets(coco_config(tmp_path, classes=("dog", "cat"), type="LVISV1Dataset"))
    cfg = coco_config(tmp_path, ann_file="")
    check_datasets(cfg)


def test_a_file_with_some_of_cocos_names_says_the_choices(tmp_path):
    write_coco(tmp_path, names=("cat", "dog", "robot"))
    coco = ("person", "cat", "dog")
    with pytest.raises(ValueError, match=r"(?s)classes \[person\] do not occur.*2 are classes of the config.*\"auto\""):
        check_datasets(coco_config(tmp_path, classes=coco))


def test_all_images_filtered_away_is_refused(tmp_path):
    """Images of 8 px and mmdet's usual min_size of 32: nothing would be left, and mmdet would not say so."""
    write_coco(tmp_path)
    options = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32))
    with pytest.raises(ValueError, match="leave out all 3 images .*: 3 a side below filter_cfg.min_size=32 px"):
        check_datasets(coco_config(tmp_path, **options))
    check_datasets(coco_config(tmp_path, test_mode=True, **options))


def test_masks_are_only_asked_for_where_they_are_used(tmp_path):
    write_coco(tmp_path, annotations=[annotation(1, segmentation=None)])
    check_datasets(coco_config(tmp_path))
    loading = [dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]
    with pytest.raises(
        ValueError, match="1 of 1 annotations .id 1. without a segmentation, and the model learns masks"
    ):
        check_datasets(coco_config(tmp_path, pipeline=loading))


def test_what_an_evaluator_needs_is_asked_of_its_file(tmp_path):
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
    write_coco(tmp_path, annotations=[])
    with pytest.raises(ValueError, match="3 images and 0 instances"):
        check_datasets(coco_config(tmp_path, **options))
