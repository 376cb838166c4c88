"""Are the folders and files of a dataset there? All that are missing are named at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mst_transfer.configs.paths import DATA_ROOT_VARIABLE, data_root_now, how_to_get, set_folder
from mst_transfer.preflight.findings import Finding


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
    paths = [dataset_path(dataset, part) for part in parts if isinstance(part, str) and part]
    return [] if dataset.get("backend_args") or any("://" in path for path in paths) else paths


class MissingPaths:
    """Collects what is missing over all datasets of a config."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._roots: list[str] = []
        self._places: list[str] = []

    def look(self, place: str, dataset: Mapping[str, Any]) -> bool:
        """Notes the missing paths of one dataset that stands at ``place`` in the config; whether there are any."""
        absent = [path for path in list_paths(dataset) if not os.path.exists(path)]
        self._lines += [f"  {path}   ({place})" for path in absent]
        root = str(dataset.get("data_root") or "")
        if absent and root not in self._roots:
            self._roots.append(root)
        if absent:
            self._places.append(place)
        return bool(absent)

    def any_of(self, loader: str) -> bool:
        """Whether paths of a dataset of that loader are missing."""
        return any(place.startswith(f"{loader}.") for place in self._places)

    def findings(self) -> Iterator[Finding]:
        """One that names every missing path, and how to get or name the data; none if all are there."""
        if not self._lines:
            return
        holders = ", ".join(f"{set_folder(root)[1].name}/" for root in self._roots)
        advice = how_to_get(self._roots)
        advice.append(
            f"- data elsewhere: export {DATA_ROOT_VARIABLE}=FOLDER, the folder that holds {holders} ({data_root_now()})"
        )
        advice.append(
            "- or --cfg-options train_dataloader.dataset.data_root=… and the same for val and test; where the "
            "config sets them, val_evaluator.ann_file=… and test_evaluator.ann_file=… too"
        )
        text = "the data of this config are not there:\n" + "\n".join(self._lines) + "\n" + "\n".join(advice)
        yield Finding(text, missing_file=True)
