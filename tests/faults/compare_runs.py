"""Whether two runs are the same: their checkpoints and their logs, bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

TIMES = {"time", "data_time", "eta", "memory", "images_per_s", "data_share"}  # of the machine, not of the run
# Beside these mmengine's hub has "iter" and "epoch": those of the newest hook call, while meta has those of the run
KEPT = ("keep_ckpt_ids", "best_score", "newest_validation", "exact_resume")


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two nested states are not the same."""
    if isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            yield f"{path}: {sorted(map(str, ours.keys() ^ theirs.keys()))}"
        for key in ours.keys() & theirs.keys():
            yield from differences(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(theirs, list | tuple):
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} entries, {len(theirs)} expected"
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(mine, other, f"{path}.{index}")
    elif isinstance(theirs, torch.Tensor):
        if not torch.equal(ours, theirs):
            yield f"{path}: differs by {(ours.double() - theirs.double()).abs().max()}"
    elif isinstance(theirs, np.ndarray):
        if not np.array_equal(ours, theirs, equal_nan=True):
            yield path
    elif ours != theirs:
        yield f"{path}: {ours!r}, {theirs!r} expected"


def read(path: Path) -> dict[str, Any]:
    """A checkpoint."""
    from mst_transfer.compat import serialization

    serialization.install()  # allows what mmengine's checkpoints hold beside tensors
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def state(path: Path) -> dict[str, Any]:
    """What must be equal in two checkpoints: all but times, file names and the text of the config."""
    checkpoint = read(path)
    hub, meta = checkpoint.pop("message_hub"), checkpoint.pop("meta")
    histories = {name: history.data for name, history in hub["log_scalars"].items() if name.split("/")[-1] not in TIMES}
    info = {name: hub["runtime_info"][name] for name in KEPT if name in hub["runtime_info"]}
    return {**checkpoint, "histories": histories, "info": info, "meta": [meta["iter"], meta["epoch"], meta["seed"]]}


def logged(work_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of all logs by kind and step: those of iterations that were done again stand side by side."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that the run was killed in
            kind = "train" if "lr" in row else "val"
            rows.setdefault(f"{kind} {row['step']}", []).append({k: v for k, v in row.items() if k not in TIMES})
    return rows


def check_equal(whole: Path, resumed: Path, all_rows: bool = True) -> int:
    """Fails unless a resumed run has ended as the one in peace.

    Args:
        whole, resumed: their work dirs.
        all_rows: whether the resumed run's logs must tell of every iteration.

    Returns:
        How many rows of logs were compared.
    """
    last = Path((whole / "last_checkpoint").read_text()).name
    assert list(differences(state(resumed / last), state(whole / last))) == []
    expected, rows = logged(whole), logged(resumed)
    assert rows.keys() == expected.keys() if all_rows else rows.keys() <= expected.keys()
    for name, found in rows.items():
        for row in found:
            assert row == expected[name][0], name
    return sum(len(found) for found in rows.values())
