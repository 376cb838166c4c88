"""Plans a card, runs what is not done yet, and writes the card."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mst_transfer.card import costs
from mst_transfer.card.checkpoints import Checkpoint, open_checkpoints
from mst_transfer.card.collect import collect, write_card
from mst_transfer.card.head_job import check_head
from mst_transfer.card.leakage import find_leaks
from mst_transfer.card.page import write_page
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
from mst_transfer.card.task_data import TaskData, open_task
from mst_transfer.card.tasks import CATALOGUE, CLASSIFICATION, DETECTION, SEGMENTATION, Task, heads, sequences
from mst_transfer.configs import saved
from mst_transfer.files.atomic_files import free_space, readable_size
from mst_transfer.files.image_files import open_image_file
from mst_transfer.files.image_folder import find_images
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
    for name, numbers in groups.items():
        if len(data[name].val if numbers is None else set(numbers.tolist())) < 2:
            raise ValueError(f"{name} has one validation image or sequence: an interval needs two or more")
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
    """Writes the card; the exit status."""
    runs = pretraining_runs(plan.checkpoints)
    pools = {
        folder: find_images(folder) for folder in (*plan.pool, *(root for roots in runs.values() for root in roots))
    }
    leaks = {
        task.name: find_leaks(
            [image.path for image in data[task.name].val],
            ("train", [image.path for image in data[task.name].train]),
            *pools.items(),
            cache=args.out / "thumbnails.npz",
        )
        for task in plan.tasks
    }
    content = collect(args.out, plan, data, groups, leaks if args.leave_out_leaks else {}, failed)
    content |= dict(leakage={name: found.as_dict(args.out) for name, found in leaks.items()}, pretraining=[*runs])
    write_card(args.out, content)
    write_page(args.out)
    for name, found in leaks.items():
        print(f"{name}: {found.sentence()}")
    for one in (one for one in content["differences"] if one["primary"]):
        what = f"{one['task']}, {one['protocol']}, {one['labels']} labels, {one['metric']}"
        print(f"{what}: {one['a']} against {one['b']}: {one['verdict']}")
    print(f"{args.out / 'card.html'}, card.md, card.json")
    if failed:
        print(
            f"{len(failed)} of {len(plan.jobs)} jobs failed: {', '.join(failed)}. Next step: read log.txt in their "
            f"folders in {args.out / 'jobs'}, mend what it names, and start the same command again"
        )
    return bool(failed)


def pretraining_runs(checkpoints: Sequence[Checkpoint]) -> dict[str, list[str]]:
    """Work dirs of pre-trainings that checkpoints lie in, with those folders of images that are still there."""
    found: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        folder = Path(checkpoint.path).absolute().parent
        if not checkpoint.is_random and (folder / saved.FILE).is_file():
            dataset = saved.read_config_file(folder / saved.FILE).train_dataloader.dataset
            roots = dataset.get("data_root") or ()
            roots = [roots] if isinstance(roots, str) else roots
            found[str(folder)] = [str(root) for root in roots if os.path.isdir(root)]
    return found


def _options(args: argparse.Namespace) -> Options:
    if args.jobs < 0 or args.gpus < 0 or (args.jobs and args.gpus):
        raise ValueError(f"--jobs {args.jobs} --gpus {args.gpus}: give one of them, a number from 1")
    if args.no_probes and args.tune is None:
        raise ValueError("--no-probes leaves nothing to do without --tune")
    tune_seeds = args.tune_seeds or args.seeds
    lists = {
        "--seeds": args.seeds,
        "--tune-seeds": tune_seeds,
        "--labels": args.labels,
        "--lr-factors": args.lr_factors,
    }
    for name, values in lists.items():
        if len(set(values)) < len(values):
            raise ValueError(f"{name} {' '.join(map(str, values))}: name each once")
    if min(*args.seeds, *tune_seeds, 0) < 0 or min(args.lr_factors) <= 0:
        raise ValueError("--seeds and --tune-seeds must be 0 or more, and --lr-factors positive")
    return Options(
        labels=tuple(args.labels),
        seeds=tuple(args.seeds),
        tune=() if args.tune is None else tuple(args.tune) or ("first",),
        tune_seeds=tuple(tune_seeds),
        probes=not args.no_probes,
        factors=tuple(args.lr_factors),
        primary=args.primary,
        max_side=args.max_side,
        num_blocks=args.num_blocks,
        dtype=args.feature_dtype,
    )


def _tasks(args: argparse.Namespace, options: Options) -> list[Task]:
    tasks = [task for name in args.on for task in _known(name)]
    if args.coco or args.det_config:
        recipes = heads(args.det_config or "det_configs/mst_maskrcnn_coco.py", frozen=True)
        files, folders = (tuple(map(os.path.abspath, paths or ())) for paths in (args.coco, args.coco_images))
        tasks.append(Task("objects", DETECTION, recipes, coco=files, coco_images=folders, group=args.group))
    if args.seg_config:
        tasks.append(Task("segments", SEGMENTATION, heads(args.seg_config), group=args.group))
    if args.seg:
        recipes, root = heads("seg_configs/mst_setr_pup_cityscapes.py"), str(args.seg.absolute())
        changes = {f"{loader}_dataloader.dataset.data_root": root for loader in ("train", "val")}
        tasks.append(Task("segments", SEGMENTATION, recipes, options=changes, group=args.group))
    if args.images:
        tasks.append(Task("images", CLASSIFICATION, root=str(args.images.absolute()), group=args.group))
    if not tasks:
        raise ValueError(
            f"there are no data. Next step: --on {' '.join(CATALOGUE)}; or your own, --coco, --seg, --images"
        )
    known = {"all"} | {recipe.name for task in tasks for recipe in task.recipes}
    if strange := set(options.tune) - known - {"first"}:
        raise ValueError(f"--tune {' '.join(sorted(strange))}: it must be one of {', '.join(sorted(known))}")
    tasks = [task for task in tasks if protocols_of(task, options)]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"tasks {', '.join(names)}: name each once, and --seg or --seg-config")
    return tasks


def _known(name: str) -> tuple[Task, ...]:
    if name not in CATALOGUE:
        raise ValueError(
            f"--on {name}: it must be one of {', '.join(CATALOGUE)}; your own data: --coco, --seg, --images"
        )
    return CATALOGUE[name]


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
        for recipe in wanted_recipes(task, options.tune):
            for checkpoint in checkpoints:
                check_head(checkpoint, task, recipe)
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
        digest = f", sha256 {one.sha256[:12]}" if one.sha256 else ""
        lines.append(f"{one.name}: {one.path}, {one.arch}, patch {one.patch_size}{digest}")
    if len({one.patch_size for one in plan.checkpoints}) > 1:
        lines.append(f"patch sizes differ: of the same pixels, in multiples of {plan.multiple}, some see more tokens")
    for task in plan.tasks:
        metric, protocol, labels = primary_of(task, plan.options)
        of = data[task.name]
        sizes = f"{len(of.train)} training and {len(of.val)} validation images, {len(of.classes)} classes"
        lines.append(f"{task.name}: {sizes}; primary: {metric}, {protocol}, {labels} labels")
    minutes = math.ceil(sum(seconds.values()) / at_once / 60)
    lines.append(f"{len(seconds)} of {len(plan.jobs)} jobs to run, about {minutes} minutes, {at_once} at once:")
    lines += [f"  {name}  about {value / 60:.1f} min" for name, value in seconds.items()]
    return "\n".join(lines)
