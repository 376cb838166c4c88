"""``mst recipes``: the shipped configs of heads; ``mst recipes NAME``: one of them, with its commands."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mst_transfer.cli.options import aligned


def main(argv: Sequence[str] | None = None) -> int:
    """Prints; the exit status."""
    parser = argparse.ArgumentParser(prog="mst recipes", description="List, find and explain the shipped recipes.")
    parser.add_argument("words", nargs="*", metavar="NAME or WORD", help="explain this one, or list those that hold it")
    parser.add_argument("--task", default="", choices=("det", "seg"), help="detection or segmentation")
    parser.add_argument("--data", default="", metavar="TEXT", help="coco, cityscapes, ade20k, camvid, sample, …")
    parser.add_argument("--backbone", default="", metavar="TEXT", help="vit_small, swin, dinov2, dinov3, …")
    args = parser.parse_args(argv)
    from mst_transfer.configs.recipes import COLUMNS, explain, find_recipes
    from mst_transfer.configs.shipped import available_configs

    stem = Path(args.words[0]).stem if len(args.words) == 1 else ""
    for name in available_configs():
        if Path(name).stem in (stem, f"mst_{stem}") and not name.startswith("pretrain"):
            print(explain(name))
            return 0
    found = find_recipes(args.words, args.task, args.data, args.backbone)
    print(aligned([COLUMNS, *([one[column] for column in COLUMNS] for one in found)], left=range(5)))
    print(f"\n{len(found)} recipes. mst recipes NAME explains one; names without folder and mst_ will do")
    return 0
