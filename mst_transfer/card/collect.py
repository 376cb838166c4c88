"""Gathers outcomes into ``card.json``: figures, differences, verdicts, and what they rest on."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.card.leakage import Leakage
from mst_transfer.card.measures import Measure
from mst_transfer.card.outcomes import load_outcomes, read_result
from mst_transfer.card.plan import Plan, primary_of
from mst_transfer.card.run_jobs import LOG, command_of, job_folder
from mst_transfer.card.statistics import Difference, compare, holm, interval, sentence
from mst_transfer.card.task_data import TaskData
from mst_transfer.engine.results import hardware, package_versions
from mst_transfer.files.atomic_files import write_text_atomically

FILE = "card.json"
_DIGITS = 3
Comparison = tuple[str, str, str, str]  # task, metric, protocol, labels
Outcomes = Mapping[Comparison, Mapping[str, Mapping[int, Measure]]]  # … → checkpoint → seed


def collect(
    folder: Path,
    plan: Plan,
    data: Mapping[str, TaskData],
    groups: Mapping[str, NDArray | None],
    leaks: Mapping[str, Leakage],
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """Makes the content of ``card.json`` of what is there.

    Args:
        folder: of the card.
        plan: its plan.
        data: of each task.
        groups: of each task, what :func:`mst_transfer.card.tasks.sequences` gives.
        leaks: of tasks whose leaked validation images are left out.
        failed: ids of jobs that failed in this call.
    """
    found: dict[Comparison, dict[str, dict[int, Measure]]] = defaultdict(lambda: defaultdict(dict))
    keep = {
        name: np.array([image.path not in leaks[name].leaked for image in task.val])
        for name, task in data.items()
        if name in leaks
    }
    for job in plan.jobs:
        for key, measure in load_outcomes(job_folder(folder, job)).items():
            kept = measure.only(keep[key.task]) if key.task in keep else measure
            found[key.task, key.metric, key.protocol, key.labels][key.checkpoint][key.seed] = kept
    groups = {name: one if one is None or name not in keep else one[keep[name]] for name, one in groups.items()}
    ordered: Outcomes = {one: found[one] for one in sorted(found, key=lambda one: _order(plan, one))}
    protocol = {**plan.protocol(), "left_out": {name: int((~kept).sum()) for name, kept in keep.items()}}
    return {
        "version": 1,
        "protocol_hash": hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest(),
        "protocol": protocol,
        "command": plan.command,
        "checkpoints": [asdict(one) for one in plan.checkpoints],
        "rows": list(_rows(plan, ordered, data, groups)),
        "differences": _differences(plan, ordered, groups),
        "jobs": [_job(folder, job, failed) for job in plan.jobs],
        "environment": {"hardware": hardware(), **package_versions()},
    }


def _order(plan: Plan, one: Comparison) -> tuple:
    task, metric, protocol, labels = one
    tasks, amounts = [task.name for task in plan.tasks], plan.options.labels
    return tasks.index(task), protocol, metric, amounts.index(labels) if labels in amounts else len(amounts)


def _rows(plan: Plan, outcomes: Outcomes, data: Mapping[str, TaskData], groups: Mapping) -> Iterator[dict[str, Any]]:
    for (task, metric, protocol, labels), by_checkpoint in outcomes.items():
        for checkpoint in plan.checkpoints:
            measures = by_checkpoint.get(checkpoint.name)
            if not measures:
                continue
            seeds = sorted(measures)
            figure = interval([measures[seed] for seed in seeds], groups[task])
            row: dict[str, Any] = dict(
                task=task, metric=metric, protocol=protocol, labels=labels, checkpoint=checkpoint.name, seeds=seeds
            )
            row |= dict(per_seed=_rounded(figure.per_seed), value=_rounded(figure.value))
            row |= dict(ci95=_rounded((figure.low, figure.high)), num_images=figure.num_images)
            each = [measures[seed].per_class() for seed in seeds]
            if len(each[0]) > 1:
                names = data[task].classes if metric == "mIoU" else data[task].objects
                means = [None if mean != mean else _rounded(mean) for mean in np.mean(each, axis=0)]
                row["per_class"] = dict(zip(names, means, strict=True))
            yield row


def _differences(plan: Plan, outcomes: Outcomes, groups: Mapping) -> list[dict[str, Any]]:
    """All pairs; of a task's primary measure with p-values by Holm, the others exploratory."""
    pairs, found = plan.pairs(), []
    for one, by_checkpoint in outcomes.items():
        task = plan.task(one[0])
        is_primary = (one[1], one[2], one[3]) == primary_of(task, plan.options)
        compared: list[tuple[str, str, Difference]] = []
        for a, b in pairs:
            seeds = sorted(set(by_checkpoint.get(a, {})) & set(by_checkpoint.get(b, {})))
            if seeds:
                left, right = ([by_checkpoint[name][seed] for seed in seeds] for name in (a, b))
                compared.append((a, b, compare(left, right, groups[task.name], len(pairs) if is_primary else 1)))
        adjusted = holm([difference.p_value for _, _, difference in compared]) if is_primary else [None] * len(compared)
        for (a, b, difference), p_value in zip(compared, adjusted, strict=True):
            found.append(_difference(one, a, b, difference, p_value))
    return sorted(found, key=lambda entry: not entry["primary"])


def _difference(one: Comparison, a: str, b: str, difference: Difference, adjusted: float | None) -> dict[str, Any]:
    return {
        **dict(zip(("task", "metric", "protocol", "labels"), one, strict=True)),
        "a": a,
        "b": b,
        "difference": _rounded(difference.value),
        "ci95": _rounded((difference.low, difference.high)),
        "adjusted": None if adjusted is None else round(adjusted, 6),
        "primary": adjusted is not None,
        "detectable": _rounded(difference.detectable),
        "verdict": sentence(difference, adjusted),
    }


def _job(folder: Path, job: Any, failed: Sequence[str]) -> dict[str, Any]:
    result = read_result(job_folder(folder, job))
    log = job_folder(folder, job) / LOG
    status = "done" if result else "failed" if job.id in failed else "not run"
    command = " ".join(["mst", *command_of(folder, job)[3:]])
    entry = dict(id=job.id, command=command, status=status, minutes=result.get("minutes"))
    if status == "failed" and log.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        entry["error"] = "\n".join(lines[-5:])
    return entry


def _rounded(value: Any) -> Any:
    return [_rounded(one) for one in value] if isinstance(value, tuple) else round(float(value), _DIGITS)


def write_card(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes ``card.json``."""
    write_text_atomically(folder / FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
