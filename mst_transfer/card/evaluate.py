"""Plans a card, runs what is not done yet, and writes the card."""

import argparse
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from mmengine.config import Config

from mst_transfer.card.checkpoints import Checkpoint, open_checkpoints
from mst_transfer.card.collect import collect
from mst_transfer.card.costs import planned_costs
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
from mst_transfer.card.run_jobs import hand_over, run_all
from mst_transfer.card.task_data import TaskData, open_task
from mst_transfer.card.tasks import (
    CATALOGUE,
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Task,
    heads,
    own_masks,
    sequences,
)
from mst_transfer.configs import saved
from mst_transfer.engine.fit.own_coco import own_labels
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.files.image_folder import find_images
from mst_transfer.files.shards import is_sharded
from mst_transfer.preflight.evaluators import evaluates_masks
from mst_transfer.probes.labelled_images import label_subset
from mst_transfer.runs.trackers import check_trackers, open_trackers


def evaluate(args: argparse.Namespace, command: str, commands_to: TextIO | None = None) -> int:
    """``mst evaluate``; the exit status. ``commands_to``: where ``--print-jobs`` prints them; None: as all else.

    Raises:
        FileNotFoundError, ValueError: what the user gave is not there or does not fit; nothing has run then.
        FileNotWrittenError: ``--out`` is no folder, or cannot be written to; likewise.
    """
    trackers = check_trackers(args.track)
    options = _options(args)
    tasks = _tasks(args, options)
    checkpoints = open_checkpoints(args.checkpoints)
    data = {task.name: open_task(task) for task in tasks}
    tasks = [_with_metric(task, data[task.name].cfg) for task in tasks]
    groups = {task.name: sequences(data[task.name].val_paths, task.group) for task in tasks}
    _check_data(options, data, groups)
    _check_heads(options, checkpoints, tasks)
    runs, unsought = pretraining_runs(checkpoints)
    folders = [*map(os.path.abspath, args.pool), *(root for roots in runs.values() for root in roots)]
    pools = {folder: find_images(folder) for folder in folders}
    plan = Plan(
        options,
        checkpoints,
        tasks,
        digests={name: of.digest() for name, of in data.items()},
        multiple=math.lcm(*(one.patch_size for one in checkpoints)),
        recipes=recipe_digests(tasks, options.tune),
        command=command,
    )
    plan = replace(plan, jobs=make_jobs(plan))
    at_once = args.gpus or args.jobs or 1
    seconds = planned_costs(plan, data, args.out, at_once)
    print(_plan_text(plan, seconds, data, at_once))
    if args.dry_run:
        return 0
    write_plan(plan, args.out)
    if args.print_jobs or args.slurm:
        hand_over(args.out, plan, "" if args.print_jobs else args.slurm, commands_to)
        return 0
    failed = run_all(args.out, plan, seconds, at_once, args.gpus)
    cache = args.out / "thumbnails.npz"
    leaks = {}
    for name, of in data.items():
        seen = [("train", [image.path for image in of.train]), *pools.items()]
        leaks[name] = find_leaks(of.val_paths, *seen, cache=cache, num_processes=at_once if at_once > 1 else 0)
    content = collect(args.out, plan, data, groups, leaks if args.leave_out_leaks else {}, failed)
    content |= dict(leakage={name: found.as_dict(args.out) for name, found in leaks.items()}, pretraining=[*runs])
    for told in content["leakage"].values() if unsought else ():
        told["sentence"] += f". Not searched: {'; '.join(unsought)}"
    write_text_atomically(args.out / "card.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    page = write_page(args.out)
    for tracker in open_trackers(trackers, args.out, True, print).values():
        what = {name: content[name] for name in ("command", "protocol_hash", "protocol")}
        tracker.add_config(Config(dict(what, work_dir=str(args.out))))
        tracker.add_scalars(_curves(content["rows"]))
        tracker.add_page(args.out)
        tracker.close()
    _say(content)
    print(f"{page}, card.md, card.json")
    if failed:
        print(
            f"{len(failed)} of {len(plan.jobs)} jobs failed: {', '.join(failed)}. Next step: read log.txt in their "
            f"folders in {args.out / 'jobs'}, mend what it names, and start the same command again"
        )
    return bool(failed)


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Name → figure, and both ends of its interval."""
    found = dict[str, float]()
    for row in rows:
        words = (row[name] for name in ("task", "protocol", "metric", "labels", "checkpoint"))
        name = "/".join(re.sub(r"[^\w. -]", "_", word.replace("%", " percent")) for word in words)
        found |= {name: row["value"], f"{name} low": row["ci95"][0], f"{name} high": row["ci95"][1]}
    return found


def _say(content: Mapping[str, Any]) -> None:
    for name, found in content["leakage"].items():
        print(f"{name}: {found['sentence']}")
    for one in (one for one in content["differences"] if one["primary"]):
        what = f"{one['task']}, {one['protocol']}, {one['labels']} labels, {one['metric']}"
        print(f"{what}: {one['a']} against {one['b']}: {one['verdict']}")


def pretraining_runs(checkpoints: Sequence[Checkpoint]) -> tuple[dict[str, list[str]], list[str]]:
    """Work dirs of pre-trainings that checkpoints lie in, with those folders of images that are still there.

    Returns:
        Also what they were trained on that no near duplicates can be sought in, and why.
    """
    found: dict[str, list[str]] = {}
    unsought = []
    for checkpoint in checkpoints:
        folder = Path(checkpoint.path).absolute().parent
        if not checkpoint.is_random and (folder / saved.FILE).is_file():
            dataset = saved.read_config_file(folder / saved.FILE).train_dataloader.dataset
            roots = dataset.get("data_root") or ()
            roots = [roots] if isinstance(roots, str) else roots
            found[str(folder)] = [str(root) for root in roots if os.path.isdir(root) and not is_sharded(root)]
            for root in (str(root) for root in roots if str(root) not in found[str(folder)]):
                why = "shards, which --pool takes unpacked" if is_sharded(root) else "not there"
                unsought.append(f"{root}, which {checkpoint.name} was pre-trained on ({why})")
                print(f"no near duplicates are sought in {unsought[-1]}")
    return found, unsought


def _options(args: argparse.Namespace) -> Options:
    if args.jobs < 0 or args.gpus < 0 or (args.jobs and args.gpus):
        raise ValueError(f"--jobs {args.jobs} --gpus {args.gpus}: give one of them, a number from 1")
    if args.no_probes and args.tune is None:
        raise ValueError("--no-probes leaves nothing to do without --tune")
    for name in ("seeds", "tune_seeds", "labels", "lr_factors"):
        values = getattr(args, name) or ()
        if len(set(values)) < len(values):
            raise ValueError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: name each once")
    tune_seeds = args.tune_seeds or args.seeds
    if min(*args.seeds, *tune_seeds, 0) < 0 or min(args.lr_factors) <= 0:
        raise ValueError("--seeds and --tune-seeds must be 0 or more, and --lr-factors positive")
    return Options(
        labels=args.labels,
        seeds=args.seeds,
        tune=[] if args.tune is None else args.tune or ["first"],
        tune_seeds=tune_seeds,
        probes=not args.no_probes,
        factors=args.lr_factors,
        primary=args.primary,
        max_side=args.max_side,
        num_blocks=args.num_blocks,
        dtype=args.feature_dtype,
    )


def _tasks(args: argparse.Namespace, options: Options) -> list[Task]:
    own = "your own data: --coco, --masks, --seg, --images"
    if unknown := [name for name in args.on if name not in CATALOGUE]:
        raise ValueError(f"--on {' '.join(unknown)}: it must be one of {', '.join(CATALOGUE)}; {own}")
    tasks = [replace(task, group=task.group or args.group) for name in args.on for task in CATALOGUE[name]]
    foreign = {name: getattr(args, name) for name in ("yolo", "voc", "cvat")}
    coco, coco_images = own_labels(args.out / "labels", args.coco, args.coco_images, **foreign)
    if coco or args.det_config:
        recipes = heads(args.det_config or "det_configs/mst_maskrcnn_coco.py", frozen=True)
        files, folders = (tuple(map(os.path.abspath, paths or ())) for paths in (coco, coco_images))
        tasks.append(Task("objects", DETECTION, recipes, coco=files, coco_images=folders, group=args.group))
    if args.masks or args.seg_config:
        recipes = heads(args.seg_config or "seg_configs/mst_setr_pup_cityscapes.py")
        masks = [*map(os.path.abspath, args.masks or ())]
        tasks.append(Task("segments", SEGMENTATION, recipes, masks=masks, group=args.group))
    if args.seg:
        recipes, changes = heads("seg_configs/mst_setr_pup_cityscapes.py"), own_masks(str(args.seg.absolute()))
        tasks.append(Task("segments", SEGMENTATION, recipes, options=changes, group=args.group))
    if args.images:
        tasks.append(Task("images", CLASSIFICATION, root=str(args.images.absolute()), group=args.group))
    if not tasks:
        raise ValueError(f"there are no data. Next step: --on {' '.join(CATALOGUE)}; or {own}")
    if args.group and all(task.group != args.group for task in tasks):
        raise ValueError(f"--group {args.group}: {', '.join(task.name for task in tasks)} have sequences of their own")
    known = {"all"} | {recipe.name for task in tasks for recipe in task.recipes}
    if strange := set(options.tune) - known - {"first"}:
        raise ValueError(f"--tune {' '.join(sorted(strange))}: it must be one of {', '.join(sorted(known))}")
    idle = ", ".join(task.name for task in tasks)
    if not (tasks := [task for task in tasks if protocols_of(task, options)]):
        raise ValueError(f"{idle}: no head can be trained there. Next step: leave out --no-probes")
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"tasks {', '.join(names)}: name each once, and one of --seg, --masks and --seg-config")
    return tasks


def _with_metric(task: Task, cfg: Any) -> Task:
    masks = task.kind != DETECTION or evaluates_masks(cfg, "val_dataloader")
    return task if masks else replace(task, head_metric="box mAP")


def _check_data(options: Options, data: Mapping[str, TaskData], groups: Mapping[str, Any]) -> None:
    for name, of in data.items():
        for labels in options.labels:
            try:
                chosen = len(label_subset(len(of.train), labels, 0))
            except ValueError as error:
                raise ValueError(f"--labels {labels}, {name}: {error}") from error
            if chosen < 2 and options.tune and len(options.factors) > 1:
                raise ValueError(
                    f"--labels {labels}, {name}: of one image none is left to choose a head's learning rate on. Next "
                    "step: --lr-factors 1"
                )
        if len(of.val if groups[name] is None else set(groups[name].tolist())) < 2:
            raise ValueError(f"{name} has one validation image or sequence: an interval needs two or more")


def _check_heads(options: Options, checkpoints: Sequence[Checkpoint], tasks: Sequence[Task]) -> None:
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


def _plan_text(plan: Plan, seconds: Mapping[str, float], data: Mapping[str, TaskData], at_once: int) -> str:
    lines = []
    for one in plan.checkpoints:
        digest = f", sha256 {one.sha256[:12]}" if one.sha256 else ""
        size = f"{one.num_params / 1e6:.1f} M parameters, patch {one.patch_size}"
        lines.append(f"{one.name}: {one.path}, {one.arch}, {size}{digest}")
    if len({one.patch_size for one in plan.checkpoints}) > 1:
        lines.append(f"patch sizes differ: of the same pixels, in multiples of {plan.multiple}, some see more tokens")
    for task in plan.tasks:
        metric, protocol, labels = primary_of(task, plan.options)
        of = data[task.name]
        sizes = f"{len(of.train)} training and {len(of.val)} validation images, {len(of.classes)} classes"
        sizes += f", views of {plan.image_size} px" if task.kind == CLASSIFICATION else ""
        lines.append(f"{task.name}: {sizes}; primary: {metric}, {protocol}, {labels} labels")
    minutes = math.ceil(sum(seconds.values()) / at_once / 60)
    lines.append(f"{len(seconds)} of {len(plan.jobs)} jobs to run, about {minutes} minutes, {at_once} at once:")
    lines += [f"  {name}  about {value / 60:.1f} min" for name, value in seconds.items()]
    return "\n".join(lines)
