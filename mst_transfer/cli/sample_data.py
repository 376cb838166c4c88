"""``mst sample-data``: draws photos to pre-train on, and COCO and Cityscapes sets to fine-tune on."""

import argparse
import time
from collections.abc import Sequence

from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mst sample-data``; returns the exit status."""
    defaults = SampleDataRequest()
    parser = argparse.ArgumentParser(
        prog="mst sample-data",
        description="Draw the sample data: photos to pre-train on, COCO and Cityscapes sets to fine-tune on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", nargs="?", default="data/sample", metavar="OUT", help="folder to write")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="other seeds give other scenes")
    parser.add_argument("--num-train", type=int, default=defaults.num_train, help="training images of each task")
    parser.add_argument("--num-val", type=int, default=defaults.num_val, help="validation images of each task")
    parser.add_argument("--num-photos", type=int, default=defaults.num_photos, help="unlabelled images")
    parser.add_argument("--size", type=int, default=defaults.size, help="side of the images in pixels")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    request = SampleDataRequest(args.seed, args.num_train, args.num_val, args.num_photos, args.size)
    drawn = make_sample_data(args.out, request)
    counts = f"{request.num_photos} photos, 2 x {request.num_train} train, 2 x {request.num_val} val"
    if drawn:
        print(f"{args.out}: drew {counts} in {time.perf_counter() - started:.1f} s (seed {request.seed})")
    else:
        print(f"{args.out}: {counts} (seed {request.seed}) are there already")
    return 0
