"""``mst test CONFIG CHECKPOINT``."""

import argparse
from collections.abc import Sequence

from mst_transfer.cli.options import add_coco_options, load_config, print_data, run_or_refuse
from mst_transfer.runs.options import add_config_options, add_run_options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    parser = argparse.ArgumentParser(prog="mst test", description="Evaluate a detector (mmdet) or segmentor (mmseg).")
    add_config_options(parser)
    parser.add_argument("checkpoint", help="a checkpoint of mst train, e.g. work_dirs/x/epoch_12.pth")
    add_run_options(parser)
    parser.add_argument(
        "--tta", action="store_true", help="average over sizes and mirror images (segmentors; default: one size)"
    )
    add_coco_options(parser)
    args = parser.parse_args(argv)
    from pathlib import Path

    from mst_transfer.engine import run, testing
    from mst_transfer.runs import launch, processes
    from mst_transfer.runs.checkpoints import existing_checkpoint

    cfg = load_config(args)
    if not args.work_dir:  # beside the training's results, not over them
        cfg.work_dir = str(Path(cfg.work_dir) / "test")
    existing_checkpoint(args.checkpoint)
    if launch.rank() == 0:
        print_data(run.check_inputs(cfg, training=False), notes_only=not args.check_only)
    if args.tta:
        testing.with_augmentation(cfg)  # refuses before anything is loaded
    if args.check_only:
        return 0
    if (status := processes.start(args, ["mst_transfer.cli.main", "test"], argv)) is not None:
        return status
    status, written = run_or_refuse("test", args.launcher, lambda: testing.run_testing(cfg, args.checkpoint, args.tta))
    for name, value in (written or {}).get("metrics", {}).items():
        print(f"{name}: {'nan' if value is None else f'{value:.4f}'}")
    return status
