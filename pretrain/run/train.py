"""``mst-pretrain CONFIG``: pre-train a backbone from a config."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_transfer.compat.untrusted_files import RefusedFileError
from mst_transfer.configs.config_check import parse_cfg_options
from mst_transfer.configs.kind import PRETRAINING
from mst_transfer.configs.paths import check_pretraining_paths
from mst_transfer.configs.read import read_config
from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.runs import endings, launch, signals
from mst_transfer.runs.unreadable_images import plain_message


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mst-pretrain", description="Pre-train a ViT or Swin with MST.")
    parser.add_argument("config", help="path of a config, e.g. pretrain/configs/mst_vit_sample.py")
    parser.add_argument("--work-dir", help="where checkpoints and logs go (default: work_dirs/<config's name>)")
    parser.add_argument("--seed", type=int, help="seed of every random draw (default: the config's)")
    beginning = parser.add_mutually_exclusive_group()
    beginning.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or from the newest one that is whole",
    )
    beginning.add_argument(
        "--fresh",
        action="store_true",
        help="start anew in a used work dir: the earlier run's checkpoints are moved to its folder earlier_1, …",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config, e.g. train_cfg.max_epochs=20; +KEY=VALUE for a new key",
    )
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument(
        "--check-only", action="store_true", help="check names and paths of the config, then stop; nothing is written"
    )
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
    # mmengine shares loggers among runs of one name that start in the same second of one process
    cfg.experiment_name = "_".join(Path(cfg.work_dir).absolute().parts[1:])
    return cfg


def check_inputs(cfg: Any, args: argparse.Namespace) -> None:
    """Looks at the paths of a config and at its work directory, before anything is built or written.

    Raises:
        FileNotFoundError: images or weights are not there.
        UsedWorkDirError: the work directory is another run's.
    """
    from mst_transfer.runs.used_work_dir import check_unused

    folders = check_pretraining_paths(cfg, begins=not args.resume)
    if not (args.resume or args.fresh):
        check_unused(cfg.work_dir, writes_backbones=True)
    if args.check_only:
        print(f"names and paths are sound; images in {', '.join(folders)}")


def find_checkpoint(cfg: Any, resume: str) -> Path | None:
    """The checkpoint to go on from, the same on every process: the main one decides.

    Args:
        cfg: with ``work_dir``.
        resume: ``auto`` for the newest in the work directory, or a path.

    Raises:
        BrokenCheckpointError: it is cut short or changed; in all but the main process a plain ``ValueError``.
        FileNotFoundError: there is no such file, here or on the main process.
    """
    from mst_transfer.runs.checkpoint_choice import choose_checkpoint, decided_by_main

    choice = decided_by_main(lambda: choose_checkpoint(cfg.work_dir, resume))
    if launch.rank() == 0:
        for remark in choice.remarks:
            print(f"mst-pretrain: --resume: {remark}", file=sys.stderr)
        if choice.path is None:
            print(f"mst-pretrain: --resume: no checkpoint in {cfg.work_dir}, starting at step 0", file=sys.stderr)
    if choice.path is not None and not choice.path.is_file():
        raise FileNotFoundError(f"--resume {choice.path}: this process has no such file; the folder must be shared")
    return choice.path


def build_runner(cfg: Any, launcher: str, resume: str | None = None, fresh: bool = False) -> Any:
    """An mmengine ``Runner`` whose data, model and loop stand, so that wrong input shows before the first step.

    Args:
        cfg: from :func:`load_config`.
        launcher: what started the processes.
        resume: ``auto`` or a checkpoint's path.
        fresh: set an earlier run's checkpoints in the work directory aside instead of refusing to start.

    Returns:
        The Runner; its work directory is this process's until ``run_lock.release``.

    Raises:
        ValueError, TypeError, FileNotFoundError: the config's values, or its data, can't be used.
    """
    from mst_transfer.runs import run_lock
    from mst_transfer.runs.checkpoint_choice import decided_by_main
    from mst_transfer.runs.resuming_runner import ResumingRunner
    from mst_transfer.runs.stop_hook import StopHook
    from mst_transfer.runs.used_work_dir import begin_anew
    from mst_transfer.runs.worker_watch import watch

    launch.init_distributed(launcher)
    cfg.launcher = launcher
    unprotected = decided_by_main(lambda: run_lock.lock(cfg.work_dir))
    if unprotected is not None and launch.rank() == 0:
        print(f"mst-pretrain: {unprotected}", file=sys.stderr)
    checkpoint = None if resume is None else find_checkpoint(cfg, resume)
    if checkpoint is not None:
        cfg.resume, cfg.load_from = True, str(checkpoint)
        cfg.model.update(init_from=None, init_head=False)  # the checkpoint holds what came of it
    else:
        aside = fresh or resume is not None  # started again before its first checkpoint: it must not be refused
        moved = decided_by_main(lambda: begin_anew(cfg.work_dir, aside, writes_backbones=True))
        if moved is not None and launch.rank() == 0:
            print(f"mst-pretrain: the files of the earlier run are now in {moved}", file=sys.stderr)
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
    if signals.goes_on():
        args.resume, args.fresh = args.resume or "auto", False
    try:
        cfg = load_config(args)
        if launch.rank() == 0:
            check_inputs(cfg, args)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"mst-pretrain: {error}", file=sys.stderr)
        return 1
    if args.check_only:
        return 0
    from mst_transfer.runs import run_lock

    try:
        return _run(cfg, args)
    finally:
        run_lock.release(cfg.work_dir)


def _run(cfg: Any, args: argparse.Namespace) -> int:
    from mst_transfer.runs.checkpoint_hook import CheckpointNotSavedError
    from mst_transfer.runs.run_identity import OtherRunError
    from pretrain.run.hooks import TrainingStoppedError

    try:
        runner = build_runner(cfg, args.launcher, args.resume, args.fresh)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"mst-pretrain: {error}", file=sys.stderr)
        return endings.end_group(1)
    refusals = (RefusedFileError, TrainingStoppedError, CheckpointNotSavedError, OtherRunError, OSError)
    trainers = [runner.train]
    del runner
    try:
        status = endings.train_to_end("mst-pretrain", lambda: trainers.pop()())
    except (*refusals, UnreadableImageError) as error:
        print(f"mst-pretrain: {plain_message(error)}", file=sys.stderr)
        return endings.end_group(1)
    except Exception as error:
        if isinstance(error, ValueError) and not signals.has_begun():  # a checkpoint or a hook's options don't fit
            print(f"mst-pretrain: {error}", file=sys.stderr)
            return endings.end_group(1)
        endings.fail_alone(error)
        raise
    launch.shutdown_distributed()
    return status


if __name__ == "__main__":
    raise SystemExit(main())
