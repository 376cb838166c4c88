"""Plans a card, runs what is not done yet, and writes the card."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mst_transfer.card import costs
from mst_transfer.card.checkpoints import Checkpoint, open_checkpoints
from mst_transfer.card.collect import collect, write_card
from mst_transfer.card.plan import (
    Options,
    Plan,
    make_jobs,
    primary_of,
    protocols_of,
    recipe_digests,
    wanted_recipes,
    write_plan,
)
from mst_transfer.card.run_jobs import run_all, slurm_command, unfinished, write_commands
from mst_transfer.card.tasks import (
    CATALOGUE,
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Recipe,
    Task,
    TaskData,
    open_task,
    sequences,
)
from mst_transfer.files.atomic_files import free_space, readable_size
from mst_transfer.files.image_files import open_image_file
from mst_transfer.probes.label_subset import label_subset


def evaluate(args: argparse.Namespace, command: str) -> int:
    """``mst evaluate``; the exit status.

    Raises:
        FileNotFoundError, ValueError: what the user gave is not there or does not fit; nothing has run then.
    """
    options = _options(args)
    tasks = _tasks(args, options)
    _check_folder(args.out)
    checkpoints = open_checkpoints(args.checkpoints)
    if not checkpoints:
        raise ValueError("there is no checkpoint to evaluate. Next step: name files, timm://NAME or random:ARCH")
    data = {task.name: open_task(task) for task in tasks}
    groups = {task.name: sequences([image.path for image in data[task.name].val], task.group) for task in tasks}
    _check_labels(options, data)
    plan = _plan(args, command, options, checkpoints, tasks, data)
    at_once = args.gpus or args.jobs or 1
    seconds = _costs(plan, data, args.out, at_once)
    print(_plan_text(plan, seconds, data, at_once))
    if args.dry_run:
        return 0
    write_plan(plan, args.out)
    waiting = unfinished(args.out, plan)
    if args.print_jobs or args.slurm:
        path = write_commands(args.out, waiting)
        if args.print_jobs:
            print(path.read_text(encoding="utf-8"), end="")
        elif waiting:
            subprocess.run(slurm_command(path, args.slurm, len(waiting)), check=True)
            print("once they have ended, the same command without --slurm writes the card")
        return 0
    failed = run_all(args.out, plan, seconds, at_once, args.gpus)
    return _finish(args, plan, data, groups, failed)


def _finish(
    args: argparse.Namespace, plan: Plan, data: Mapping[str, TaskData], groups: Mapping[str, Any], failed: list[str]
) -> int:
    from mst_transfer.card.page import write_page

    classes = {
        (name, dense): task.classes if dense else task.objects for name, task in data.items() for dense in (True, False)
    }
    content = collect(args.out, plan, classes, groups, failed)
    write_card(args.out, content)
    write_page(args.out)
    for entry in content["differences"]:
        if entry["primary"]:
            print(f"{entry['task']}, {entry['protocol']}, {entry['labels']} labels, {entry['metric']}: "
                  f"{entry['a']} against {entry['b']}: {entry['verdict']}")  # fmt: skip
    print(f"{args.out / 'card.html'}, card.md, card.json")
    if failed:
        print(f"{len(failed)} of {len(plan.jobs)} jobs failed: {', '.join(failed)}. Next step: read their logs in "
              f"{args.out / 'jobs'}, mend what they name, and start the same command again")  # fmt: skip
    return bool(failed)


def _options(args: argparse.Namespace) -> Options:
    if args.jobs < 0 or args.gpus < 0 or (args.jobs and args.gpus):
        raise ValueError(f"--jobs {args.jobs} --gpus {args.gpus}: give one of them, a number from 1")
    if args.no_probes and args.tune is None:
        raise ValueError("--no-probes leaves nothing to do without --tune")
    for name, values in (("--seeds", args.seeds), ("--labels", args.labels), ("--lr-factors", args.lr_factors)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} {' '.join(map(str, values))}: each once")
    if min(args.seeds) < 0 or min(args.lr_factors) <= 0:
        raise ValueError("--seeds must be 0 or more, and --lr-factors positive")
    tune = () if args.tune is None else tuple(args.tune) or ("first",)
    return Options(
        tuple(args.labels), tuple(args.seeds), tune, not args.no_probes, tuple(args.lr_factors), args.primary,
        args.max_side, args.num_blocks, args.feature_dtype,
    )  # fmt: skip


def _tasks(args: argparse.Namespace, options: Options) -> list[Task]:
    tasks = []
    for name in args.on:
        if name not in CATALOGUE:
            raise ValueError(
                f"--on {name}: it must be one of {', '.join(CATALOGUE)}; your own data: --coco, --seg, --images"
            )
        tasks += CATALOGUE[name]
    own = dict(group=args.group)
    if args.coco or args.det_config:
        config = args.det_config or "det_configs/mst_maskrcnn_coco.py"
        frozen = Recipe("maskrcnn_frozen", config, {"+model.backbone.frozen_stages": "all"})
        coco = dict(
            coco=tuple(map(os.path.abspath, args.coco or ())),
            coco_images=tuple(map(os.path.abspath, args.coco_images or ())),
        )
        tasks.append(Task("objects", DETECTION, (Recipe("maskrcnn", config), frozen), **coco, **own))
    if args.seg_config:
        tasks.append(Task("segments", SEGMENTATION, (Recipe(Path(args.seg_config).stem, args.seg_config),), **own))
    if args.seg:
        changes = {
            f"{loader}.dataset.data_root": str(args.seg.absolute()) for loader in ("train_dataloader", "val_dataloader")
        }
        config = Recipe("setr_pup", "seg_configs/mst_setr_pup_cityscapes.py")
        tasks.append(Task("segments", SEGMENTATION, (config,), options=changes, **own))
    if args.images:
        tasks.append(Task("images", CLASSIFICATION, root=str(args.images.absolute()), group=args.group))
    if not tasks:
        raise ValueError(
            f"there are no data to evaluate on. Next step: --on {' '.join(CATALOGUE)}, --coco, --seg, --images"
        )
    tasks = [task for task in tasks if protocols_of(task, options)]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"tasks {', '.join(names)}: each once; take --seg or --seg-config")
    known = {"first", "all"} | {recipe.name for task in tasks for recipe in task.recipes}
    if strange := set(options.tune) - known:
        raise ValueError(
            f"--tune {' '.join(sorted(strange))}: these tasks have the heads {', '.join(sorted(known - {'first'}))}"
        )
    return tasks


def _check_folder(folder: Path) -> None:
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be made: {error.strerror}. Name another folder") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--out {folder} cannot be written to. Name another folder, or give yourself the right")


def _check_labels(options: Options, data: Mapping[str, TaskData]) -> None:
    for name, task in data.items():
        for labels in options.labels:
            try:
                len(label_subset(len(task.train), labels, 0))
            except ValueError as error:
                raise ValueError(f"--labels {labels}, {name}: {error}") from error


def _plan(
    args: argparse.Namespace,
    command: str,
    options: Options,
    checkpoints: list[Checkpoint],
    tasks: list[Task],
    data: Mapping[str, TaskData],
) -> Plan:
    multiple = math.lcm(*(one.patch_size for one in checkpoints))
    digests = {name: task.digest() for name, task in data.items()}
    pool = tuple(os.path.abspath(folder) for folder in args.pool)
    plan = Plan(options, tuple(checkpoints), tuple(tasks), digests, multiple, pool=pool, command=command)
    for task in tasks:
        _, protocol, labels = primary_of(task, options)
        known = protocols_of(task, options)
        if protocol not in known or labels not in options.labels:
            raise ValueError(
                f"--primary {options.primary}: on {task.name} it must be one of {', '.join(known)}, with one of the "
                f"labels {' '.join(options.labels)}"
            )
    plan = replace(plan, recipes=recipe_digests(tasks, options.tune))
    return replace(plan, jobs=tuple(make_jobs(plan)))


def _costs(plan: Plan, data: Mapping[str, TaskData], out: Path, at_once: int) -> dict[str, float]:
    """Seconds of each job that is not done.

    Raises:
        ValueError: the features of the jobs that run at once do not fit the disk.
    """
    flops, seconds, sizes = costs.measured_flops(), {}, []
    for job in unfinished(out, plan):
        task = data[job.task]
        with open_image_file(task.train[0].path) as image:
            size = image.size
        seconds[job.id] = costs.seconds_of(plan, job, task, size, flops)
        sizes.append(costs.feature_bytes(plan, job, task, size))
    needed, free = sum(sorted(sizes)[-at_once:]), free_space(out)
    if free is not None and needed > free:
        raise ValueError(
            f"the jobs keep {readable_size(needed)} of features in {out} while they run, and {readable_size(free)} are "
            "free there. Next step: --feature-dtype float16 halves them; fewer --labels, a smaller --max-side or fewer "
            "--jobs at once take less; or name an --out on another disk"
        )
    return seconds


def _plan_text(plan: Plan, seconds: Mapping[str, float], data: Mapping[str, TaskData], at_once: int) -> str:
    lines = []
    for one in plan.checkpoints:
        lines.append(
            f"{one.name}: {one.path}, {one.arch}, patch {one.patch_size}"
            + f", sha256 {one.sha256[:12]}" * bool(one.sha256)
        )
    if len({one.patch_size for one in plan.checkpoints}) > 1:
        lines.append(
            f"patch sizes differ: all see the same pixels, sides of {plan.multiple}, cut into more or fewer tokens"
        )
    for task in plan.tasks:
        metric, protocol, labels = primary_of(task, plan.options)
        of = data[task.name]
        lines.append(f"{task.name}: {len(of.train)} training and {len(of.val)} validation images, {len(of.classes)} classes; "
                     f"primary: {metric}, {protocol}, {labels} labels")  # fmt: skip
    total = sum(seconds.values()) / at_once
    lines.append(
        f"{len(seconds)} of {len(plan.jobs)} jobs to run, about {math.ceil(total / 60)} minutes, {at_once} at once:"
    )
    lines += [f"  {name}  about {value / 60:.1f} min" for name, value in seconds.items()]
    return "\n".join(lines)
