"""Outcomes of jobs as files: arrays of an ``.npz``, with what they are of in its name and its header."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mst_transfer.card.measures import Measure, measure_from
from mst_transfer.files.atomic_files import write_atomically, write_text_atomically

RESULT = "result.json"


@dataclass(frozen=True)
class Key:
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
    header = np.frombuffer(json.dumps({**asdict(key), "kind": measure.kind}).encode(), np.uint8)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = measure.arrays()
    np.savez_compressed(buffer, header=header, **arrays)
    write_atomically(folder / f"{name}.npz", lambda path: Path(path).write_bytes(buffer.getvalue()))


def load_outcomes(folder: Path) -> dict[Key, Measure]:
    """Reads what a job has left."""
    found = {}
    for path in sorted(folder.glob("*-*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            kind = header.pop("kind")
            content = {name: arrays[name] for name in arrays.files if name != "header"}
            found[Key(**header)] = measure_from(kind, content)
    return found


def write_result(folder: Path, **entries: Any) -> None:
    """Writes ``result.json``: the job is done."""
    write_text_atomically(folder / RESULT, json.dumps(entries, indent=2) + "\n")


def read_result(folder: Path) -> Mapping[str, Any]:
    """Reads ``result.json``; empty if the job is not done."""
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
