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

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_transfer.configs.saved import FILE, read_config_of_run
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
        config: the mmengine ``Config`` that the run used, None where there is none that may be read.
        checkpoint: the last checkpoint.
        load_report: what the log says of the backbone's weights.
    """

    folder: Path
    task: str
    start: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    scalars: Scalars = Scalars()
    config: Any = None
    checkpoint: Path | None = None
    load_report: str = ""

    @property
    def label(self) -> str:
        """The start's name for readers."""
        return STARTS.get(self.start, self.start)

    @property
    def title(self) -> str:
        """Task and start for readers."""
        return f"{TASKS[self.task].capitalize()} from {self.label}" if self.start else "Pre-training"

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

    @property
    def all_runs(self) -> list[Run]:
        """Pre-training first."""
        return [*([self.pretrain] if self.pretrain else []), *(run for runs in self.runs.values() for run in runs)]


def collect(out: str | Path, trust_config: bool = False) -> Collected:
    """Read the runs under ``out``.

    Args:
        out: the folder.
        trust_config: run the ``.py`` configs of the runs; else what they saved as data is read.

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
    reader = _Reader(missing, trust_config)
    if folder.is_dir():
        pretrain = reader.read_run(folder, "pretrain", "", command)
    else:
        missing.append(Missing(folder, command))
    runs: dict[str, list[Run]] = {task: [] for task in TASKS}
    for task, start in itertools.product(TASKS, starts):
        folder = out / f"{task}_{start}"
        command = f"mst train CONFIG --work-dir {folder}{_going_on(folder)}"
        if folder.is_dir():
            runs[task].append(reader.read_run(folder, task, start, command))
        elif start in STARTS:
            weights = out / "pretrain" / "teacher.safetensors" if start == "mst" else None
            missing.append(Missing(folder, f"{command} --cfg-options model.backbone.checkpoint={weights}"))
    return Collected(out, pretrain, runs, reader.read_pictures(out), _read_stages(out), missing)


def _going_on(folder: Path) -> str:
    """The option with which a command goes on among a run's checkpoints, which it would refuse to without."""
    return " --resume" if earlier_checkpoints(folder) else ""


def _other_starts(out: Path) -> list[str]:
    names = {path.name.split("_", 1)[1] for task in TASKS for path in out.glob(f"{task}_*") if path.is_dir()}
    return sorted(names - STARTS.keys())


@dataclass
class _Reader:
    """Reads files of runs; what cannot be used goes to ``missing``."""

    missing: list[Missing]
    trust_config: bool

    def read_run(self, folder: Path, task: str, start: str, command: str) -> Run:
        if task == "pretrain":
            results = self._provenance(folder / "teacher.safetensors", command)
        else:
            results = self._json(folder / "results.json", command, dict) or {}
        scalars = read_scalars(folder)
        if not scalars.train:
            self.missing.append(Missing(folder / "<time>" / "vis_data" / "scalars.json", command))
        config, checkpoint = self._config(folder, command), _last_checkpoint(folder)
        if task != "pretrain" and checkpoint is None:
            self.missing.append(Missing(folder / "last_checkpoint", command))
        return Run(folder, task, start, results, scalars, config, checkpoint, _read_load_report(folder))

    def _config(self, folder: Path, command: str) -> Any:
        try:
            return read_config_of_run(folder, self.trust_config)
        except FileNotFoundError:
            self.missing.append(Missing(folder / FILE, command))
        except ValueError as error:
            trusting = f"mst report {folder.parent} --trust-config"
            self.missing.append(Missing(folder / FILE, command if self.trust_config else trusting, str(error)))
        return None

    def _json(self, path: Path, command: str, kind: type) -> Any:
        """The content of a JSON file, None if it is not there or of another kind."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.missing.append(Missing(path, command))
            return None
        except (ValueError, RecursionError) as error:
            self.missing.append(Missing(path, command, f"not JSON ({error})"))
            return None
        if isinstance(content, kind):
            return content
        self.missing.append(Missing(path, command, f"not a JSON {'object' if kind is dict else 'list'}"))
        return None

    def _provenance(self, path: Path, command: str) -> dict[str, Any]:
        """What a backbone file says of the pre-training that made it."""
        from mst_transfer.checkpoint import read_backbone

        reason = "not a backbone file of this project"
        try:
            metadata = read_backbone(path, "teacher")[1] if path.is_file() else None
        except ValueError as error:
            metadata, reason = None, f"not readable ({error})"
        if metadata is None:
            self.missing.append(Missing(path, command, reason if path.is_file() else "not there"))
            return {}
        architecture = {"architecture": metadata.arch, **metadata.arch_kwargs}
        return {**metadata.provenance, "backbone": architecture, "checkpoint": path.name}

    def read_pictures(self, out: Path) -> list[Picture]:
        """Pictures of the pre-training, as its ``index.json`` lists them: ``[{file, title, caption}, ...]``."""
        folder = out / "pretrain" / "pictures"
        command = f"python -m pretrain.pictures {out / 'pretrain'} --images PHOTOS --out {folder}"
        entries = self._json(folder / "index.json", command, list) or []
        if not all(isinstance(entry, dict) and isinstance(entry.get("file"), str) for entry in entries):
            self.missing.append(Missing(folder / "index.json", command, "not a list of {file, title, caption}"))
            return []
        pictures = []
        for entry in entries:
            path = folder / Path(entry["file"]).name
            if path.is_file():
                pictures.append(Picture(path, str(entry.get("title", path.stem)), str(entry.get("caption", ""))))
            else:
                self.missing.append(Missing(path, command))
        return pictures


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
