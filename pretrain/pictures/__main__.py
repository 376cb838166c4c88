"""Pictures of what pre-training has learnt: importance, attention heads, mask and restored views.

``python -m pretrain.pictures WORK_DIR --images FOLDER --out OUT`` draws the newest checkpoint of a run, ``--checkpoint
FILE`` in place of ``WORK_DIR`` the attention of any backbone. PNG files are written, and ``index.json``, which lists
them with title and caption.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.pictures", description="Draw what a run, or any backbone, has learnt."
    )
    parser.add_argument("work_dir", type=Path, nargs="?", help="work directory of a pre-training run")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="instead of a run: a backbone file, ours, DINO's or timm's; attention only",
    )
    parser.add_argument("--arch", help="timm name of the checkpoint's architecture, where the file does not say it")
    parser.add_argument("--role", choices=("teacher", "student"), help="network of the checkpoint (default: teacher)")
    parser.add_argument("--images", type=Path, required=True, nargs="+", help="photographs, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="where the PNG files go")
    parser.add_argument("--num", type=int, default=8, help="photographs to take, evenly, from the folders (default 8)")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PX",
        help="side, or height and width, in pixels: multiples of the patch size, of 32 for Swin (default: as trained)",
    )
    parser.add_argument("--heads", action="store_true", help="also draw every attention head")
    parser.add_argument("--config", type=Path, help="config of the run (default: the one that it saved in work_dir)")
    parser.add_argument(
        "--trust-config", action="store_true", help="run the run's .py config, instead of its saved one"
    )
    args = parser.parse_args(argv)
    if (args.work_dir is None) == (args.checkpoint is None):
        parser.error("give either the work directory of a run or --checkpoint FILE")
    others, where = (("config",), "on a file") if args.work_dir is None else (("role", "arch"), "on a run")
    if unused := [f"--{name}" for name in others if getattr(args, name) is not None]:
        parser.error(f"{' and '.join(unused)} would have no effect {where}")
    args.role = args.role or "teacher"
    if args.size and (len(args.size) > 2 or min(args.size) < 1):
        parser.error(f"--size {' '.join(map(str, args.size))}: one side, or height and width, in pixels")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    args = parse(argv)
    from pretrain.pictures.picture_folder import draw

    try:
        folder = draw(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"pretrain.pictures: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(args.out / entry["file"]) for entry in folder.entries))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
