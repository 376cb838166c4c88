"""``mst evaluate CKPT [CKPT …] --out DIR``: what checkpoints are worth, with intervals."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from mst_transfer.cli.options import add_coco_options
from mst_transfer.runs.options import add_track_option


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="mst evaluate",
        description="Say what checkpoints are worth: probes and heads, side by side, with intervals.",
    )
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CKPT",
        help="PATH, NAME=PATH, zoo://NAME, timm://NAME, hf://ORG/REPO, random[:ARCH]",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the card; started again, it goes on there")
    data = parser.add_argument_group("data, one or more")
    data.add_argument("--on", nargs="+", default=[], metavar="NAME", help="data sets below $MST_DATA_ROOT")
    add_coco_options(data)
    data.add_argument("--seg", type=Path, metavar="ROOT", help="masks in Cityscapes' layout")
    data.add_argument("--seg-config", metavar="CONFIG", help="a config of mmseg: its data, and its head with --tune")
    data.add_argument("--det-config", metavar="CONFIG", help="a config of mmdet, likewise")
    data.add_argument("--images", type=Path, metavar="ROOT", help="{train,val}/<class>/ below it")
    data.add_argument("--group", default="", metavar="PATTERN", help="names of one sequence: see docs/card.md")
    data.add_argument("--pool", nargs="+", default=[], metavar="FOLDER", help="what was pre-trained on: is val in it?")
    data.add_argument("--leave-out-leaks", action="store_true", help="score val without near duplicates")
    what = parser.add_argument_group("what")
    what.add_argument("--probes", action="store_true", help="of frozen features (the default)")
    what.add_argument(
        "--tune", nargs="*", metavar="HEAD", help="also train heads: each task's first, those named, or all"
    )
    what.add_argument("--tune-seeds", nargs="+", type=int, metavar="N", help="of heads (default: as --seeds)")
    what.add_argument("--no-probes", action="store_true", help="heads alone")
    what.add_argument(
        "--labels", nargs="+", default=["100%"], metavar="N", help="labelled training images, or N%% of them"
    )
    what.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    what.add_argument("--lr-factors", nargs="+", type=float, default=[0.3, 1.0, 3.0], metavar="X")
    what.add_argument("--primary", default="", metavar="PROTOCOL[@LABELS]", help="what the verdict on a task rests on")
    what.add_argument("--max-side", type=int, default=512, help="of images for dense probes, in pixels (512)")
    what.add_argument("--num-blocks", type=int, default=1, help="last blocks that the dense linear probe sees (1)")
    what.add_argument("--feature-dtype", default="float32", choices=("float32", "float16"), help="of stored features")
    where = parser.add_argument_group("where")
    where.add_argument("--jobs", type=int, default=0, metavar="N", help="at once on CPU cores (default: one)")
    where.add_argument("--gpus", type=int, default=0, metavar="N", help="one job a GPU")
    where.add_argument("--slurm", metavar="PARTITION", help="hand the jobs to Slurm as a job array")
    where.add_argument("--print-jobs", action="store_true", help="one command a line, for any scheduler")
    where.add_argument("--dry-run", action="store_true", help="the plan alone")
    add_track_option(where)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status: 1 if a job failed."""
    begun, words = time.monotonic(), list(sys.argv[2:] if argv is None else argv)
    args = build_parser().parse_args(words)
    if args.job:
        from mst_transfer.card.run_jobs import run_job

        run_job(args.out, args.job, begun)
        return 0
    from mmengine.logging import MMLogger

    from mst_transfer.card.evaluate import evaluate

    MMLogger.get_current_instance().setLevel("ERROR")  # this process plans and collects: what it reads is no news
    out = sys.stdout
    with redirect_stdout(sys.stderr if args.print_jobs else out):  # else the plan would stand among the commands
        return evaluate(args, shlex.join(["mst", "evaluate", *words]), out)
