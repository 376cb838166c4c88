"""Tiny data sets on disk, and configs that read them."""

import json

import bad_images
import numpy as np
from mmengine.config import Config
from PIL import Image

from mst_transfer.preflight.check import inspect_datasets

ZEROS_AND_ONES = np.resize(np.array([0, 1], np.uint8), (8, 8))
SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def annotation(index, image_id=0, category_id=1, **changes):
    """An instance of 4 × 4 pixels; None takes a key away."""
    entry = dict(id=index, image_id=image_id, category_id=category_id, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
    entry["segmentation"] = SQUARE
    return {key: value for key, value in (entry | changes).items() if value is not None}


def write_coco(root, names=("cat", "dog"), num_images=3, annotated=True, annotations=None, split="train", **content):
    """``ROOT/train/N.png`` of 8 × 8 pixels and ``ROOT/annotations/train.json``, one instance an image."""
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images = []
    for index in range(num_images):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / split / f"{index}.png")
        images.append(dict(id=index, file_name=f"{index}.png", width=8, height=8))
    if annotations is None:
        annotations = [annotation(index, image_id=index) for index in range(num_images)] if annotated else []
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
    content = dict(images=images, annotations=annotations, categories=categories) | content
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root / "annotations" / f"{split}.json"


def coco_dataset(root, split="train", **options):
    """Config of a dataset that reads what ``write_coco`` wrote."""
    files = dict(ann_file=f"annotations/{split}.json", data_prefix=dict(img=f"{split}/"))
    return dict(type="CocoDataset", data_root=str(root), **files) | options


def coco_config(root, classes=("cat", "dog"), num_classes=None, **dataset):
    """A config with a train loader and two heads."""
    options = coco_dataset(root, metainfo=dict(classes=classes)) | dataset
    heads = dict(num_classes=len(classes) if num_classes is None else num_classes)
    model = dict(roi_head=dict(bbox_head=heads, mask_head=dict(heads)))
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=options), model=model))


def write_masks(root, values=(0, 1), suffix="_leftImg8bit.png", count=3, mask_suffix="_gtFine_labelTrainIds.png"):
    """Images and masks of 8 × 8 pixels in Cityscapes' layout; the masks repeat ``values``."""
    images, masks = root / "leftImg8bit" / "train", root / "gtFine" / "train"
    for index in range(count):
        for folder in (images / "town", masks / "town"):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "town" / f"{index}{suffix}")
        save_mask(root, index, values, mask_suffix)


def save_mask(root, index, values, mask_suffix="_gtFine_labelTrainIds.png", size=(8, 8)):
    path = root / "gtFine/train/town" / f"{index}{mask_suffix}"
    Image.fromarray(np.resize(np.array(values, np.uint8), size)).save(path)
    return path


def seg_config(root, num_classes=2, **dataset):
    """A config with a train loader and two heads."""
    prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
    options = dict(type="BaseSegDataset", data_root=str(root), data_prefix=prefix, metainfo=dict(classes=("a", "b")))
    options |= dict(img_suffix="_leftImg8bit.png", seg_map_suffix="_gtFine_labelTrainIds.png") | dataset
    model = dict(decode_head=dict(num_classes=num_classes), auxiliary_head=[dict(num_classes=num_classes)])
    return Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=options), model=model))


def change_json(path, change):
    """Lets ``change`` alter the content of a file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def said(cfg, loaders=("train_dataloader",)):
    """The texts of what stops a run, and of what the summaries note."""
    findings, summaries = inspect_datasets(cfg, loaders)
    return [finding.text for finding in findings if finding.stops], [text for one in summaries for text in one.notes]


def mask_file(name, ids=ZEROS_AND_ONES):
    """The bytes of a mask with class ids, in one of many formats, good and bad."""
    if name == "cut off":
        return bad_images.encode(Image.fromarray(ids), "PNG")[:45]
    if name == "bomb":
        return next(case for case in bad_images.BOMBS if case.name == "bomb.png").write.__closure__[0].cell_contents
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    pictures = {
        "gray": Image.fromarray(ids),
        "16 bits": Image.fromarray(ids.astype(np.uint16)),
        "16 bits beyond": Image.fromarray(ids.astype(np.uint16) * 256),
        "colours": Image.fromarray(np.dstack([ids] * 3)),
        "alpha": Image.fromarray(np.dstack([ids] * 2)),
        "palette": palette,
        "one bit": Image.fromarray(ids > 0),
        "black and white": Image.fromarray(ids * 128),
        "another size": Image.fromarray(np.pad(ids, ((0, 0), (0, 1)))),
        "float": Image.fromarray(ids.astype(np.float32)),
    }
    return bad_images.encode(pictures[name], "TIFF" if name == "float" else "PNG")
