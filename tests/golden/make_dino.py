"""Writes the golden values of DINO, or compares a checkout of DINO with those that are stored.

    python tests/golden/make_dino.py --dino CHECKOUT            # write tests/golden/dino*
    python tests/golden/make_dino.py --dino CHECKOUT --check    # compute again and print the differences

CHECKOUT is a folder with https://github.com/facebookresearch/dino at commit 7c446df.
"""

import io
import json
import sys
import warnings
from contextlib import redirect_stdout
from datetime import datetime, timezone

import torch
from dino_augmentation import augmentation
from dino_reference import compute, dino_code, knn
from golden_files import HERE, command_line, write

COMMIT = "7c446df5b9f45747937fb0d72314eb9f7b66930a"


def main() -> int:
    """Writes or checks; returns the exit status."""
    args = command_line(__doc__, "facebookresearch/dino", check=True).parse_args()
    warnings.filterwarnings("ignore", message=".*weight_norm.*")
    with dino_code(args.dino) as dino, redirect_stdout(io.StringIO()):
        (tensors, texts), draws = compute(dino), augmentation(dino)
        accuracies = json.dumps({"commit": COMMIT[:7], "results": knn(dino)}, indent=1) + "\n"
    origin = {"commit": COMMIT, "torch": torch.__version__, "date": datetime.now(timezone.utc).date().isoformat()}
    same = write("dino.safetensors", tensors, check=args.check, **origin, **texts)
    same &= write("dino_augmentation.safetensors", draws, check=args.check, **origin)
    if not args.check:
        (HERE / "dino_knn.json").write_text(accuracies)
    same_accuracies = (HERE / "dino_knn.json").read_text() == accuracies
    print(f"dino_knn.json: {'the same' if same_accuracies else 'other accuracies'}")
    return int(not (same and same_accuracies))


if __name__ == "__main__":
    sys.exit(main())
