"""Reads what runs have left in their folders; draws and computes nothing.

::

    OUT/stages.tsv                      name, minutes and command of each stage, if a script ran them
    OUT/pretrain/                       teacher.safetensors, run_config.json, pictures/index.json,
                                        */vis_data/scalars.json
    OUT/det_<start>/, OUT/seg_<start>/  results.json, run_config.json, last_checkpoint, */vis_data/scalars.json

``<start>`` names where a backbone's weights came from: ``mst``, ``random``, or any other name that is there.
What is not there is listed with the command that makes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mst_transfer.configs.saved import FILE, read_config_of_run
from mst_transfer.report.scalars import Scalars, read_scalars
from mst_transfer.runs.checkpoints import latest_checkpoint
from mst_transfer.runs.work_dir import earlier_checkpoints

TASKS: dict[str, str] = {"det": "detection", "seg": "segmentation"}
STARTS: dict[str, str] = {"mst": "MST", "random": "random"}


class Missing(NamedTuple):
    """Something that the report would have shown: where it would be, what makes it, and why it can't be used."""

    path: Path
    command: str
    reason: str = "not there"

    def __str__(self) -> str:
        return f"{self.reason}: {self.path}, made by: {self.command}"


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        folder: the run's work directory.
        task: "pretrain", "det" or "seg".
        start: key of :data:`STARTS`, or another name; "" for pre-training.
        results: content of ``results.json``, or what the backbone file of a pre-training says of itself;
            empty if it is missing.
        scalars: the log.
        config: the mmengine ``Config`` that the run used, None where there is none that may be read.
        checkpoint: the last checkpoint.
    """

    folder: Path
    task: str
    start: str
    results: dict[str, Any]
    scalars: Scalars
    config: Any
    checkpoint: Path | None

    @property
    def label(self) -> str:
        """The start's name for readers."""
        return STARTS.get(self.start, self.start)

    @property
    def title(self) -> str:
        """Task and start for readers."""
        return f"{TASKS[self.task].capitalize()} from {self.label}" if self.start else "Pre-training"


class Picture(NamedTuple):
    """A picture with its words."""

    path: Path
    title: str
    caption: str


class Collected(NamedTuple):
    """Everything found under one output folder.

    Attributes:
        out: the folder.
        runs: pre-training first, then by task in the order of their starts.
        pictures: pictures that the pre-training left.
        stages: name, minutes and command of what made the runs, if a script did.
        missing: what was looked for in vain.
    """

    out: Path
    runs: list[Run]
    pictures: list[Picture]
    stages: list[tuple[str, float, str]]
    missing: list[Missing]

    def of(self, task: str) -> list[Run]:
        """The runs of a task."""
        return [run for run in self.runs if run.task == task]


def collect(out: str | Path, trust_config: bool = False) -> Collected:
    """Read the runs under ``out``.

    Args:
        out: the folder.
        trust_config: run the ``.py`` configs of the runs; else what they saved as data is read.

    Raises:
        FileNotFoundError: ``out`` has none of the folders that this reads.
    """
    out, runs, missing = Path(out), [], list[Missing]()
    found = {path.name.split("_", 1)[1] for task in TASKS for path in out.glob(f"{task}_*") if path.is_dir()}
    starts = [*STARTS, *sorted(found - STARTS.keys())]
    for task, start in [("pretrain", ""), *((task, start) for task in TASKS for start in starts)]:
        folder = out / (f"{task}_{start}" if start else task)
        command = f"{'mst train CONFIG' if start else 'bash tools/pretrain.sh CONFIG 1'} --work-dir {folder}"
        if folder.is_dir():
            runs.append(_read_run(folder, task, start, command, missing, trust_config))
        elif start in ("", *STARTS):
            weights = {"mst": out / "pretrain" / "teacher.safetensors", "random": None}
            option = f" --cfg-options model.backbone.checkpoint={weights[start]}" if start else ""
            missing.append(Missing(folder, command + option))
    if not runs:
        raise FileNotFoundError(
            f"{out} has none of the folders pretrain/, det_mst/, det_random/, seg_mst/, seg_random/; "
            f"they are made by: bash tools/quickstart.sh --out {out}"
        )
    return Collected(out, runs, _read_pictures(out, missing), _read_stages(out / "stages.tsv"), missing)


def _read_run(folder: Path, task: str, start: str, command: str, missing: list[Missing], trust_config: bool) -> Run:
    """What a run has left; what cannot be used goes to ``missing``."""
    if earlier_checkpoints(folder):
        command += " --resume"  # it would refuse to begin anew among them
    results, config = {}, None
    path = folder / ("results.json" if start else "teacher.safetensors")
    try:
        results = _read_results(path) if start else _read_provenance(path)
    except (FileNotFoundError, ValueError, RecursionError) as error:
        missing.append(Missing(path, command, f"not readable ({error})" if path.is_file() else "not there"))
    scalars = read_scalars(folder)
    if not scalars.rows:
        missing.append(Missing(folder / "<time>" / "vis_data" / "scalars.json", command))
    try:
        config = read_config_of_run(folder, trust_config)
    except FileNotFoundError:
        missing.append(Missing(folder / FILE, command))
    except ValueError as error:
        trusting = f"mst report {folder.parent} --trust-config"
        missing.append(Missing(folder / FILE, command if trust_config else trusting, str(error)))
    checkpoint = latest_checkpoint(folder)
    if start and checkpoint is None:
        missing.append(Missing(folder / "last_checkpoint", command))
    return Run(folder, task, start, results, scalars, config, checkpoint)


def _read_results(path: Path) -> dict[str, Any]:
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict):
        raise ValueError("not a JSON object")
    return results


def _read_provenance(path: Path) -> dict[str, Any]:
    """What a backbone file says of the pre-training that made it."""
    from mst_transfer.checkpoint import read_backbone

    metadata = read_backbone(path, "teacher")[1]
    if metadata is None:
        raise ValueError("not a backbone file of this project")
    return {**metadata.provenance, "backbone": {"architecture": metadata.arch, **metadata.arch_kwargs}}


def _read_pictures(out: Path, missing: list[Missing]) -> list[Picture]:
    """Pictures of the pre-training, as its ``index.json`` lists them: ``[{file, title, caption}, ...]``."""
    folder = out / "pretrain" / "pictures"
    index = folder / "index.json"
    command = f"python -m pretrain.pictures {out / 'pretrain'} --images PHOTOS --out {folder}"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        pictures = [Picture(folder / Path(one["file"]).name, one["title"], one["caption"]) for one in entries]
    except FileNotFoundError:
        missing.append(Missing(index, command))
        return []
    except (ValueError, TypeError, KeyError, RecursionError):
        missing.append(Missing(index, command, "not a list of {file, title, caption}"))
        return []
    missing += [Missing(picture.path, command) for picture in pictures if not picture.path.is_file()]
    return [picture for picture in pictures if picture.path.is_file()]


def _read_stages(path: Path) -> list[tuple[str, float, str]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    fields = [line.split("\t") for line in lines]
    return [(one[0], float(one[1]), one[2]) for one in fields if len(one) == 3]
