"""The command ``mst``: one verb, then that verb's own options."""

import importlib
import sys
from collections.abc import Sequence

# verb → module with main(argv) -> exit status, and what it does
VERBS = {
    "doctor": ("mst_transfer.cli.doctor", "check the installation; for each fault, the command that mends it"),
    "sample-data": ("mst_transfer.cli.sample_data", "make a small data set for detection and segmentation"),
    "shard": ("mst_transfer.cli.shard", "write photos as tar shards to pre-train on, or index those of others"),
    "pretrain": ("mst_transfer.cli.pretrain", "pre-train a backbone on a folder of photos, or from a config"),
    "recipes": ("mst_transfer.cli.recipes", "list, find and explain the shipped configs of heads"),
    "check": ("mst_transfer.cli.check", "check config, data and backbone of a run, and show what is in the data"),
    "train": ("mst_transfer.cli.train", "train a detector or segmentor from a config"),
    "test": ("mst_transfer.cli.test", "evaluate a trained detector or segmentor"),
    "predict": ("mst_transfer.cli.predict", "boxes, masks or label maps of a folder of images, as files and pictures"),
    "complexity": ("mst_transfer.cli.complexity", "count the parameters and multiply-adds of configs"),
    "params": ("mst_transfer.cli.params", "layer, learning rate and weight decay of every parameter of a config"),
    "zoo": ("mst_transfer.cli.zoo", "list the checkpoints that come with this project, with their figures"),
    "inspect": ("mst_transfer.cli.inspect", "say what a file of weights is, and whether it would load"),
    "convert": ("mst_transfer.cli.convert", "write a backbone for timm, mmpretrain, detectron2, transformers or ONNX"),
    "push": ("mst_transfer.cli.push", "publish a backbone on the Hugging Face Hub, with a card of its figures"),
    "evaluate": ("mst_transfer.cli.evaluate", "say what checkpoints are worth, with intervals, on one page"),
    "card": ("mst_transfer.cli.card", "write the page of a card anew from its card.json"),
}


def usage() -> str:
    """The text of ``mst --help``."""
    lines = [f"  {verb:12} {what}" for verb, (_, what) in VERBS.items()]
    return "usage: mst VERB [options]\n\n" + "\n".join(lines) + "\n\nOptions of a verb: mst VERB --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb. What a user can mend, a ``ValueError`` or ``OSError``, is printed instead of raised.

    Returns:
        The exit status: 0 success, 1 the verb failed, 2 wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb, words = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb in ("-h", "--help"):
        print(usage())
        return 0
    if verb in ("-V", "--version"):
        import mst_transfer

        print(f"mst-transfer {mst_transfer.__version__}")
        return 0
    if verb not in VERBS:
        print(*([f"mst: unknown verb {verb!r}"] if verb else []), usage(), sep="\n", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(VERBS[verb][0]).main(words))
    except (ValueError, OSError) as error:
        print(f"mst {verb}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
