"""The plan of a card: what is measured, in which jobs, by which protocol; fixed before anything runs."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.tasks import CLASSIFICATION, DETECTION, SEGMENTATION, Recipe, Task, load_task_config
from mst_transfer.configs.datasets import unwrap
from mst_transfer.engine.fit.backbone import SHAPE
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.probes.dense_probe import PROTOCOLS as DENSE

VERSION = 1
FILE = "plan.json"
IMAGE = ("knn", "linear")  # probes of class folders; of label maps: DENSE


@dataclass(frozen=True)
class Options:
    """What a command asks for."""

    labels: Sequence[str]  # numbers of labelled training images, or shares in per cent of them
    seeds: Sequence[int]  # of label subsets, heads and random weights
    tune: Sequence[str]  # names of recipes to train; "first": each task's first; "all"
    tune_seeds: Sequence[int]  # of heads
    probes: bool  # whether they run
    factors: Sequence[float]  # of the recipes' learning rates
    primary: str  # protocol, or protocol@labels, that a task's verdict rests on; empty: see primary_of
    max_side: int  # longer side in pixels of images for dense probes
    num_blocks: int  # last blocks whose patch tokens the dense linear probe sees
    dtype: str  # of stored features


@dataclass(frozen=True)
class Job:
    """One process of a card, which leaves ``jobs/<id>/result.json``."""

    id: str
    checkpoint: str
    task: str
    seeds: Sequence[int]
    labels: Sequence[str]
    recipe: str  # of a head; empty: probes
    choice: str  # folder of the choice of a head's learning rate, one for all seeds


@dataclass(frozen=True)
class Plan:
    """All of a card; a job needs no more than this and its id."""

    options: Options
    checkpoints: Sequence[Checkpoint]
    tasks: Sequence[Task]
    digests: Mapping[str, str]  # of each task's files
    multiple: int  # in pixels, of the sides of images for dense probes: what all patch sizes divide
    recipes: Mapping[str, str]  # see recipe_digests
    command: str
    jobs: Sequence[Job] = ()

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
        found = dict(version=VERSION, multiple=self.multiple, options=chosen, data=self.digests, recipes=self.recipes)
        found |= dict(groups={task.name: task.group for task in self.tasks if task.group})
        of_folders = any(task.kind == CLASSIFICATION for task in self.tasks)
        return found | (dict(image_size=self.image_size) if of_folders else {})

    @property
    def image_size(self) -> int:
        """Side in pixels of the views of class folders: the smallest of the checkpoints' own, in whole patches."""
        side = min(one.img_size for one in self.checkpoints)
        return max(1, round(side / self.multiple)) * self.multiple


def recipe_digests(tasks: Sequence[Task], tune: Sequence[str]) -> dict[str, str]:
    """Task and head → digest of the config as it would train, without its checkpoint, architecture and folders."""
    found = {}
    for task in tasks:
        for recipe in wanted_recipes(task, tune):
            cfg = load_task_config(task, recipe)
            named = ("model", "optim_wrapper", "param_scheduler", "train_cfg", "custom_hooks")
            parts = {name: cfg.get(name) for name in named}
            parts["batch"] = cfg.train_dataloader.batch_size
            of_checkpoint = ("checkpoint", "arch", *SHAPE)
            backbone = {name: part for name, part in cfg.model.backbone.items() if name not in of_checkpoint}
            parts["model"] = {**cfg.model, "backbone": backbone}
            datasets = [cfg.train_dataloader.dataset, cfg.val_dataloader.dataset]
            parts["pipelines"] = [[leaf["pipeline"] for _, leaf in unwrap("", dataset)] for dataset in datasets]
            found[f"{task.name} {recipe.name}"] = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return found


def wanted_recipes(task: Task, tune: Sequence[str]) -> list[Recipe]:
    """The heads of a task that are to be trained."""
    if not tune or not task.recipes:
        return []
    first = task.recipes[0]
    return [one for one in task.recipes if {"all", one.name} & set(tune) or ("first" in tune and one == first)]


def probes_of(task: Task, options: Options) -> tuple[str, ...]:
    """The probes that run on a task."""
    probes = IMAGE if task.kind == CLASSIFICATION else DENSE if task.dense else ()
    return probes if options.probes else ()


def protocols_of(task: Task, options: Options) -> list[str]:
    """All that is measured on a task: probes, then heads."""
    return [*probes_of(task, options), *(recipe.name for recipe in wanted_recipes(task, options.tune))]


def primary_of(task: Task, options: Options) -> tuple[str, str, str]:
    """Metric, protocol and labels that the verdict on a task rests on.

    As ``--primary`` says; else the first protocol (dense k-NN, of images k-NN, without probes the first head), with the
    first of the labels.
    """
    protocol, _, labels = options.primary.partition("@")
    protocol = protocol or protocols_of(task, options)[0]
    of_kind = {
        CLASSIFICATION: "top-1",
        SEGMENTATION: "mIoU",
        DETECTION: "mIoU" if protocol in DENSE else task.head_metric,
    }
    return of_kind[task.kind], protocol, labels or options.labels[0]


def make_jobs(plan: Plan) -> list[Job]:
    """All jobs: probes first, then heads, seed by seed."""
    options, jobs = plan.options, []
    for task in plan.tasks:
        for checkpoint in plan.checkpoints if probes_of(task, options) else ():
            for seeds in [[seed] for seed in options.seeds] if checkpoint.is_random else [options.seeds]:
                jobs.append(_job(plan, checkpoint, task, seeds, options.labels))
    for seed in options.tune_seeds:
        for task in plan.tasks:
            for recipe in wanted_recipes(task, options.tune):
                for labels in options.labels:
                    for checkpoint in plan.checkpoints:
                        jobs.append(_job(plan, checkpoint, task, [seed], [labels], recipe.name))
    return jobs


def _job(
    plan: Plan, checkpoint: Checkpoint, task: Task, seeds: Sequence[int], labels: Sequence[str], recipe: str = ""
) -> Job:
    """A job whose id ends in a digest of all that its outcome depends on: changed, it is another job."""
    options = plan.options
    chosen = options.factors if recipe else [options.max_side, options.num_blocks, options.dtype]
    words = [checkpoint.name, task.name, *((recipe, *labels) if recipe else ("probes",))]

    def named(words: Sequence[str], seeds: Sequence[int]) -> str:
        depends = [VERSION, checkpoint.sha256, checkpoint.arch, dict(checkpoint.arch_kwargs), plan.digests[task.name]]
        depends += [checkpoint.mean, checkpoint.std] if checkpoint.is_random else []  # those of another checkpoint
        depends += [plan.image_size] if task.kind == CLASSIFICATION else []
        depends += [seeds, labels, chosen, plan.recipes.get(f"{task.name} {recipe}", ""), plan.multiple]
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:8]
        return "-".join([re.sub(r"[^\w.]+", "_", word.replace("%", "pc")) for word in words] + [digest])

    name = named([*words, *(f"seed{seed}" for seed in seeds if len(seeds) == 1)], seeds)
    return Job(name, checkpoint.name, task.name, seeds, labels, recipe, named(["choice", *words], []))


def job_folder(folder: Path, job: Job) -> Path:
    """Where a job writes, below the card's folder."""
    return folder / "jobs" / job.id


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
        task["recipes"] = [Recipe(**recipe) for recipe in task["recipes"]]
    kinds: dict[str, Any] = dict(tasks=Task, checkpoints=Checkpoint, jobs=Job)
    lists: dict[str, Any] = {name: [kind(**one) for one in content.pop(name)] for name, kind in kinds.items()}
    return Plan(Options(**content.pop("options")), **lists, **content)
