"""``mst complexity CONFIG …``: parameters and multiply-adds of detectors and segmentors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mst_transfer.cli.options import aligned

if TYPE_CHECKING:
    from mst_transfer.engine.plan.complexity import Complexity

COLUMNS = ("config", "image", "backbone M", "neck M", "heads M", "auxiliary M", "total M", "G multiply-adds")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status."""
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
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="every part of each model, as JSON")
    form.add_argument("--markdown", action="store_true", help="a table in Markdown")
    args = parser.parse_args(argv)
    from mst_transfer.engine.plan.complexity import measure
    from mst_transfer.engine.run import load_run_config

    shape = tuple(args.shape) if args.shape else None
    found = [measure(load_run_config(config), Path(config).name, shape) for config in args.configs]
    if args.json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
    else:
        print(format_table(found, markdown=args.markdown))
    return 0


def format_table(found: Sequence[Complexity], markdown: bool = False) -> str:
    """One line a config: parameters in millions, multiply-adds in thousand millions."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for one in found:
        sums = one.sums()
        millions = [f"{sums[name].parameters / 1e6:.1f}" for name in ("backbone", "neck", "heads", "auxiliary")]
        image = f"{one.shape[0]}×{one.shape[1]}"
        rows.append((one.config, image, *millions, f"{one.parameters / 1e6:.1f}", f"{one.macs / 1e9:.1f}"))
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|---|---|" + "---:|" * (len(COLUMNS) - 2), *lines[1:]])
    return aligned(rows, left=(0,))
