"""``mst pretrain PHOTOS --out O``, or ``mst pretrain CONFIG``."""

import argparse
import os
from collections.abc import Sequence

from mst_transfer.runs.options import add_track_option


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    words = list(argv or ())
    parser = argparse.ArgumentParser(
        prog="mst pretrain",
        usage="mst pretrain PHOTOS [PHOTOS ...] --out O [options]\n       mst pretrain CONFIG [mst-pretrain's options]",
        description="Pre-train a ViT or Swin with MST on folders of photos; the plan is printed, and written to O.",
    )
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTOS", help="folders of photos or of shards, or addresses of shards"
    )
    parser.add_argument("--out", required=True, metavar="O", help="work dir; the same command again goes on with it")
    parser.add_argument(
        "--model", help="vit_tiny (default without a GPU), vit_small (with one), vit_base, swin_tiny, …"
    )
    parser.add_argument("--init", metavar="FILE", help="go on from a backbone file: ours, DINO's, timm's, …")
    parser.add_argument("--minutes", type=float, help="train for about so long: the time of a step is measured")
    parser.add_argument("--epochs", type=int, help="train for so many epochs (default: by the number of photos)")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw (default: 0)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="so many GPUs, or processes without a GPU")
    parser.add_argument("--cache-gb", type=float, default=100.0, metavar="GB", help="for shards with an address (100)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    add_track_option(parser)
    if words and not words[0].startswith("-") and "--out" not in words and not os.path.isdir(words[0]):
        from pretrain.run import train

        return train.main(words)
    args = vars(parser.parse_args(words))
    from pretrain.run import from_folder, train

    out, dry_run, track = args.pop("out"), args.pop("dry_run"), args.pop("track")
    wishes = from_folder.settle(**args)
    if dry_run:
        from_folder.planned(wishes)
        return 0
    status = train.main(from_folder.prepare(out, wishes, track))
    if status == 0:
        print(f"for transfer: {os.path.join(out, 'teacher.safetensors')}")
    return status
