"""Gathers outcomes into the content of ``card.json``: figures, differences, verdicts, and what they rest on."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mst_transfer.card.leakage import Leakage
from mst_transfer.card.measures import Measure, digest_of
from mst_transfer.card.outcomes import load_outcomes, read_result
from mst_transfer.card.plan import Job, Plan, job_folder, primary_of
from mst_transfer.card.run_jobs import LOG, command_of
from mst_transfer.card.statistics import compare, holm, interval, sentence
from mst_transfer.card.task_data import TaskData
from mst_transfer.engine.results import hardware, package_versions

_DIGITS = 6


class Comparison(NamedTuple):
    """What figures agree in that are compared."""

    task: str
    metric: str
    protocol: str
    labels: str


Outcomes = Mapping[Comparison, Mapping[str, Mapping[int, Measure]]]  # … → checkpoint → seed
Groups = Mapping[str, NDArray | None]


def collect(
    folder: Path,
    plan: Plan,
    data: Mapping[str, TaskData],
    groups: Groups,
    leaks: Mapping[str, Leakage],
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """Makes the content of ``card.json`` of what is there.

    By task: its data, the sequences of its validation images, and, if those that leaked are left out, what leaked.
    ``failed``: ids of jobs that failed in this call.
    """
    found: dict[Comparison, dict[str, dict[int, Measure]]] = defaultdict(lambda: defaultdict(dict))
    keep = {
        name: np.array([path not in leakage.leaked for path in data[name].val_paths]) for name, leakage in leaks.items()
    }
    for job in plan.jobs:
        for key, measure in load_outcomes(job_folder(folder, job)).items():
            kept = measure.only(keep[key.task]) if key.task in keep else measure
            found[Comparison(*key[:4])][key.checkpoint][key.seed] = kept
    groups = {name: one if one is None or name not in keep else one[keep[name]] for name, one in groups.items()}
    ordered = {one: found[one] for one in sorted(found, key=lambda one: _order(plan, one))}
    left_out = {}
    for name, of_task in keep.items():
        paths = [path for path, stays in zip(data[name].val_paths, of_task, strict=True) if not stays]
        left_out[name] = dict(images=len(paths), which=digest_of(map(os.path.basename, paths)))
    protocol = {**plan.protocol(), "left_out": left_out}
    environments = [read_result(job_folder(folder, job)).get("environment") for job in plan.jobs]
    environment = next(filter(None, environments), {"hardware": hardware(), **package_versions()})
    return {
        "version": 1,
        "protocol_hash": hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest(),
        "protocol": protocol,
        "command": plan.command,
        "checkpoints": [asdict(one) for one in plan.checkpoints],
        "rows": list(_rows(plan, ordered, data, groups)),
        "differences": sorted(_differences(plan, ordered, groups), key=lambda entry: not entry["primary"]),
        "jobs": [_job(folder, job, failed, environment) for job in plan.jobs],
        "environment": environment,
    }


def _order(plan: Plan, one: Comparison) -> tuple:
    tasks, amounts = [task.name for task in plan.tasks], plan.options.labels
    return tasks.index(one.task), one.protocol, one.metric, amounts.index(one.labels)


def _rows(plan: Plan, outcomes: Outcomes, data: Mapping[str, TaskData], groups: Groups) -> Iterator[dict[str, Any]]:
    for one, by_checkpoint in outcomes.items():
        for name in (checkpoint.name for checkpoint in plan.checkpoints if checkpoint.name in by_checkpoint):
            measures = dict(sorted(by_checkpoint[name].items()))
            figure = interval([*measures.values()], groups[one.task])
            row = {
                **one._asdict(),
                "checkpoint": name,
                "seeds": [*measures],
                "per_seed": _rounded(figure.per_seed),
                "value": _rounded(figure.value),
                "ci95": _rounded((figure.low, figure.high)),
                "num_images": figure.num_images,
            }
            if (group := groups[one.task]) is not None:
                row["num_groups"] = len(np.unique(group))
            each = [measure.per_class() for measure in measures.values()]
            if len(each[0]) > 1:
                names = data[one.task].classes if one.metric == "mIoU" else data[one.task].objects
                means = [None if np.isnan(mean) else _rounded(mean) for mean in np.mean(each, axis=0)]
                row["per_class"] = dict(zip(names, means, strict=True))
            yield row


def _differences(plan: Plan, outcomes: Outcomes, groups: Groups) -> Iterator[dict[str, Any]]:
    """All pairs; of a task's primary measure with p-values by Holm, the others exploratory."""
    pairs = plan.pairs()
    for one, by_checkpoint in outcomes.items():
        is_primary = one[1:] == primary_of(plan.task(one.task), plan.options)
        compared = {}
        for pair in pairs:
            first, second = (by_checkpoint.get(name, {}) for name in pair)
            if seeds := sorted(first.keys() & second.keys()):
                left, right = ([side[seed] for seed in seeds] for side in (first, second))
                compared[pair] = seeds, compare(left, right, groups[one.task], len(pairs) if is_primary else 1)
        missing = [1.0] * (len(pairs) - len(compared))  # planned, so judged together with the others
        p_values = holm([*(difference.p_value for _, difference in compared.values()), *missing])
        for ((a, b), (seeds, difference)), p_value in zip(compared.items(), p_values, strict=False):
            adjusted = p_value if is_primary else None
            yield {
                **one._asdict(),
                "a": a,
                "b": b,
                "seeds": seeds,
                "difference": _rounded(difference.value),
                "ci95": _rounded((difference.low, difference.high)),
                "adjusted": round(p_value, 6) if is_primary else None,
                "primary": is_primary,
                "detectable": _rounded(difference.detectable),
                "verdict": sentence(difference, adjusted),
            }


def _job(folder: Path, job: Job, failed: Sequence[str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """``usual``: the card's environment; what a job's has beside it is told with the job."""
    result, log = read_result(job_folder(folder, job)), job_folder(folder, job) / LOG
    status = "done" if result else "failed" if job.id in failed else "not run"
    command = " ".join(["mst", *command_of(folder, job)[3:]])
    entry = dict(id=job.id, command=command, status=status, minutes=result.get("minutes"))
    others = {name: value for name, value in result.get("environment", {}).items() if usual.get(name) != value}
    entry |= dict(environment=others) if others else {}
    if status == "failed" and log.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        entry["error"] = "\n".join(lines[-5:])
    return entry


def _rounded(value: Any) -> Any:
    return [_rounded(one) for one in value] if isinstance(value, tuple) else round(float(value), _DIGITS)
