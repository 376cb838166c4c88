"""``mst train CONFIG``."""

import argparse
from collections.abc import Sequence

from mst_transfer.cli.options import add_coco_options, load_config, print_data, run_or_refuse
from mst_transfer.runs.options import (
    add_beginning_options,
    add_config_options,
    add_run_options,
    resume_if_restarted,
    whole_number,
)


def accumulation(word: str) -> str | int:
    """``auto``, or a number of batches from 1; ``argparse`` reports the error."""
    return word if word == "auto" else whole_number(1)(word)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mst train", description="Train a detector (mmdet) or segmentor (mmseg).")
    add_config_options(parser)
    add_run_options(parser)
    add_beginning_options(parser)
    parser.add_argument("--amp", action="store_true", help="mixed precision; on the CPU where that is quicker")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate by the batch size")
    parser.add_argument(
        "--accumulate",
        type=accumulation,
        metavar="N",
        help="add up the gradients of N batches before each step; auto: as many as make the recipe's batch",
    )
    parser.add_argument(
        "--dry-run",
        nargs="?",
        const=3,
        type=whole_number(1),
        metavar="N",
        help="take N steps (3 by default) at the largest shape and one of validation, report time and memory, "
        "write nothing",
    )
    add_coco_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    args = build_parser().parse_args(argv)
    from mst_transfer.engine import run
    from mst_transfer.runs import launch, processes
    from mst_transfer.runs.work_dir import check_unused

    resume_if_restarted(args)
    cfg = load_config(args)
    if not (args.resume or args.fresh or args.dry_run):
        check_unused(cfg.work_dir)
    if launch.rank() == 0:
        print_data(run.check_inputs(cfg, training=True), notes_only=not args.check_only)
    if args.check_only:
        return 0
    if (status := processes.start(args, ["mst_transfer.cli.main", "train"], argv)) is not None:
        return status
    if args.dry_run is not None:
        from mst_transfer.engine.plan import dry_run

        status, report = run_or_refuse("train", args.launcher, lambda: dry_run.dry_run(cfg, args.dry_run))
        if report is not None and launch.rank() == 0:
            print(report)
        return status
    status, _ = run_or_refuse("train", args.launcher, lambda: run.run_training(cfg, args.fresh), stoppable=True)
    return status
