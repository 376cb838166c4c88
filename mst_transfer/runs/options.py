"""Command-line options of several programs, most of all of those that run a config."""

import argparse
import os
from collections.abc import Callable
from contextlib import suppress

from mst_transfer.runs.launch import LAUNCHERS, init_distributed
from mst_transfer.runs.stop import is_restarted


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an argument: a whole number from ``least`` on; ``argparse`` reports the error."""

    def parse(word: str) -> int:
        if not word.isdigit() or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from {least}")
        return int(word)

    return parse


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds the config, and changes to it."""
    parser.add_argument("config", help="path of a config, or name of a shipped one: det_configs/mst_maskrcnn_coco.py")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config, e.g. train_cfg.max_epochs=20; +KEY=VALUE adds a key",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every run."""
    parser.add_argument("--work-dir", help="folder for logs and results (default: work_dirs/<config's name>)")
    parser.add_argument("--seed", type=int, help="seed of every random draw (default: the config's, or 0)")
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="so many processes, one a GPU; on the CPU if there is none"
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="what started the processes")
    parser.add_argument(
        "--check-only", action="store_true", help="check config and data, then stop without running anything"
    )


def add_beginning_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--resume`` and ``--fresh``, of which a training takes one at most."""
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
    add_track_option(parser)


def add_track_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds ``--track``."""
    about = "show it in tensorboard, mlflow or wandb; may be given several times"
    parser.add_argument("--track", action="append", default=[], metavar="NAME", help=about)


def resume_if_restarted(args: argparse.Namespace) -> None:
    """Goes on with the newest checkpoint in a program that torchrun or Slurm has started again, on whatever machine."""
    restarted = is_restarted()
    if args.launcher == "pytorch" and int(os.environ.get("GROUP_WORLD_SIZE") or 1) > 1:  # a new machine does not know
        from mmengine.dist import all_gather_object

        with suppress(ValueError, RuntimeError):  # told where the run begins
            init_distributed(args.launcher)
            restarted = any(all_gather_object(restarted))
    if restarted:
        args.resume, args.fresh = args.resume or "auto", False
