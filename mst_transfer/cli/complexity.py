"""``mst complexity CONFIG …``: parameters and multiply-adds of detectors and segmentors."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mst_transfer.cli.options import aligned


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table: millions of parameters, thousand millions of multiply-adds; the exit status."""
    parser = argparse.ArgumentParser(
        prog="mst complexity",
        description="Parameters and multiply-adds of detectors and segmentors, without data, weights or GPU.",
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="path of a config, or name of a shipped one")
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="image in pixels (default: 800 1280 for detectors, the training crop for segmentors)",
    )
    args = parser.parse_args(argv)
    from mst_transfer.engine.plan.complexity import measure
    from mst_transfer.engine.run import load_run_config

    rows = [("config", "image", "M parameters", "G multiply-adds")]
    for config in args.configs:
        found = measure(load_run_config(config), tuple(args.shape) if args.shape else None)
        counts = f"{found.parameters / 1e6:.1f}", f"{sum(found.macs.values()) / 1e9:.1f}"
        rows.append((Path(config).name, f"{found.shape[0]}×{found.shape[1]}", *counts))
    print(aligned(rows, left=(0,)))
    return 0
