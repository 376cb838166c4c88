"""Classes and numbers of classes come from the JSON where a config leaves them open; contradictions are refused."""

import pytest
from mmengine.config import Config
from small_sets import annotation, coco_dataset, seg_config, write_coco, write_masks

from mst_transfer.engine.fit.infer_classes import infer_classes
from mst_transfer.preflight.check import check_datasets

OPEN = dict(classes="auto")


def config(root, train=None, val=None, heads=(80, 80), test_root=None):
    """Mask R-CNN's heads and three loaders; ``train`` and ``val`` are the metainfo of their datasets."""

    def loader(root, split, metainfo):
        return dict(dataset=coco_dataset(root, split, **({} if metainfo is None else dict(metainfo=metainfo))))

    return Config(
        dict(
            default_scope="mmdet",
            train_dataloader=loader(root, "train", train),
            val_dataloader=loader(root, "val", val),
            test_dataloader=loader(test_root or root, "val", val),
            model=dict(
                rpn_head=dict(num_classes=1),
                roi_head=dict(bbox_head=dict(num_classes=heads[0]), mask_head=dict(num_classes=heads[1])),
            ),
        )
    )


def classes_of(cfg):
    return [cfg[f"{split}_dataloader"].dataset.get("metainfo", {}).get("classes") for split in ("train", "val", "test")]


def numbers_of(cfg):
    return [cfg.model.roi_head.bbox_head.num_classes, cfg.model.roi_head.mask_head.num_classes]


def write_both(root, names=("bolt", "nut", "gear"), val_names=None, **content):
    write_coco(root, names, **content)
    write_coco(root, val_names or names, split="val", **content)


@pytest.mark.parametrize(("train", "val"), [(None, None), (OPEN, None), (None, OPEN), (OPEN, OPEN)])
def test_names_of_ones_own_are_taken_from_the_file(tmp_path, train, val):
    """mmdet itself, built from the result, numbers the instances as the names say."""
    from mmdet.registry import DATASETS

    categories = [dict(id=90, name="bolt"), dict(id=3, name="nut"), dict(id=40, name="gear")]
    write_both(
        tmp_path, categories=categories, annotations=[annotation(1, category_id=40), annotation(2, category_id=90)]
    )
    cfg = config(tmp_path, train, val)
    (sentence,) = infer_classes(cfg)
    assert classes_of(cfg) == [("bolt", "nut", "gear")] * 3 and numbers_of(cfg) == [3, 3]
    assert cfg.model.rpn_head.num_classes == 1
    assert "3 classes from" in sentence and "[bolt, nut, gear]" in sentence
    assert "num_classes=3 in model.roi_head.bbox_head, model.roi_head.mask_head" in sentence
    check_datasets(cfg)
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))
    labels = [instance["bbox_label"] for instance in dataset.get_data_info(0)["instances"]]
    assert [dataset.metainfo["classes"][label] for label in labels] == ["gear", "bolt"]


def test_cocos_own_names_and_named_classes_are_left_alone(tmp_path):
    from mmdet.datasets import CocoDataset

    write_both(tmp_path / "own")
    cfg = config(tmp_path / "own", dict(classes=("bolt", "gear")), heads=(2, 2))
    assert infer_classes(cfg) == [] and numbers_of(cfg) == [2, 2]
    write_both(tmp_path, CocoDataset.METAINFO["classes"])
    cfg = config(tmp_path)
    assert infer_classes(cfg) == [] and classes_of(cfg) == [None] * 3 and numbers_of(cfg) == [80, 80]
    check_datasets(cfg)


def test_some_of_cocos_names_are_ambiguous(tmp_path):
    write_both(tmp_path, ("cat", "robot"))
    cfg = config(tmp_path)
    assert infer_classes(cfg) == []
    with pytest.raises(ValueError, match='do not occur.*To train all 2 of the file: .*classes="auto"'):
        check_datasets(cfg)
    cfg = config(tmp_path, OPEN)
    infer_classes(cfg)
    check_datasets(cfg)
    assert numbers_of(cfg) == [2, 2]


@pytest.mark.parametrize("heads", [(80, 80), (3, 80), (3, 3), (2, 80), (80, 2), (2, 2)])
def test_numbers_agree_with_the_file_or_are_refused(tmp_path, heads):
    write_both(tmp_path)
    cfg = config(tmp_path, OPEN, heads=heads)
    if 2 in heads:
        with pytest.raises(ValueError, match="the data have 3 classes, but the config sets .*num_classes=2"):
            infer_classes(cfg)
    else:
        infer_classes(cfg)
        assert numbers_of(cfg) == [3, 3]


def test_open_and_named_classes_that_differ_are_refused(tmp_path):
    write_both(tmp_path)
    infer_classes(config(tmp_path, OPEN, dict(classes=("bolt", "nut", "gear"))))
    with pytest.raises(ValueError, match=r"val_dataloader.dataset.metainfo.classes=\[nut\], but train_dataloader"):
        infer_classes(config(tmp_path, OPEN, dict(classes=("nut",))))


def test_a_test_set_that_was_only_inherited_stays_as_it_is(tmp_path):
    write_both(tmp_path / "mine")
    write_both(tmp_path / "other", ("person", "car"))
    cfg = config(tmp_path / "mine", test_root=tmp_path / "other")
    infer_classes(cfg)
    assert classes_of(cfg) == [("bolt", "nut", "gear")] * 2 + [None]


FAULTS = {
    "another order": (dict(val_names=("nut", "bolt", "gear")), "the same categories in another order"),
    "one less": (dict(val_names=("bolt", "nut")), r"without \[gear\], with \[\]"),
    "one more": (dict(val_names=("bolt", "nut", "gear", "cog")), r"without \[\], with \[cog\]"),
    "name twice": (dict(categories=[dict(id=1, name="a"), dict(id=2, name="a")]), "the same name"),
    "id twice": (dict(categories=[dict(id=1, name="a"), dict(id=1, name="b")]), "the same id"),
    "name a number": (dict(categories=[dict(id=4, name=7)]), r"without a name: ids \[4\]"),
    "none": (dict(categories=[]), "has no categories"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_categories_that_cannot_be_told_apart_or_disagree_are_refused(tmp_path, content, message):
    write_both(tmp_path, **content)
    with pytest.raises(ValueError, match=message):
        infer_classes(config(tmp_path, OPEN))


def test_missing_files_are_left_to_the_preflight(tmp_path):
    cfg = config(tmp_path, OPEN)
    assert infer_classes(cfg) == []
    with pytest.raises(FileNotFoundError, match="are not there"):
        check_datasets(cfg)


def test_more_classes_than_colours_get_colours(tmp_path):
    names = tuple(f"part {index}" for index in range(90))
    write_both(tmp_path, names)
    cfg = config(tmp_path)
    infer_classes(cfg)
    palette = cfg.train_dataloader.dataset.metainfo.palette
    assert len({tuple(colour) for colour in palette}) == 90
    assert all(0 <= part <= 255 for colour in palette for part in colour)


def seg_open(root, num_classes=19, **dataset):
    cfg = seg_config(root, num_classes, metainfo=OPEN, **dataset)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset))
    return cfg


def test_names_of_masks_come_from_a_list(tmp_path):
    write_masks(tmp_path, values=(0, 2, 255))
    (tmp_path / "classes.txt").write_text("road\nkerb\n\ngrass\n")
    cfg = seg_open(tmp_path)
    (sentence,) = infer_classes(cfg)
    assert sentence.startswith(f"3 classes from {tmp_path}/classes.txt: [road, kerb, grass]; num_classes=3 in ")
    assert cfg.val_dataloader.dataset.metainfo.classes == ("road", "kerb", "grass")
    assert [cfg.model.decode_head.num_classes, cfg.model.auxiliary_head[0].num_classes] == [3, 3]
    check_datasets(cfg)


def test_without_a_list_the_values_are_counted(tmp_path):
    write_masks(tmp_path, values=(0, 1, 2, 255))
    cfg = seg_open(tmp_path)
    infer_classes(cfg)
    assert cfg.train_dataloader.dataset.metainfo.classes == ("class 0", "class 1", "class 2")
    reduced = seg_open(tmp_path, reduce_zero_label=True)
    infer_classes(reduced)
    assert reduced.train_dataloader.dataset.metainfo.classes == ("class 0", "class 1")
    check_datasets(reduced)


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        ((0, 2), None, r"hold \[0, 2\]. Write .*classes.txt: one name a line"),
        ((0, 255), None, "Black-and-white masks must hold 0 and 1 instead of 0 and 255"),
        ((1, 2), None, r"every number from 0"),
        ((0, 1), "a\nb\na\n", r"names \[a\] more than once"),
        ((0, 1), "\n", "names no class"),
    ],
)
def test_values_with_gaps_and_wrong_lists_of_names_are_refused(tmp_path, values, names, message):
    write_masks(tmp_path, values=values)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    with pytest.raises(ValueError, match=message):
        infer_classes(seg_open(tmp_path))


@pytest.mark.parametrize("first", [0, 1])
def test_the_advice_says_whose_name_is_the_first(tmp_path, first):
    write_masks(tmp_path, values=(0, 2, 4))
    with pytest.raises(ValueError, match=rf"from {first} to the last .* one name a line, the first for value {first}$"):
        infer_classes(seg_open(tmp_path, reduce_zero_label=bool(first)))


def test_datasets_with_classes_of_their_own_refuse_auto(tmp_path):
    write_masks(tmp_path)
    with pytest.raises(ValueError, match="CityscapesDataset has 19 classes of its own.*BaseSegDataset"):
        infer_classes(seg_open(tmp_path, type="CityscapesDataset"))
