"""Options that ``mst train`` and ``mst test`` share."""

import argparse

from mst_transfer.compat.launch import LAUNCHERS


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a run."""
    parser.add_argument("--work-dir", help="folder for logs and results (default: work_dirs/<config's name>)")
    parser.add_argument("--seed", type=int, help="seed of every random draw (default: the config's, or 0)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config, e.g. train_cfg.max_epochs=20; +KEY=VALUE adds a key",
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="what started the processes")
    parser.add_argument(
        "--check-only", action="store_true", help="check config and data, then stop without running anything"
    )
