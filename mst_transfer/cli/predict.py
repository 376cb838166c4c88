"""``mst predict RUN IMAGES``."""

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    parser = argparse.ArgumentParser(prog="mst predict", description="Run a trained detector or segmentor on images.")
    parser.add_argument("run", help="work dir of mst train; or a config, with --checkpoint")
    parser.add_argument("images", help="an image, or a folder of images, which may lie in sub-folders")
    parser.add_argument("--out", help="folder of results (default: predictions, beside the checkpoint)")
    parser.add_argument("--checkpoint", help="default: the newest whole one of the work dir")
    parser.add_argument("--score", type=float, default=0.3, help="leave out objects below it, 0 to 1 (default: 0.3)")
    parser.add_argument("--overwrite", action="store_true", help="replace files in a folder that is not empty")
    parser.add_argument("--trust-config", action="store_true", help="run the .py config of the work dir")
    args = vars(parser.parse_args(argv))
    from mst_transfer.engine.predict import predict

    done = predict(args.pop("run"), args.pop("images"), args.pop("out"), **args)
    objects = "" if done.num_objects is None else f", {done.num_objects} objects"
    print(f"{done.num_images} images{objects}, {len(done.unreadable)} unreadable: {done.folder}")
    return 0
