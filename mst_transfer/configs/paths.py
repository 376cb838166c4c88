"""Checks that the paths of a config are there, and says how to get what is not."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mst_transfer.files.image_files import IMAGE_EXTENSIONS
from mst_transfer.files.shards import is_sharded

DATA_ROOT_VARIABLE = "MST_DATA_ROOT"
# Folder of a data set below the data root → what to do to have it there. The last in the path that fits is taken.
_HOW_TO_GET = {
    "sample": "the sample data are drawn in seconds: mst sample-data {folder}",
    "coco": "COCO 2017: train2017.zip, val2017.zip and annotations_trainval2017.zip from "
    "https://cocodataset.org/#download, unpacked in {folder}",
    "cityscapes": "Cityscapes: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
    "https://www.cityscapes-dataset.com (registration), unpacked in {folder}",
    "imagenet": "ImageNet: the ILSVRC 2012 images from https://image-net.org (registration), unpacked in "
    "{folder}/train and {folder}/val, a folder for each class",
}


def set_folder(root: str) -> tuple[str, Path]:
    """Name and folder of the data set that a ``data_root`` is of: ``data/sample/coco/`` → data/sample.

    The last known name counts: folders further up may be called anything. The sample data have a ``coco`` of their own.
    """
    path = Path(root)
    for end in range(len(path.parts), 0, -1):
        if path.parts[end - 1] in _HOW_TO_GET:
            if path.parts[end - 2 : end - 1] == ("sample",):
                end -= 1
            return path.parts[end - 1], Path(*path.parts[:end])
    return "", path


def how_to_get(roots: Iterable[str]) -> list[str]:
    """Says what to do to have the data of these roots, one line a data set."""
    sets = dict.fromkeys(set_folder(root) for root in roots)
    return [f"- {_HOW_TO_GET[name].format(folder=folder)}" for name, folder in sets if name]


def data_root_now() -> str:
    """Value of the environment variable, in words."""
    return f"now {os.environ.get(DATA_ROOT_VARIABLE) or 'unset, so data'}"


def check_pretraining_paths(cfg: Any, begins: bool = True) -> list[str]:
    """Checks that images and weights of a pre-training config are there; reads names alone, no more than it has to.

    Args:
        cfg: An ``mmengine.Config`` of the kind ``PRETRAINING``.
        begins: Whether the run begins with the weights of ``model.init_from`` or ``load_from``.

    Returns:
        The folders of images.

    Raises:
        FileNotFoundError: Names all that are not there, and how to get or name them.
    """
    dataset = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    extensions = dataset.get("extensions") or IMAGE_EXTENSIONS
    folders = list(_image_folders(cfg, dataset))
    faults = [(place, path, fault) for place, path in folders if (fault := _folder_fault(path, extensions))]
    lines = [f"  {path} {fault}   ({place})" for place, path, fault in faults]
    lines += [f"  {fault}" for fault in _weights_faults(cfg, "model.init_from", "load_from")] if begins else []
    if faults:
        places = " ".join(dict.fromkeys(f"{place}=FOLDER" for place, _, _ in faults))
        lines += how_to_get(path for _, path, _ in faults)
        lines.append(
            f"- data elsewhere: --cfg-options {places}; or export {DATA_ROOT_VARIABLE}=FOLDER, the folder of all data "
            f"sets ({data_root_now()})"
        )
    if lines:
        raise FileNotFoundError("\n".join(["paths of this config are not there:", *lines]))
    return [path for _, path in folders]


def check_load_from(cfg: Any) -> None:
    """Checks that the checkpoint is there whose weights a run of a head begins with.

    Raises:
        FileNotFoundError: It is not.
    """
    for fault in _weights_faults(cfg, "load_from"):
        raise FileNotFoundError(f"{fault}. Next step: name a checkpoint that is there, or load_from=None")


def holds_image(folder: str, extensions: Sequence[str]) -> bool:
    """Whether a folder holds an image, by its name, or a link to a folder that may hold one."""
    endings = tuple(ending.lower() if ending.startswith(".") else f".{ending.lower()}" for ending in extensions)
    for parent, folders, files in os.walk(folder):
        if any(name.lower().endswith(endings) for name in files):
            return True
        if any(os.path.islink(os.path.join(parent, name)) for name in folders):
            return True
    return False


def _image_folders(cfg: Any, dataset: Any) -> Iterator[tuple[str, str]]:
    """Place in the config and path of every folder of images that a pre-training reads."""
    roots = dataset.get("data_root") or ()
    for root in [roots] if isinstance(roots, str | os.PathLike) else roots:
        yield "train_dataloader.dataset.data_root", os.fspath(root)
    for index, hook in enumerate(cfg.get("custom_hooks") or ()):
        for name in ("train_root", "val_root"):
            if hook.get(name):
                yield f"custom_hooks.{index}.{name}", os.fspath(hook[name])


def _folder_fault(path: str, extensions: Sequence[str]) -> str | None:
    if is_sharded(path):
        return None  # opened before the first step
    if not os.path.isdir(path):
        return "is a file, not a folder" if os.path.exists(path) else "does not exist"
    return None if holds_image(path, extensions) else f"holds no image ({', '.join(extensions)})"


def _weights_faults(cfg: Any, *places: str) -> Iterator[str]:
    for place in places:
        path = cfg
        for name in place.split("."):
            path = (path or {}).get(name)
        if isinstance(path, str | os.PathLike) and ":/" not in str(path) and not os.path.isfile(path):
            fault = "is a folder, not a file" if os.path.isdir(path) else "does not exist"
            yield f"{path} {fault}   ({place})"
