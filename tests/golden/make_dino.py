"""Writes the golden values of DINO, or compares a checkout of DINO with those that are stored.

    python tests/golden/make_dino.py --dino CHECKOUT            # write tests/golden/dino*
    python tests/golden/make_dino.py --dino CHECKOUT --check    # compute again and print the differences

CHECKOUT is a folder with https://github.com/facebookresearch/dino at commit 7c446df.
"""

import hashlib
import io
import json
import sys
import warnings
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path

import torch
from dino_augmentation import augmentation
from dino_reference import compute, imported, knn, on_the_cpu
from golden_files import HERE, TOLERANCE, command_line, largest_difference, write

COMMIT = "7c446df5b9f45747937fb0d72314eb9f7b66930a"
BLOBS = {
    "utils.py": "9586250123a125a83ea2679e121b1b0ef8089916",
    "vision_transformer.py": "f69a7ad0522500ca2a85305a789be5ca6ac474d0",
    "main_dino.py": "cade9873dcb1d1c6c69ddba61dbdcf3f01dd7540",
    "eval_linear.py": "cdef16b473d216889b493aa0c7a63e15f945092c",
    "eval_knn.py": "fe99a26049cda2d764086727223e6cc9a8f2bfb8",
}


def check_files(checkout: Path) -> None:
    """Refuses files other than those of the commit, whether git or a zip file brought them.

    Raises:
        ValueError: names the file.
    """
    for name, expected in BLOBS.items():
        content = (checkout / name).read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # as git names a file's content
        if found != expected:
            raise ValueError(f"{checkout / name} is not that of commit {COMMIT}: check it out")


def main(argv: list[str] | None = None) -> int:
    """Writes or checks; returns the exit status."""
    parser = command_line(__doc__, "facebookresearch/dino")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    check_files(args.dino)
    warnings.filterwarnings("ignore", message=".*weight_norm.*")
    with imported(args.dino) as dino, redirect_stdout(io.StringIO()):
        tensors, texts = compute(dino)
        with on_the_cpu(dino):
            draws = augmentation(dino)
        accuracies = json.dumps({"commit": COMMIT[:7], "results": knn(dino)}, indent=1) + "\n"
    files = {"dino.safetensors": tensors, "dino_augmentation.safetensors": draws}
    if args.check:
        largest = max(largest_difference(name, content) for name, content in files.items())
        same = (HERE / "dino_knn.json").read_text() == accuracies
        print(f"dino_knn.json: {'the same' if same else 'other accuracies'}")
        return int(largest > TOLERANCE or not same)
    origin = {"commit": COMMIT, "torch": torch.__version__, "date": datetime.now(timezone.utc).date().isoformat()}
    write("dino.safetensors", tensors, **origin, **texts)
    write("dino_augmentation.safetensors", draws, **origin)
    (HERE / "dino_knn.json").write_text(accuracies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
