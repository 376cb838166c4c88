"""Outcomes of jobs as files: arrays of an ``.npz``, with what they are of in its name and its header."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mst_transfer.card.measures import Accuracy, MeanAP, MeanIoU, Measure
from mst_transfer.files.atomic_files import write_atomically, write_text_atomically

RESULT = "result.json"
MEASURES: dict[str, Any] = {cls.kind: cls for cls in (Accuracy, MeanIoU, MeanAP)}


class Key(NamedTuple):
    """What an outcome is of."""

    task: str
    metric: str
    protocol: str
    labels: str
    checkpoint: str
    seed: int


def save_outcome(folder: Path, key: Key, measure: Measure) -> None:
    """Writes an outcome into a job's folder."""
    name = "-".join(re.sub(r"[^\w.]+", "_", str(word)) for word in (key.metric, key.protocol, key.labels, key.seed))
    header = np.frombuffer(json.dumps({**key._asdict(), "kind": measure.kind}).encode(), np.uint8)
    arrays: dict[str, Any] = {part.name: np.asarray(getattr(measure, part.name)) for part in fields(measure)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=header, **arrays)
    write_atomically(folder / f"{name}.npz", lambda path: Path(path).write_bytes(buffer.getvalue()))


def load_outcomes(folder: Path) -> dict[Key, Measure]:
    """Reads what a job has left."""
    found = {}
    for path in sorted(folder.glob("*-*.npz")):
        with np.load(path, allow_pickle=False) as file:
            content = dict(file)
        header = json.loads(content.pop("header").tobytes())
        measure = MEASURES[header.pop("kind")]
        found[Key(**header)] = measure(**{**content, "digest": str(content["digest"])})
    return found


def write_result(folder: Path, **entries: Any) -> None:
    """Writes ``result.json``: the job is done."""
    write_text_atomically(folder / RESULT, json.dumps(entries, indent=2) + "\n")


def read_result(folder: Path) -> Mapping[str, Any]:
    """Reads ``result.json``; empty if the job is not done."""
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
