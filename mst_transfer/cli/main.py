"""The command ``mst``: one verb, then that verb's own options."""

import importlib
import sys
from collections.abc import Sequence

# verb → module with main(argv) -> exit status, and what it does
VERBS = {
    "doctor": (
        "mst_transfer.cli.doctor",
        "check the installation; for each fault, the command that mends it",
    ),
    "sample-data": (
        "mst_transfer.cli.sample_data",
        "make a small data set for detection and segmentation",
    ),
    "check": ("mst_transfer.cli.check", "check config, data and backbone of a run, and show what is in the data"),
    "train": ("mst_transfer.cli.train", "train a detector or segmentor from a config"),
    "test": ("mst_transfer.cli.test", "evaluate a trained detector or segmentor"),
    "complexity": ("mst_transfer.cli.complexity", "count the parameters and multiply-adds of configs"),
    "params": ("mst_transfer.cli.params", "layer, learning rate and weight decay of every parameter of a config"),
    "inspect": ("mst_transfer.cli.inspect", "say what a file of weights is, and whether it would load"),
    "convert": ("mst_transfer.cli.convert", "write a backbone for timm, mmpretrain, detectron2, transformers or ONNX"),
    "report": ("mst_transfer.report", "write the HTML report of a folder of runs"),
}


def usage() -> str:
    """The text of ``mst --help``."""
    lines = [f"  {verb:12} {what}" for verb, (_, what) in VERBS.items()]
    return "usage: mst VERB [options]\n\n" + "\n".join(lines) + "\n\nOptions of a verb: mst VERB --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        The exit status: 0 success, 1 the verb failed, 2 wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments and arguments[0] in ("-V", "--version"):
        import mst_transfer

        print(f"mst-transfer {mst_transfer.__version__}")
        return 0
    if not arguments or arguments[0] not in VERBS:
        if arguments:
            print(f"mst: unknown verb {arguments[0]!r}", file=sys.stderr)
        print(usage(), file=sys.stderr)
        return 2
    status: int = importlib.import_module(VERBS[arguments[0]][0]).main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
