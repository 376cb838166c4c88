"""The plan of a card: what is measured, in which jobs, by which protocol; fixed before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.tasks import CLASSIFICATION, DETECTION, Recipe, Task, load_task_config
from mst_transfer.files.atomic_files import write_text_atomically

VERSION = 1
FILE = "plan.json"
DENSE, IMAGE = ("dense_knn", "dense_linear"), ("knn", "linear")
PROBES, HEAD = "probes", "head"


@dataclass(frozen=True)
class Options:
    """What a command asks for.

    Attributes:
        labels: numbers of labelled training images, or shares in per cent of them, as texts.
        seeds: of label subsets, heads and random weights.
        tune: names of recipes to train; ``first``: each task's first, ``all``.
        tune_seeds: of heads.
        probes: whether probes run.
        factors: of the recipes' learning rates.
        primary: protocol, or protocol@labels, that a task's verdict rests on; empty: see :func:`primary_of`.
        max_side: longer side in pixels of images for dense probes.
        num_blocks: last blocks whose patch tokens the dense linear probe sees.
        dtype: of stored features.
    """

    labels: tuple[str, ...] = ("100%",)
    seeds: tuple[int, ...] = (0, 1, 2)
    tune: tuple[str, ...] = ()
    tune_seeds: tuple[int, ...] = (0, 1, 2)
    probes: bool = True
    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    primary: str = ""
    max_side: int = 512
    num_blocks: int = 1
    dtype: str = "float32"


@dataclass(frozen=True)
class Job:
    """One process of a card, which leaves ``jobs/<id>/result.json``."""

    id: str
    kind: str
    checkpoint: str
    task: str
    seeds: tuple[int, ...]
    labels: tuple[str, ...]
    recipe: str = ""


@dataclass(frozen=True)
class Plan:
    """All of a card; a job needs no more than this and its id."""

    options: Options
    checkpoints: tuple[Checkpoint, ...]
    tasks: tuple[Task, ...]
    digests: Mapping[str, str]
    multiple: int
    recipes: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[Job, ...] = ()
    pool: tuple[str, ...] = ()
    command: str = ""

    def task(self, name: str) -> Task:
        """A task by its name."""
        return next(task for task in self.tasks if task.name == name)

    def checkpoint(self, name: str) -> Checkpoint:
        """A checkpoint by its name."""
        return next(one for one in self.checkpoints if one.name == name)

    def pairs(self) -> list[tuple[str, str]]:
        """Which checkpoints are compared: all with each other; ``random`` is never the first of a pair."""
        names = [one.name for one in sorted(self.checkpoints, key=lambda one: one.is_random)]
        return list(combinations(names, 2))

    def protocol(self) -> dict[str, Any]:
        """What another card must have in common to be comparable with this one."""
        chosen = asdict(self.options)
        return dict(version=VERSION, multiple=self.multiple, options=chosen, data=self.digests, recipes=self.recipes)


def recipe_digests(tasks: Sequence[Task], tune: Sequence[str]) -> dict[str, str]:
    """Task and head → digest of the head's config as it would train, without its backbone and folders."""
    found = {}
    for task in tasks:
        for recipe in wanted_recipes(task, tune):
            cfg = load_task_config(task, recipe)
            parts = {name: cfg.get(name) for name in ("model", "optim_wrapper", "param_scheduler", "train_cfg")}
            parts["batch"] = cfg.train_dataloader.batch_size
            parts["model"] = {name: part for name, part in parts["model"].items() if name != "backbone"}
            found[f"{task.name} {recipe.name}"] = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return found


def wanted_recipes(task: Task, tune: Sequence[str]) -> list[Recipe]:
    """The heads of a task that are to be trained."""
    if not tune or not task.recipes:
        return []
    first = task.recipes[0]
    return [one for one in task.recipes if {"all", one.name} & set(tune) or ("first" in tune and one == first)]


def protocols_of(task: Task, options: Options) -> list[str]:
    """All that is measured on a task: probes, then heads."""
    probes = IMAGE if task.kind == CLASSIFICATION else DENSE if task.dense else ()
    return [*(probes if options.probes else ()), *(recipe.name for recipe in wanted_recipes(task, options.tune))]


def primary_of(task: Task, options: Options) -> tuple[str, str, str]:
    """Metric, protocol and labels that the verdict on a task rests on.

    As ``--primary`` says; else the first protocol (dense k-NN, of images k-NN, without probes the first head), with the
    first of the labels.
    """
    protocol, _, labels = options.primary.partition("@")
    protocol = protocol or protocols_of(task, options)[0]
    metric = "top-1" if protocol in IMAGE else "mIoU" if task.kind != DETECTION or protocol in DENSE else "mask mAP"
    return metric, protocol, labels or options.labels[0]


def make_jobs(plan: Plan) -> list[Job]:
    """All jobs: probes first, then heads, seed by seed."""
    options, jobs = plan.options, []
    for task in plan.tasks:
        for checkpoint in plan.checkpoints if {*DENSE, *IMAGE} & set(protocols_of(task, options)) else ():
            for seeds in [(seed,) for seed in options.seeds] if checkpoint.is_random else [options.seeds]:
                jobs.append(_job(plan, PROBES, checkpoint, task, seeds, options.labels))
    for seed in options.tune_seeds:
        for task in plan.tasks:
            for recipe in wanted_recipes(task, options.tune):
                for labels in options.labels:
                    for checkpoint in plan.checkpoints:
                        jobs.append(_job(plan, HEAD, checkpoint, task, (seed,), (labels,), recipe.name))
    return jobs


def _job(
    plan: Plan,
    kind: str,
    checkpoint: Checkpoint,
    task: Task,
    seeds: tuple[int, ...],
    labels: tuple[str, ...],
    recipe: str = "",
) -> Job:
    """A job whose id ends in a digest of all that its outcome depends on: changed, it is another job."""
    options = plan.options
    chosen = options.factors if recipe else [options.max_side, options.num_blocks, options.dtype]
    depends = [VERSION, checkpoint.sha256, checkpoint.arch, dict(checkpoint.arch_kwargs), plan.digests[task.name]]
    depends += [seeds, labels, chosen, plan.recipes.get(f"{task.name} {recipe}", ""), plan.multiple]
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:8]
    words = [checkpoint.name, task.name, recipe or kind, *(labels if recipe else ())]
    words += [f"seed{seed}" for seed in seeds if len(seeds) == 1]
    name = "-".join([re.sub(r"[^\w.]+", "_", word.replace("%", "pc")) for word in words] + [digest])
    return Job(name, kind, checkpoint.name, task.name, seeds, labels, recipe)


def write_plan(plan: Plan, folder: Path) -> None:
    """Writes ``plan.json``."""
    write_text_atomically(folder / FILE, json.dumps(asdict(plan), indent=2, default=str) + "\n")


def read_plan(folder: Path) -> Plan:
    """Reads ``plan.json``.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no {FILE}: it is no folder of mst evaluate --out")
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    for task in content["tasks"]:
        task["recipes"] = tuple(Recipe(**recipe) for recipe in task["recipes"])
    kinds: dict[str, Any] = dict(tasks=Task, checkpoints=Checkpoint, jobs=Job)
    lists: dict[str, Any] = {
        name: tuple(kind(**_tuples(one)) for one in content.pop(name)) for name, kind in kinds.items()
    }
    return Plan(Options(**_tuples(content.pop("options"))), **lists, **_tuples(content))


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
