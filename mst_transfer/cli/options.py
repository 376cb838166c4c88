"""Options and tables that several verbs share, and how a run refuses."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

OWN_LABELS = ("coco", "coco_images", "yolo", "voc", "cvat", "masks")  # options of add_coco_options


def add_coco_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the options that point a config at files of one's own; for training, testing and checking."""
    parser.add_argument(
        "--coco",
        nargs=2,
        metavar=("TRAIN.json", "VAL.json"),
        help="your own files in COCO's format, to train on, and to validate and test on: sets annotations, images, "
        "classes and num_classes",
    )
    parser.add_argument(
        "--coco-images",
        nargs=2,
        metavar=("TRAIN_FOLDER", "VAL_FOLDER"),
        help="folders of their images (default: found beside the annotations)",
    )
    parser.add_argument("--yolo", metavar="DATA.yaml", help="your labels in Ultralytics' format, instead")
    parser.add_argument("--voc", metavar="ROOT", help="in Pascal VOC's, with ImageSets/Main/{train,val}.txt")
    parser.add_argument("--cvat", nargs=2, metavar=("TRAIN.xml", "VAL.xml"), help='in "CVAT for images 1.1"')
    pairs = "of a segmentor, '{split}/images/{}.jpg' '{split}/masks/{}.png'; or IMAGES MASKS of train, then of val"
    parser.add_argument("--masks", nargs="+", metavar="PATTERN", help=pairs)


def load_config(args: argparse.Namespace) -> Any:
    """Reads the config that a command line names, with all that it says of it; errors are ``load_run_config``'s."""
    from mst_transfer.configs.keys import parse_cfg_options
    from mst_transfer.engine.run import load_run_config

    names = ("work_dir", "seed", "resume", "amp", "auto_scale_lr", "accumulate", "launcher", "track", *OWN_LABELS)
    options = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return load_run_config(args.config, cfg_options=parse_cfg_options(args.cfg_options), **options)


def aligned(table: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Lines of a table whose columns are flush, those named in ``left`` to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def print_data(summaries: Sequence[Any], notes_only: bool) -> None:
    """Prints what the checks saw in the data: all of it, or only what a run should not pass over in silence."""
    from mst_transfer.preflight.findings import summary_text

    if not notes_only:
        print(summary_text(summaries))
        return
    for one in summaries:
        for text in one.notes:
            print(f"{one.place}: {text}")


def run_or_refuse(verb: str, launcher: str, run: Callable[[], Any], stoppable: bool = False) -> tuple[int, Any]:
    """Joins the other processes and runs: ``mst_transfer.runs.stop.run_to_end``, whose result it returns."""
    from mst_transfer.compat.untrusted_files import RefusedFileError
    from mst_transfer.engine.run import RunRefusedError
    from mst_transfer.runs.checkpoint_hook import CheckpointNotSavedError
    from mst_transfer.runs.launch import init_distributed
    from mst_transfer.runs.stop import run_to_end

    try:
        init_distributed(launcher)
    except (ValueError, RuntimeError) as error:  # said by the process that it happens to
        print(f"mst {verb}: {error}", file=sys.stderr)
        return 1, None
    refusals = (RunRefusedError, RefusedFileError, CheckpointNotSavedError, OSError)
    return run_to_end(f"mst {verb}", run, refusals, stoppable=stoppable)
