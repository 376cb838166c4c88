"""``mst test CONFIG CHECKPOINT``."""

import argparse
import sys
from collections.abc import Sequence

from mst_transfer.cli.options import add_coco_options, print_data, run_or_refuse
from mst_transfer.runs.options import add_run_options


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mst test", description="Evaluate a detector (mmdet) or segmentor (mmseg).")
    parser.add_argument("config", help="path of a config, or name of a shipped one")
    parser.add_argument("checkpoint", help="a checkpoint of mst train, e.g. work_dirs/x/epoch_12.pth")
    add_run_options(parser)
    parser.add_argument(
        "--tta", action="store_true", help="average over sizes and mirror images (segmentors; default: one size)"
    )
    add_coco_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    args = build_parser().parse_args(argv)
    from pathlib import Path

    from mst_transfer.configs.config_check import parse_cfg_options
    from mst_transfer.engine import run
    from mst_transfer.engine.augmented_testing import with_augmentation
    from mst_transfer.runs import launch
    from mst_transfer.runs.checkpoints import existing_checkpoint

    try:
        cfg = run.load_run_config(
            args.config,
            work_dir=args.work_dir,
            seed=args.seed,
            cfg_options=parse_cfg_options(args.cfg_options),
            coco=args.coco,
            coco_images=args.coco_images,
            launcher=args.launcher,
        )
        if not args.work_dir:  # beside the training's results, not over them
            cfg.work_dir = str(Path(cfg.work_dir) / "test")
        existing_checkpoint(args.checkpoint)
        if launch.rank() == 0:
            print_data(run.check_inputs(cfg, training=False), notes_only=not args.check_only)
        if args.tta:
            with_augmentation(cfg)  # refuses before anything is loaded
    except (ValueError, FileNotFoundError) as error:
        print(f"mst test: {error}", file=sys.stderr)
        return 1
    if args.check_only:
        return 0
    status, written = run_or_refuse("test", args.launcher, lambda: run.run_testing(cfg, args.checkpoint, args.tta))
    for name, value in (written or {}).get("metrics", {}).items():
        print(f"{name}: {'nan' if value is None else f'{value:.4f}'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
