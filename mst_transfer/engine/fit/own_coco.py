"""Points a detection config at a user's own labels: ``--coco TRAIN.json VAL.json``, or those of another format."""

import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mst_transfer.configs.datasets import AUTO, LOADERS, all_datasets, class_names, dataset_class, numbers_by_file
from mst_transfer.datasets.coco_columns import MAX_BYTES_TO_PARSE, load_json
from mst_transfer.engine.fit.foreign_labels import write_as_coco
from mst_transfer.preflight.evaluators import evaluators
from mst_transfer.preflight.num_classes import find_num_classes

_NUM_NAMES = 20
_OUTLINE = re.compile(rb'"segmentation"\s*:\s*(?:\[\s*[^\s\]]|\{)')  # one that is not empty
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def own_labels(
    folder: Path, coco: Sequence[str] | None, coco_images: Sequence[str] | None, **foreign: str | Sequence[str] | None
) -> tuple[Sequence[str], Sequence[str]]:
    """What ``use_coco_files`` takes: ``coco`` and its images, or what ``foreign`` labels become in a folder.

    ``foreign``: ``yolo``, ``voc`` or ``cvat`` with what ``write_as_coco`` reads.

    Raises:
        FileNotFoundError, ValueError: of ``write_as_coco``; or several kinds are given.
    """
    given = {kind: sources for kind, sources in foreign.items() if sources}
    if len(given) + bool(coco or coco_images) > 1:
        kinds = ", ".join(f"--{kind}" for kind in ("coco", *foreign))
        raise ValueError(f"labels of several kinds: give one of {kinds}; --coco-images goes with --coco alone")
    for kind, sources in given.items():
        return write_as_coco(kind, [sources] if isinstance(sources, str) else sources, folder)
    return coco or (), coco_images or ()


def use_coco_files(cfg: Any, files: Sequence[str], folders: Sequence[str] = ()) -> int | None:
    """Sets annotation files, image folders and evaluators of a config, and leaves its classes to the files.

    ``files`` and ``folders`` of images are for training and for validation; the test loader gets the latter too.
    Folders that are not given are found beside the annotations.

    Returns:
        The number of classes that the config had, None if its own files were to say, for ``infer_classes``.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if the config has another kind of dataset, or the image folder is not clear.
    """
    scope = str(cfg.get("default_scope") or "mmengine")
    for path in (*files, *folders):
        if not os.path.exists(path):
            raise FileNotFoundError(f"--coco: {path} does not exist")
    images = list(folders) or [find_image_folder(path) for path in files]
    former = 0
    for split, file, folder in zip(("train", "val", "test"), [*files, files[-1]], [*images, images[-1]], strict=True):
        datasets = list(all_datasets(cfg, [f"{split}_dataloader"]))
        kinds = [dataset_class(dataset, scope) for _, dataset in datasets]
        if len(datasets) != 1 or not numbers_by_file(kinds[0]):
            found = ", ".join(str(dataset.get("type")) for _, dataset in datasets) or "no dataset"
            raise ValueError(
                f"--coco: {split}_dataloader must have one CocoDataset of mmdet, it has {found}. Take a detection "
                "config such as det_configs/mst_maskrcnn_coco.py, or write a config that names your files"
            )
        ((_, dataset),) = datasets
        former = former or len(class_names(dataset, kinds[0]))
        dataset["data_root"] = ""
        dataset["ann_file"] = file
        dataset["data_prefix"] = dict(img=os.path.join(folder, ""))
        dataset["metainfo"] = dict(classes=AUTO)
        for _, metric in evaluators(cfg, f"{split}_dataloader"):
            if metric.get("ann_file"):  # without one, the ground truth is what the dataset holds
                metric["ann_file"] = file
    stated = {number for _, number in find_num_classes(cfg.get("model") or {})}  # by a config without names
    return former or (stated.pop() if len(stated) == 1 else None)


def learn_boxes_alone(cfg: Any) -> Iterator[str]:
    """Takes masks out of a two-stage detector whose annotation files have no outline at all; says so.

    Its mask head goes, and what loads and scores masks. A file with a single outline leaves the config as it is.
    """
    heads = (cfg.get("model") or {}).get("roi_head") or {}
    files = {dataset["ann_file"] for _, dataset in all_datasets(cfg)}
    if not heads.get("mask_head") or any(map(_has_outlines, files)):
        return
    heads.update(mask_head=None, mask_roi_extractor=None)
    for _, dataset in all_datasets(cfg):
        for step in dataset.get("pipeline") or ():
            if step.get("with_mask"):
                step.update(with_mask=False)
    for _, metric in (item for loader in LOADERS for item in evaluators(cfg, loader)):
        kinds = metric.get("metric") or ()
        if "segm" in kinds:
            metric["metric"] = [kind for kind in kinds if kind != "segm" and kinds != "segm"] or ["bbox"]
    yield "the labels are boxes without outlines: the mask head is left out, boxes alone are learned and scored"


def _has_outlines(path: str) -> bool:
    if not os.path.getsize(path):
        return True  # for all that is known: the checks say that it is no JSON
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _OUTLINE.search(content) is not None


def find_image_folder(path: str) -> str:
    """The folder that holds the images of an annotation file, by the usual layouts.

    Looked at are, for ``…/annotations/instances_train.json``: ``…/annotations``, its ``images`` and ``train``, then
    the same beside it: ``…``, ``…/images``, ``…/train``, ``…/images/train``, ``…/train/images``.

    Raises:
        ValueError: if none, or more than one, holds the first images that the file names.
    """
    stem = Path(path).stem
    split = stem.removeprefix("instances_")
    here = Path(path).parent
    layouts = ["", "images", split, stem, f"images/{split}", f"{split}/images"]
    candidates = dict.fromkeys(root / layout for root in (here, here.parent) for layout in layouts)
    names = _some_file_names(path)
    found = [folder for folder in candidates if names and all((folder / name).is_file() for name in names)]
    if len(found) != 1:
        what = "more than one folder has" if found else "no folder beside it has"
        where = ", ".join(map(str, found or candidates))
        raise ValueError(
            f"--coco: {what} the images that {path} names, e.g. {names[0] if names else 'none at all'} "
            f"({where}). Name the folders: --coco-images TRAIN_FOLDER VAL_FOLDER"
        )
    return str(found[0])


def _some_file_names(path: str) -> list[str]:
    """Names of images; of a large file the first ones, without parsing the rest."""
    if os.path.getsize(path) > MAX_BYTES_TO_PARSE:
        with open(path, "rb") as file:
            matches = _FILE_NAME.findall(file.read(2**20))
        if matches:
            return [json.loads(match) for match in matches[:_NUM_NAMES]]
    names = [str(image.get("file_name")) for image in load_json(path)["images"]]
    return names[:: max(len(names) // _NUM_NAMES, 1)]
