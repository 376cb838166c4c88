"""Checks that folders, files and images of a dataset are on the disk, and as large as its annotations say."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mst_transfer.configs.paths import DATA_ROOT_VARIABLE, data_root_now, how_to_get, set_folder
from mst_transfer.files.image_files import MAX_PIXELS, UnreadableImageError, upright_size
from mst_transfer.preflight.findings import Finding
from mst_transfer.runs.progress import Progress

MAX_IMAGES = 200
MAX_SECONDS = 10.0


def dataset_path(dataset: Mapping[str, Any], relative: str) -> str:
    """A path of a dataset as mmengine joins it: below ``data_root`` unless absolute."""
    root = dataset.get("data_root") or ""
    return relative if os.path.isabs(relative) or "://" in relative else os.path.join(root, relative)


def leaves_folder(name: str) -> bool:
    """Whether a file's name, as an annotation gives it, leads out of the folder that it is to be in.

    Only the name counts: links that the user has put into a folder are followed.
    """
    return os.path.isabs(name) or "\0" in name or os.path.normpath(name).split(os.sep)[0] == os.pardir


def list_paths(dataset: Mapping[str, Any]) -> list[str]:
    """The annotation file and the folders that a dataset reads; empty for one on remote storage."""
    parts = [dataset.get("ann_file") or "", *(dataset.get("data_prefix") or {}).values()]
    texts = [part for part in parts if isinstance(part, str) and part]  # MaskPairs has patterns: with {}
    folders = (os.path.dirname(part.partition("{}")[0]) if "{}" in part else part for part in texts)
    paths = [dataset_path(dataset, part) for part in folders]
    return [] if dataset.get("backend_args") or any("://" in path for path in paths) else paths


def absent_paths(dataset: Mapping[str, Any]) -> list[str]:
    """Those of a dataset's files and folders that are not there."""
    return [path for path in list_paths(dataset) if not os.path.exists(path)]


def missing_data(absent: Mapping[str, tuple[str, Sequence[str]]]) -> Iterator[Finding]:
    """One finding that names every missing path, and how to get or name the data; none if all are there.

    ``absent``: place of a dataset in the config → its ``data_root`` and its missing paths.
    """
    lines = [f"  {path}   ({place})" for place, (_, paths) in absent.items() for path in paths]
    if not lines:
        return
    roots = list(dict.fromkeys(root for root, paths in absent.values() if paths))
    holders = ", ".join(f"{set_folder(root)[1].name}/" for root in roots)
    advice = [
        *how_to_get(roots),
        f"- data elsewhere: export {DATA_ROOT_VARIABLE}=FOLDER, the folder that holds {holders} ({data_root_now()})",
        "- or --cfg-options train_dataloader.dataset.data_root=… and the same for val and test; where the "
        "config sets them, val_evaluator.ann_file=… and test_evaluator.ann_file=… too",
    ]
    yield Finding("\n".join(["the data of this config are not there:", *lines, *advice]), missing_file=True)


def missing_files(paths: Sequence[str]) -> list[str]:
    """Those of the paths that are no files; lists each folder once instead of asking for every file."""
    folders: dict[str, set[str]] = {}
    absent = []
    progress = Progress("checking that files exist:", len(paths))
    for number, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in folders:
            try:
                with os.scandir(folder or ".") as entries:
                    folders[folder] = {entry.name for entry in entries if entry.is_file()}
            except OSError:
                folders[folder] = set()
            progress(number)
        if name not in folders[folder] and not os.path.isfile(path):
            absent.append(path)
    return absent


def image_size(path: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height as mmcv reads the image: turned as its EXIF data say. Reads the header only.

    Raises:
        ValueError: if it cannot be read, or declares more pixels than allowed.
    """
    try:
        height, width = upright_size(path, max_pixels)
        return width, height
    except UnreadableImageError as error:
        raise ValueError(f"{error}; write it again, or remove it") from error


def check_sizes(
    paths: Sequence[str], sizes: Sequence[tuple[float, float]], max_pixels: int = MAX_PIXELS
) -> Iterator[Finding]:
    """Compares some image files, evenly spaced, with the widths and heights that the annotations give."""
    step = max(-(-len(paths) // MAX_IMAGES), 1)
    started, read, wrong, broken = time.monotonic(), 0, [], []
    for path, (width, height) in list(zip(paths, sizes, strict=True))[::step]:
        read += 1
        try:
            found = image_size(path, max_pixels)
        except ValueError as error:
            broken.append(str(error))
        else:
            if found != (width, height):
                turned = found == (height, width)
                hint = " (width and height exchanged, or the EXIF turn of the photo left out)" if turned else ""
                wrong.append(f"{path} is {found[0]} × {found[1]}, not {width:g} × {height:g}{hint}")
        if time.monotonic() - started > MAX_SECONDS:
            break
    if broken:
        yield Finding(f"{len(broken)} of {read} images that were looked at are broken: {broken[0]}")
    if wrong:
        yield Finding(
            f"{len(wrong)} of {read} images that were looked at are of another size than the annotations say: "
            f"{'; '.join(wrong[:3])}. Boxes and masks would lie elsewhere: scale the annotations to the files"
        )
