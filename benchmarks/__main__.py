"""All benchmarks behind one command, each in a process of its own.

    python -m benchmarks                                    all of them
    python -m benchmarks step augment --dino CHECKOUT       some
    python -m benchmarks --json OUT.json --markdown OUT.md
    python -m benchmarks gpu --json OUT.json                the acceptance run for one GPU: benchmarks/gpu/acceptance.py

Rounds of the competitors take turns; tables show medians, the median of the rounds' ratios and their spread. A peer
that is not installed, or not given, leaves its row without a ratio and says so.
"""

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import acceptance
from benchmarks.measure import Row, machine, markdown_table, read_json, text_table, write_json

BENCHMARKS = {
    "augment": "JPEG to 2 + 8 crops",
    "step": "a training step",
    "features": "ViT features of large images",
    "swin": "Swin features",
    "coco_evaluation": "COCO box and mask metrics",
    "slide_inference": "sliding windows over 2048x1024",
    "operators": "NMS and RoIAlign",
    "full_scale": "what an image of the paper's recipes costs",
    "leakage": "planted copies that are found, unrelated images that are not",
    "calibration": "how often the card's intervals hold the truth (an hour)",
}
LONG = ("calibration",)
GIVEN = ("dino", "data", "mmcv")  # folders that some benchmarks need


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="\n".join(f"{name:16} {what}" for name, what in BENCHMARKS.items()),
        epilog="The acceptance run for one GPU: python -m benchmarks gpu --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all but {', '.join(LONG)})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run at all?")
    parser.add_argument("--dino", type=Path, metavar="CHECKOUT", help="a checkout of facebookresearch/dino")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="holds photos/{train,val}/<class>/")
    parser.add_argument("--mmcv", type=Path, metavar="FOLDER", help="where a compiled mmcv is installed")
    parser.add_argument("--threads", type=int, default=1, help="of each benchmark (default 1)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows and the machine here")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the table here")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    return parser


def run_here(name: str, args: argparse.Namespace) -> list[Row]:
    """One benchmark in this process."""
    import torch

    torch.set_num_threads(args.threads)
    module = importlib.import_module(f"benchmarks.{name}")
    given = {name: getattr(args, name) for name in GIVEN}
    options = {key: value for key, value in given.items() if key in module.run.__annotations__}
    rows: list[Row] = module.run(quick=args.quick, **options)
    return rows


def run_apart(name: str, args: argparse.Namespace) -> list[Row]:
    """One benchmark in a process of its own: its memory and threads are nobody else's.

    Raises:
        RuntimeError: it failed; its own message stands above.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", name, "--in-process", "--json", str(out)]
        command += ["--threads", str(args.threads)] + (["--quick"] if args.quick else [])
        for option in GIVEN:
            value = getattr(args, option)
            command += [f"--{option}", str(value.resolve())] if value else []
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise RuntimeError(f"{name} failed: python -m benchmarks {name} --in-process shows it alone")
        return read_json(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 1 if a benchmark failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["gpu"]:
        return acceptance.main(words[1:])
    args = build_parser().parse_args(words)
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        print(f"benchmarks: unknown {', '.join(unknown)}; choose among {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    names = args.names or [name for name in BENCHMARKS if name not in LONG]
    rows: list[Row] = []
    failed = []
    for name in names:
        if not args.in_process:
            print(f"{name}: {BENCHMARKS[name]} …", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            rows += run_here(name, args) if args.in_process else run_apart(name, args)
        except RuntimeError as error:
            if args.in_process:
                raise
            print(f"benchmarks: {error}", file=sys.stderr)
            failed.append(name)
        if not args.in_process:
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(text_table(rows))
    print(", ".join(f"{key} {value}" for key, value in machine().items()) + f"; {args.threads} thread(s)")
    command = "python -m benchmarks " + " ".join(words)
    if args.json:
        write_json(args.json, rows, command=command.strip(), threads=args.threads, failed=failed)
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(markdown_table(rows), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
