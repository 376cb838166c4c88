"""Whether two runs are the same: their checkpoints and their logs, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

TIMES = {"time", "data_time", "eta", "memory", "images_per_s", "data_share"}  # of the machine, not of the run
# Beside these mmengine's hub has "iter" and "epoch": those of the newest hook call, while meta has those of the run
KEPT = ("keep_ckpt_ids", "best_score", "newest_validation", "exact_resume")


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    """Tensors, arrays and plain values of a nested state, and the places of its empty containers."""
    if not isinstance(node, dict | list | tuple) or not node:
        return {path: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return {name: leaf for key, value in items for name, leaf in leaves(value, f"{path}.{key}").items()}


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
    ours, theirs = leaves(state(resumed / last)), leaves(state(whole / last))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    expected, rows = logged(whole), logged(resumed)
    assert rows.keys() == expected.keys() if all_rows else rows.keys() <= expected.keys()
    for name, found in rows.items():
        for row in found:
            assert row == expected[name][0], name
    return sum(len(found) for found in rows.values())
