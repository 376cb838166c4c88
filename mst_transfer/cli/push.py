"""``mst push RUN_OR_FILE ORG/REPO``."""

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    parser = argparse.ArgumentParser(
        prog="mst push",
        description="Publish a backbone on the Hugging Face Hub in the layout that timm and transformers load, with a "
        "card of its figures. It is loaded again and compared before anything is sent.",
    )
    parser.add_argument("checkpoint", metavar="RUN_OR_FILE", help="work dir of a pre-training, or a file of weights")
    parser.add_argument("repo", metavar="ORG/REPO", help="made if it is not there")
    parser.add_argument("--card", metavar="DIR/card.json", help="figures for the model card, by mst evaluate")
    parser.add_argument("--license", default="", metavar="NAME", help="e.g. apache-2.0 (default: none is claimed)")
    parser.add_argument("--private", action="store_true", help="nobody else may see it")
    parser.add_argument("--revision", default="", metavar="BRANCH", help="made if it is not there (default: main)")
    parser.add_argument("--role", choices=("teacher", "student"), help="which network, where both are there")
    parser.add_argument("--dry-run", action="store_true", help="make everything, show it, send nothing")
    args = parser.parse_args(argv)
    from mst_transfer.card.publish import push

    push(**vars(args))
    return 0
