"""``mst-pretrain CONFIG``: pre-train a backbone from a config."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_transfer.compat import config_check, config_paths, launch
from mst_transfer.compat.image_files import UnreadableImageError
from mst_transfer.compat.serialization import latest_checkpoint
from mst_transfer.compat.unreadable_images import plain_message
from mst_transfer.compat.untrusted_files import RefusedFileError
from pretrain.training_stopped import TrainingStoppedError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mst-pretrain", description="Pre-train a ViT or Swin with MST.")
    parser.add_argument("config", help="path of a config, e.g. pretrain/configs/mst_vit_sample.py")
    parser.add_argument("--work-dir", help="where checkpoints and logs go (default: work_dirs/<config's name>)")
    parser.add_argument("--seed", type=int, help="seed of every random draw (default: the config's)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or from the newest one",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config, e.g. train_cfg.max_epochs=20; +KEY=VALUE for a new key",
    )
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    return parser


def load_config(args: argparse.Namespace) -> Any:
    """The config with the command line's changes, every name checked; an mmengine ``Config``."""
    from mmengine.config import Config

    cfg = Config.fromfile(config_paths.resolve_config(args.config))
    config_check.check_config(cfg)
    options = config_check.parse_cfg_options(args.cfg_options)
    cfg.merge_from_dict(config_check.check_cfg_options(cfg, options))
    config_check.check_config(cfg)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    if args.seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": args.seed}
    # mmengine shares loggers among runs of one name that start in the same second of one process
    cfg.experiment_name = "_".join(Path(cfg.work_dir).absolute().parts[1:])
    return cfg


def find_checkpoint(cfg: Any, resume: str) -> Path | None:
    """The checkpoint to go on from, the same on every process: the main one decides.

    Args:
        cfg: with ``work_dir``.
        resume: ``auto`` for the newest in the work directory, or a path.

    Raises:
        FileNotFoundError: there is no such file, here or on the main process.
    """
    from mmengine.dist import broadcast_object_list

    found = latest_checkpoint(cfg.work_dir) if resume == "auto" else Path(resume)
    names = [None if found is None else str(found)]
    broadcast_object_list(names)
    checkpoint = None if names[0] is None else Path(names[0])
    if checkpoint is None:
        if launch.rank() == 0:
            print(f"mst-pretrain: --resume: no checkpoint in {cfg.work_dir}, starting at step 0", file=sys.stderr)
    elif not checkpoint.is_file():
        raise FileNotFoundError(f"--resume {checkpoint}: no such file; leave the name out to take the newest one")
    return checkpoint


def build_runner(cfg: Any, launcher: str, resume: str | None = None) -> Any:
    """An mmengine ``Runner`` whose data, model and loop stand, so that wrong input shows before the first step.

    Raises:
        ValueError, TypeError, FileNotFoundError: the config's values, or its data, can't be used.
    """
    from mmengine.runner import Runner

    launch.init_distributed(launcher)
    cfg.launcher = launcher
    checkpoint = None if resume is None else find_checkpoint(cfg, resume)
    if checkpoint is not None:
        cfg.resume, cfg.load_from = True, str(checkpoint)
        cfg.model.update(init_from=None, init_head=False)  # the checkpoint holds what came of it
    wrapper = launch.model_wrapper_cfg()
    if wrapper is not None:
        cfg.model_wrapper_cfg = wrapper
    runner = Runner.from_cfg(cfg)
    assert runner.train_loop is not None  # built by asking for it
    return runner


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    args = build_parser().parse_args(argv)
    try:
        runner = build_runner(load_config(args), args.launcher, args.resume)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"mst-pretrain: {error}", file=sys.stderr)
        return 1
    status = 0
    try:
        runner.train()
    except (FloatingPointError, RefusedFileError, TrainingStoppedError) as error:  # raised on every process alike
        print(f"mst-pretrain: {error}", file=sys.stderr)
        status = 1
    except UnreadableImageError as error:  # by the process that has met it, whose end ends the others
        print(f"mst-pretrain: {plain_message(error)}", file=sys.stderr)
        status = 1
    del runner  # its reducer must go before the process group
    launch.shutdown_distributed()
    return status


if __name__ == "__main__":
    raise SystemExit(main())
