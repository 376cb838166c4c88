"""Reads what runs have left in their folders; draws and computes nothing.

::

    OUT/stages.tsv                      name, minutes and command of each stage, if a script ran them
    OUT/pretrain/                       teacher.safetensors, pictures/index.json, */vis_data/scalars.json
    OUT/det_<start>/, OUT/seg_<start>/  results.json, *.py, last_checkpoint, */vis_data/scalars.json

``<start>`` names where a backbone's weights came from: ``mst``, ``random``, or any other name that is there.
What is not there is listed with the command that makes it.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_transfer.engine.results import RESUMED_BACKBONE
from mst_transfer.report.scalars import Scalars, read_scalars
from mst_transfer.runs.work_dir import earlier_checkpoints

TASKS: dict[str, str] = {"det": "detection", "seg": "segmentation"}
STARTS: dict[str, str] = {"mst": "MST", "random": "random"}


@dataclass(frozen=True)
class Missing:
    """Something that the report would have shown.

    Attributes:
        path: where it would be.
        command: what makes it.
        reason: "not there", or why what is there cannot be used.
    """

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
        config: the config that the run used.
        checkpoint: the last checkpoint.
        load_report: what the log says of the backbone's weights.
    """

    folder: Path
    task: str
    start: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    scalars: Scalars = Scalars()
    config: Path | None = None
    checkpoint: Path | None = None
    load_report: str = ""

    @property
    def label(self) -> str:
        """The start's name for readers."""
        return STARTS.get(self.start, self.start)

    def metric(self, name: str) -> float | None:
        """A metric of the last evaluation, None if it was not measured."""
        value = self.results.get("metrics", {}).get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Picture:
    """A picture that is there already, with its words."""

    path: Path
    title: str
    caption: str


@dataclass(frozen=True)
class Stage:
    """One command of the script that made the runs."""

    name: str
    minutes: float
    command: str


@dataclass(frozen=True)
class Collected:
    """Everything found under one output folder.

    Attributes:
        out: the folder.
        pretrain: the pre-training run, None if its folder is missing.
        runs: fine-tuning runs by task, in the order of their starts.
        pictures: pictures that the pre-training left.
        stages: commands of the script that made the runs, if one did.
        missing: what was looked for in vain.
    """

    out: Path
    pretrain: Run | None
    runs: dict[str, list[Run]]
    pictures: list[Picture]
    stages: list[Stage]
    missing: list[Missing]


def collect(out: str | Path) -> Collected:
    """Read the runs under ``out``.

    Raises:
        FileNotFoundError: ``out`` has none of the folders that this reads.
    """
    out = Path(out)
    missing: list[Missing] = []
    starts = [*STARTS, *_other_starts(out)]
    if not any((out / name).is_dir() for name in ["pretrain", *(f"{t}_{s}" for t in TASKS for s in starts)]):
        raise FileNotFoundError(
            f"{out} has none of the folders pretrain/, det_mst/, det_random/, seg_mst/, seg_random/; "
            f"they are made by: bash tools/quickstart.sh --out {out}"
        )
    pretrain = None
    folder = out / "pretrain"
    command = f"bash tools/pretrain.sh CONFIG 1 --work-dir {folder}{_going_on(folder)}"
    if folder.is_dir():
        pretrain = _read_run(folder, "pretrain", "", missing, command)
    else:
        missing.append(Missing(folder, command))
    runs: dict[str, list[Run]] = {task: [] for task in TASKS}
    for task in TASKS:
        for start in starts:
            folder = out / f"{task}_{start}"
            command = f"mst train CONFIG --work-dir {folder}{_going_on(folder)}"
            if folder.is_dir():
                runs[task].append(_read_run(folder, task, start, missing, command))
            elif start in STARTS:
                weights = out / "pretrain" / "teacher.safetensors" if start == "mst" else None
                missing.append(Missing(folder, f"{command} --cfg-options model.backbone.checkpoint={weights}"))
    return Collected(out, pretrain, runs, _read_pictures(out, missing), _read_stages(out), missing)


def _going_on(folder: Path) -> str:
    """The option with which a command goes on among a run's checkpoints, which it would refuse to without."""
    return " --resume" if earlier_checkpoints(folder) else ""


def _other_starts(out: Path) -> list[str]:
    names = {path.name.split("_", 1)[1] for task in TASKS for path in out.glob(f"{task}_*") if path.is_dir()}
    return sorted(names - STARTS.keys())


def _read_run(folder: Path, task: str, start: str, missing: list[Missing], command: str) -> Run:
    if task == "pretrain":
        results = _read_provenance(folder / "teacher.safetensors", missing, command)
    else:
        results = _read_results(folder / "results.json", missing, command)
    scalars = read_scalars(folder)
    if not scalars.train:
        missing.append(Missing(folder / "<time>" / "vis_data" / "scalars.json", command))
    configs = sorted(folder.glob("*.py"), key=lambda path: path.stat().st_mtime)
    checkpoint = _last_checkpoint(folder)
    if task != "pretrain":
        if not configs:
            missing.append(Missing(folder / "<config>.py", command))
        if checkpoint is None:
            missing.append(Missing(folder / "last_checkpoint", command))
    config = configs[-1] if configs else None
    return Run(folder, task, start, results, scalars, config, checkpoint, _read_load_report(folder))


def _read_results(path: Path, missing: list[Missing], command: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(Missing(path, command))
        return {}
    except (ValueError, RecursionError) as error:
        missing.append(Missing(path, command, f"not JSON ({error})"))
        return {}
    if not isinstance(content, dict):
        missing.append(Missing(path, command, "not a JSON object"))
        return {}
    return content


def _read_provenance(path: Path, missing: list[Missing], command: str) -> dict[str, Any]:
    """What a backbone file says of the pre-training that made it."""
    from mst_transfer.checkpoint import read_backbone

    if not path.is_file():
        missing.append(Missing(path, command))
        return {}
    try:
        metadata = read_backbone(path, "teacher")[1]
    except ValueError as error:
        missing.append(Missing(path, command, f"not readable ({error})"))
        return {}
    if metadata is None:
        missing.append(Missing(path, command, "not a backbone file of this project"))
        return {}
    architecture = {"architecture": metadata.arch, **metadata.arch_kwargs}
    return {**metadata.provenance, "backbone": architecture, "checkpoint": path.name}


def _read_load_report(folder: Path) -> str:
    """The lines of the newest log that say where the backbone's weights came from."""
    for path in sorted(folder.glob("*/*.log"), reverse=True):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if any(RESUMED_BACKBONE in line for line in lines):
            continue  # the log of the run's beginning says it
        for number, line in enumerate(lines):
            if "random initialisation" in line:
                return "random initialisation"
            if "backbone weights from" in line:
                counts = itertools.takewhile(lambda text: text.startswith("  "), lines[number + 1 :])
                return "\n".join([line[line.index("backbone weights from") :], *counts])
    return ""


def _read_stages(out: Path) -> list[Stage]:
    path = out / "stages.tsv"
    if not path.is_file():
        return []
    stages = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if len(fields) == 3 and fields[1].replace(".", "", 1).isdigit():
            stages.append(Stage(fields[0], float(fields[1]), fields[2]))
    return stages


def _last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that mmengine's ``last_checkpoint`` names, also after the folder has moved."""
    pointer = folder / "last_checkpoint"
    if pointer.is_file():
        named = Path(pointer.read_text(encoding="utf-8").strip())
        for path in (folder / named.name, named):
            if path.is_file():
                return path
    return None


def _read_pictures(out: Path, missing: list[Missing]) -> list[Picture]:
    """Pictures of the pre-training, as its ``index.json`` lists them: ``[{file, title, caption}, ...]``."""
    folder = out / "pretrain" / "pictures"
    command = f"python -m pretrain.pictures {out / 'pretrain'} --images PHOTOS --out {folder}"
    index = folder / "index.json"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(Missing(index, command))
        return []
    except (ValueError, RecursionError) as error:
        missing.append(Missing(index, command, f"not JSON ({error})"))
        return []
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("file"), str) for e in entries
    ):
        missing.append(Missing(index, command, "not a list of {file, title, caption}"))
        return []
    pictures = []
    for entry in entries:
        path = folder / Path(entry["file"]).name
        if path.is_file():
            pictures.append(Picture(path, str(entry.get("title", path.stem)), str(entry.get("caption", ""))))
        else:
            missing.append(Missing(path, command))
    return pictures
