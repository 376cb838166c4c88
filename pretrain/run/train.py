"""``mst-pretrain CONFIG``: pre-train a backbone from a config."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_transfer.compat.untrusted_files import RefusedFileError
from mst_transfer.configs.keys import parse_cfg_options
from mst_transfer.configs.paths import check_pretraining_paths
from mst_transfer.configs.read import PRETRAINING, read_config
from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.runs import launch, processes, stop, work_dir
from mst_transfer.runs.options import add_beginning_options, add_config_options, add_run_options, resume_if_restarted


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mst-pretrain", description="Pre-train a ViT or Swin with MST.")
    add_config_options(parser)
    add_run_options(parser)
    add_beginning_options(parser)
    return parser


def load_config(args: argparse.Namespace) -> Any:
    """The config with the command line's changes, every name checked; an mmengine ``Config``."""
    cfg, _ = read_config(args.config, parse_cfg_options(args.cfg_options), (PRETRAINING,))
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    if args.seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": args.seed}
    if names := args.track or cfg.get("track"):
        from mst_transfer.runs.trackers import check_trackers

        cfg.track = check_trackers(names)
    # mmengine shares loggers among runs of one name that start in the same second of one process
    cfg.experiment_name = "_".join(Path(cfg.work_dir).absolute().parts[1:])
    return cfg


def check_inputs(cfg: Any, args: argparse.Namespace) -> None:
    """Looks at the paths of a config and at its work directory, before anything is built or written.

    Raises:
        FileNotFoundError: images or weights are not there.
        UsedWorkDirError: the work directory is another run's.
    """
    folders = check_pretraining_paths(cfg, begins=not args.resume)
    if not (args.resume or args.fresh):
        work_dir.check_unused(cfg.work_dir, writes_backbones=True)
    if args.check_only:
        print(f"names and paths are sound; images in {', '.join(folders)}")


def build_runner(cfg: Any, launcher: str, resume: str | None = None, fresh: bool = False) -> Any:
    """An mmengine ``Runner`` whose data, model and loop stand, so that wrong input shows before the first step.

    Its work directory is this process's until ``work_dir.release``.

    Args:
        resume: ``auto`` or a checkpoint's path.
        fresh: set an earlier run's checkpoints in the work directory aside instead of refusing to start.

    Raises:
        ValueError, TypeError, FileNotFoundError: the config's values, or its data, can't be used.
    """
    from mst_transfer.checkpoint.addresses import fetch, is_address
    from mst_transfer.runs.checkpoints import decided_by_main, find_checkpoint
    from mst_transfer.runs.resuming_runner import ResumingRunner
    from mst_transfer.runs.stop_hook import StopHook
    from mst_transfer.runs.workers import watch

    launch.init_distributed(launcher)
    cfg.launcher = launcher
    notices = [decided_by_main(lambda: work_dir.lock(cfg.work_dir))]
    checkpoint = None if resume is None else find_checkpoint(cfg.work_dir, resume)
    if checkpoint is not None:
        cfg.resume, cfg.load_from = True, checkpoint
        cfg.model.update(init_from=None, init_head=False)  # the checkpoint holds what came of it
    else:
        if is_address(start := cfg.model.get("init_from") or ""):
            cfg.model.init_from = fetch(start)[1]
        aside = fresh or resume is not None  # started again before its first checkpoint: it must not be refused
        notices.append(work_dir.begin_anew(cfg.work_dir, aside, writes_backbones=True))
    for notice in filter(None, notices if launch.rank() == 0 else ()):
        print(f"mst-pretrain: {notice}", file=sys.stderr)
    wrapper = launch.model_wrapper_cfg()
    if wrapper is not None:
        cfg.model_wrapper_cfg = wrapper
    runner = ResumingRunner.from_cfg(cfg)
    watch(runner.train_loop.dataloader.loader)  # the loop is built by asking for it
    runner.register_hook(StopHook(), priority="LOWEST")
    return runner


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    args = build_parser().parse_args(argv)
    resume_if_restarted(args)
    try:
        cfg = load_config(args)
        if launch.rank() == 0:
            check_inputs(cfg, args)
        if args.check_only:
            return 0
        status = processes.start(args, ["pretrain.run.train"], sys.argv[1:] if argv is None else argv)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"mst-pretrain: {error}", file=sys.stderr)
        return 1
    if status is not None:
        return status
    try:
        return _run(cfg, args)
    finally:
        work_dir.release(cfg.work_dir)


def _run(cfg: Any, args: argparse.Namespace) -> int:
    from mst_transfer.runs.checkpoint_hook import CheckpointNotSavedError
    from mst_transfer.runs.identity import OtherRunError
    from pretrain.run.hooks import TrainingStoppedError

    try:
        runner = build_runner(cfg, args.launcher, args.resume, args.fresh)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"mst-pretrain: {error}", file=sys.stderr)
        return stop.end_group(1)
    trainers = [runner.train]
    del runner
    status, _ = stop.run_to_end(
        "mst-pretrain",
        lambda: trainers.pop()(),
        (RefusedFileError, TrainingStoppedError, CheckpointNotSavedError, OtherRunError, UnreadableImageError, OSError),
        early_refusals=(ValueError,),  # a checkpoint or a hook's options don't fit
        stoppable=True,
    )
    launch.shutdown_distributed()
    return status


if __name__ == "__main__":
    raise SystemExit(main())
