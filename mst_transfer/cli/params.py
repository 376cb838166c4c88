"""``mst params CONFIG``: layer, learning rate and weight decay of every parameter."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from mst_transfer.cli.options import aligned, load_config
from mst_transfer.runs.options import add_config_options

if TYPE_CHECKING:
    from mst_transfer.engine.plan.parameter_table import ParameterRow

COLUMNS = ("name", "shape", "layer", "lr", "weight decay")
SUMMARY_COLUMNS = ("layer", "lr", "weight decay", "tensors", "values", "first")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status."""
    parser = argparse.ArgumentParser(
        prog="mst params",
        description="Layer, learning rate and weight decay of every parameter, as the config sets them.",
    )
    add_config_options(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--summary", action="store_true", help="one line for each layer, rate and decay")
    form.add_argument("--json", action="store_true", help="one object a parameter")
    args = parser.parse_args(argv)
    import logging

    from mst_transfer.engine.plan.parameter_table import parameter_rows

    logging.disable(logging.INFO)  # the constructors log tables of their own
    try:
        rows = parameter_rows(load_config(args))
    finally:
        logging.disable(logging.NOTSET)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(format_summary(rows) if args.summary else format_rows(rows))
    return 0


def format_rows(rows: Sequence[ParameterRow]) -> str:
    """One line a parameter, and one with the sums."""
    table = [COLUMNS]
    table += [(row.name, "×".join(map(str, row.shape)) or "1", *_rates(row)) for row in rows]
    trained = sum(row.num_values for row in rows if row.lr is not None)
    return f"{aligned(table, left=(0,))}\n{sum(row.num_values for row in rows):,} values, {trained:,} of them train"


def format_summary(rows: Sequence[ParameterRow]) -> str:
    """One line for each layer, rate and decay, with the name of its first parameter."""
    from mst_transfer.engine.plan.parameter_table import group_rows

    table = [SUMMARY_COLUMNS]
    for group in group_rows(rows):
        values = sum(row.num_values for row in group)
        table.append((*_rates(group[0]), str(len(group)), f"{values:,}", group[0].name))
    return aligned(table, left=(5,))


def _rates(row: ParameterRow) -> tuple[str, str, str]:
    layer = "-" if row.layer is None else str(row.layer)
    if row.lr is None:
        return layer, "frozen", "-"
    return layer, f"{row.lr:.4g}", f"{row.weight_decay:.4g}"
