"""Inputs that would fail, or silently train on nothing, are refused with the way out."""

import json

import numpy as np
import pytest
import timm
from mmengine.config import Config
from PIL import Image

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.datasets import preflight_coco, preflight_masks
from mst_transfer.datasets.preflight import check_backbone, check_datasets

IMAGENET_MEAN = [123.675, 116.28, 103.53]
IMAGENET_STD = [58.395, 57.12, 57.375]


def write_coco(root, names=("cat", "dog"), num_images=3, annotated=True):
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for index in range(num_images):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "train" / f"{index}.png")
        images.append(dict(id=index, file_name=f"{index}.png", width=8, height=8))
        if annotated:
            annotations.append(dict(id=index, image_id=index, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0))
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / "annotations" / "train.json").write_text(json.dumps(content))


def coco_config(root, classes=("cat", "dog"), num_classes=None, **dataset):
    options = dict(
        type="CocoDataset",
        data_root=str(root),
        ann_file="annotations/train.json",
        data_prefix=dict(img="train/"),
        metainfo=dict(classes=classes),
    )
    heads = dict(num_classes=len(classes) if num_classes is None else num_classes)
    return Config(
        dict(
            default_scope="mmdet",
            train_dataloader=dict(dataset=options | dataset),
            model=dict(roi_head=dict(bbox_head=heads, mask_head=heads)),
        )
    )


def test_good_coco_data_pass(tmp_path):
    write_coco(tmp_path)
    check_datasets(coco_config(tmp_path))


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


def test_missing_sample_data_say_how_to_draw_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="mst sample-data .*/sample\\n"):
        check_datasets(coco_config(tmp_path / "sample" / "coco"))


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


def test_heads_with_another_number_of_classes_are_refused(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match="model.roi_head.bbox_head.num_classes=80, but .* has 2 classes"):
        check_datasets(coco_config(tmp_path, num_classes=80))


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


def test_large_files_are_only_searched_for_categories(tmp_path, monkeypatch):
    write_coco(tmp_path)
    monkeypatch.setattr(preflight_coco, "MAX_BYTES_TO_PARSE", 10)
    check_datasets(coco_config(tmp_path))
    with pytest.raises(ValueError, match="none of the classes"):
        check_datasets(coco_config(tmp_path, classes=("car",)))


@pytest.mark.parametrize("kind", ["RepeatDataset", "ConcatDataset"])
def test_datasets_inside_wrappers_are_checked(tmp_path, kind):
    write_coco(tmp_path)
    cfg = coco_config(tmp_path, classes=("car",))
    inner = cfg.train_dataloader.dataset
    wrapped = dict(type=kind, datasets=[inner]) if kind == "ConcatDataset" else dict(type=kind, dataset=inner, times=2)
    cfg.train_dataloader.dataset = wrapped
    with pytest.raises(ValueError, match="train_dataloader.dataset.dataset.* none of the classes"):
        check_datasets(cfg)


def write_masks(root, values=(0, 1), suffix="_leftImg8bit.png", count=3):
    images, masks = root / "leftImg8bit" / "train", root / "gtFine" / "train"
    for index in range(count):
        for folder in (images / "town", masks / "town"):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "town" / f"{index}{suffix}")
        mask = np.resize(np.array(values, np.uint8), (8, 8))
        Image.fromarray(mask).save(masks / "town" / f"{index}_gtFine_labelTrainIds.png")


def seg_config(root, num_classes=2, **dataset):
    options = dict(
        type="BaseSegDataset",
        data_root=str(root),
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        img_suffix="_leftImg8bit.png",
        seg_map_suffix="_gtFine_labelTrainIds.png",
        metainfo=dict(classes=("a", "b")),
    )
    return Config(
        dict(
            default_scope="mmseg",
            train_dataloader=dict(dataset=options | dataset),
            model=dict(decode_head=dict(num_classes=num_classes), auxiliary_head=[dict(num_classes=num_classes)]),
        )
    )


def test_good_masks_pass(tmp_path):
    write_masks(tmp_path, values=(0, 1, 255))
    check_datasets(seg_config(tmp_path))


def test_values_outside_the_classes_are_refused_by_file_and_value(tmp_path):
    write_masks(tmp_path)
    wrong = tmp_path / "gtFine/train/town/1_gtFine_labelTrainIds.png"
    Image.fromarray(np.resize(np.array([0, 7], np.uint8), (8, 8))).save(wrong)
    with pytest.raises(ValueError) as error:
        check_datasets(seg_config(tmp_path))
    text = str(error.value)
    assert f"mask {wrong} holds 7; allowed are 0 to 1 for the 2 classes and 255" in text
    assert "0: 50.0 %, 7: 50.0 %" in text


def test_raw_cityscapes_ids_are_recognised(tmp_path):
    write_masks(tmp_path, values=(7, 26, 33))
    cfg = seg_config(tmp_path, num_classes=19, type="CityscapesDataset")
    del cfg.train_dataloader.dataset["metainfo"]
    with pytest.raises(ValueError, match="holds 26, 33.*look like Cityscapes labelIds"):
        check_datasets(cfg)


def test_picked_classes_follow_the_full_list(tmp_path):
    """CityscapesDataset with 2 of its 19 classes: files keep train ids 0 to 18, which mmseg maps."""
    write_masks(tmp_path, values=(0, 18, 255))
    cfg = seg_config(tmp_path, type="CityscapesDataset", metainfo=dict(classes=("road", "bicycle")))
    check_datasets(cfg)


def test_colour_masks_are_refused(tmp_path):
    write_masks(tmp_path)
    path = tmp_path / "gtFine/train/town/0_gtFine_labelTrainIds.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match="3 channels: colours instead of class ids"):
        check_datasets(seg_config(tmp_path))


def test_unreadable_mask_is_named(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "gtFine/train/town/2_gtFine_labelTrainIds.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="2_gtFine_labelTrainIds.png cannot be read"):
        check_datasets(seg_config(tmp_path))


def test_masks_that_ignore_everything_are_refused(tmp_path):
    write_masks(tmp_path, values=(255,))
    with pytest.raises(ValueError, match="every pixel .* is 255"):
        check_datasets(seg_config(tmp_path))


def test_missing_masks_are_named(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "gtFine/train/town/2_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 images have no mask, e.g. .*2_gtFine_labelTrainIds.png"):
        check_datasets(seg_config(tmp_path))


def test_other_image_suffix_is_named(tmp_path):
    write_masks(tmp_path, suffix="_leftImg8bit.jpg")
    with pytest.raises(ValueError, match="no file below .* ends in '_leftImg8bit.png' .found: 3 × .jpg.. Set img_suff"):
        check_datasets(seg_config(tmp_path))


def test_pairs_are_those_of_mmseg(tmp_path):
    from mmseg.datasets import BaseSegDataset

    write_masks(tmp_path)
    options = dict(seg_config(tmp_path).train_dataloader.dataset)
    options.pop("type")
    dataset = BaseSegDataset(pipeline=[], **options)
    theirs = [(info["img_path"], info["seg_map_path"]) for info in map(dataset.get_data_info, range(len(dataset)))]
    assert preflight_masks.list_pairs("here", options, BaseSegDataset) == theirs


def test_number_of_masks_read_is_bounded(tmp_path, monkeypatch):
    write_masks(tmp_path, count=9)
    read = []
    monkeypatch.setattr(preflight_masks, "MAX_MASKS", 4)
    monkeypatch.setattr(preflight_masks, "count_values", lambda path: read.append(path) or {0: 64})
    check_datasets(seg_config(tmp_path))
    assert len(read) == 3


def test_auxiliary_heads_are_checked_too(tmp_path):
    write_masks(tmp_path)
    cfg = seg_config(tmp_path)
    cfg.model.auxiliary_head[0].num_classes = 19
    with pytest.raises(ValueError, match="model.auxiliary_head.0.num_classes=19, but .* has 2 classes"):
        check_datasets(cfg)


def backbone_config(path, mean=IMAGENET_MEAN):
    backbone = dict(type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", checkpoint=path and str(path))
    return Config(dict(model=dict(backbone=backbone, data_preprocessor=dict(mean=mean, std=IMAGENET_STD))))


def test_missing_backbone_says_what_to_type(tmp_path):
    check_backbone(backbone_config(None))
    with pytest.raises(FileNotFoundError, match="--cfg-options model.backbone.checkpoint=PATH, or .*=None"):
        check_backbone(backbone_config(tmp_path / "absent.safetensors"))


def test_other_normalisation_is_refused(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=24, depth=1, num_heads=3)
    metadata = BackboneMetadata(
        arch="vit_tiny_patch16_224",
        arch_kwargs=dict(embed_dim=24, depth=1, num_heads=3),
        patch_size=16,
        img_size=(224, 224),
        embed_dim=24,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        role="teacher",
    )
    path = tmp_path / "teacher.safetensors"
    save_backbone(path, vit.state_dict(), metadata)
    check_backbone(backbone_config(path))
    with pytest.raises(ValueError, match=r"data_preprocessor.mean=\[0, 0, 0\].*\[123.675, 116.28, 103.53\]"):
        check_backbone(backbone_config(path, mean=[0, 0, 0]))


def test_the_last_known_folder_decides_the_advice(tmp_path):
    for root, advice, other in (
        (tmp_path / "cityscapes" / "sample" / "coco", "mst sample-data", "cocodataset.org"),
        (tmp_path / "sample" / "work" / "coco", "cocodataset.org", "mst sample-data"),
    ):
        with pytest.raises(FileNotFoundError) as error:
            check_datasets(coco_config(root))
        assert advice in str(error.value) and other not in str(error.value)
        assert "val_evaluator.ann_file" in str(error.value)


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


def test_classes_that_the_dataset_does_not_have_are_refused(tmp_path):
    write_masks(tmp_path)
    with pytest.raises(ValueError, match="CityscapesDataset has no class 'a', 'b'; .*type='BaseSegDataset'"):
        check_datasets(seg_config(tmp_path, type="CityscapesDataset"))


def test_datasets_with_rules_of_their_own_keep_them(tmp_path):
    """LVIS numbers and finds images by its own rules; a dataset without a file has nothing to compare."""
    write_coco(tmp_path)
    (tmp_path / "train" / "1.png").unlink()
    check_datasets(coco_config(tmp_path, classes=("dog", "cat"), type="LVISV1Dataset"))
    cfg = coco_config(tmp_path, ann_file="")
    check_datasets(cfg)
