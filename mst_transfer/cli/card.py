"""``mst card``: a card's page anew from its ``card.json``."""

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    parser = argparse.ArgumentParser(prog="mst card", description="Write card.html and card.md of a card anew.")
    parser.add_argument("folder", metavar="DIR", help="folder of card.json, made by mst evaluate")
    parser.add_argument("--pretraining", metavar="WORK_DIR", nargs="+", default=(), help="pre-trainings to show")
    parser.add_argument("--against", metavar="DIR", help="another card: their figures side by side, or what differs")
    args = parser.parse_args(argv)
    from mst_transfer.card.page import side_by_side, write_page

    if args.against:
        print(side_by_side(args.folder, args.against))
    else:
        print(write_page(args.folder, args.pretraining))
    return 0
