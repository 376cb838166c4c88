"""What TensorBoard, MLflow and Weights & Biases have written, read back; neither a server nor an account."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def events(folder: Path) -> tuple[dict, Any]:
    """Tag → its steps and values, of all files of one run; config among the texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (Path(folder) / "tensorboard").iterdir()
    read = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    scalars = {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    return scalars, read


def mlflow_runs(folder: Path) -> tuple[Any, list]:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    client = mlflow.MlflowClient(tracking_uri=(Path(folder) / "mlruns").absolute().as_uri())
    (experiment,) = (one for one in client.search_experiments() if one.name == "mst-transfer")
    return client, client.search_runs([experiment.experiment_id])


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records of a file of W&B's: a log in LevelDB's format, in blocks of 32 KiB, behind a header of 7 bytes."""
    content, place, record = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # padding
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        record, place = record + content[place + 7 : place + 7 + size], place + 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def wandb_rows(folder: Path) -> list[tuple[str, set, list[dict]]]:
    """Of each of W&B's files of a folder: its id, its config's keys, and the rows of its history."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(Path(folder).glob("wandb/offline-run-*/*.wandb")):
        name, keys, rows = file.stem.removeprefix("run-"), set(), []  # W&B names the file by the id
        for data in wandb_records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            keys |= {one.key for one in (*record.run.config.update, *record.config.update)}
            if record.history.item:
                words = (("/".join(one.nested_key) or one.key, one.value_json) for one in record.history.item)
                rows.append({key: json.loads(value) for key, value in words})
        found.append((name, keys, rows))
    return found
