"""``mst check CONFIG``: everything that a run would stumble over, at once, and a table of what is in the data."""

import argparse
import sys
from collections.abc import Sequence

from mst_transfer.cli.options import OWN_LABELS, add_coco_options, load_config, print_data
from mst_transfer.runs.options import add_config_options

SPLITS = ("train", "val", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Checks; 0 if a run could start, 1 if not."""
    parser = argparse.ArgumentParser(prog="mst check", description="Check config, data and backbone of a run.")
    add_config_options(parser)
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=["train", "val"], help="which data (default: train val)"
    )
    add_coco_options(parser)
    args = parser.parse_args(argv)
    from mst_transfer.configs.keys import parse_cfg_options
    from mst_transfer.configs.paths import check_load_from, check_pretraining_paths
    from mst_transfer.configs.read import PRETRAINING, config_kind, read_config
    from mst_transfer.engine.check_model import check_model
    from mst_transfer.preflight.check import inspect_datasets
    from mst_transfer.preflight.findings import raise_if_any

    cfg = read_config(args.config, parse_cfg_options(args.cfg_options))[0]
    if config_kind(cfg) == PRETRAINING:
        if any(getattr(args, name) for name in OWN_LABELS):
            raise ValueError(f"{args.config} is a pre-training config: labels (--coco, --masks, …) are for heads")
        print(f"names and paths are sound; images in {', '.join(check_pretraining_paths(cfg))}")
        return 0
    cfg = load_config(args)
    findings, summaries = inspect_datasets(cfg, [f"{split}_dataloader" for split in args.splits])
    print_data(summaries, notes_only=False)
    faults = 0
    for check in (lambda: raise_if_any(findings), lambda: check_load_from(cfg), lambda: check_model(cfg, begins=True)):
        try:
            check()
        except (ValueError, FileNotFoundError) as error:
            faults += 1
            print(f"mst check: {error}", file=sys.stderr)
    if not faults:
        print("\nnothing stands in the way of a run")
    return 1 if faults else 0
