"""Writes the golden values of DINO, or compares a checkout of DINO with those that are stored.

    python tests/golden/make_dino.py --dino CHECKOUT            # write tests/golden/dino*.safetensors
    python tests/golden/make_dino.py --dino CHECKOUT --check    # compute again and print the differences

CHECKOUT is a folder with https://github.com/facebookresearch/dino at commit 7c446df.
"""

import argparse
import hashlib
import io
import sys
import warnings
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path

import torch
from dino_augmentation import augmentation
from dino_reference import compute, imported, on_the_cpu
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

COMMIT = "7c446df5b9f45747937fb0d72314eb9f7b66930a"
BLOBS = {
    "utils.py": "9586250123a125a83ea2679e121b1b0ef8089916",
    "vision_transformer.py": "f69a7ad0522500ca2a85305a789be5ca6ac474d0",
    "main_dino.py": "cade9873dcb1d1c6c69ddba61dbdcf3f01dd7540",
    "eval_linear.py": "cdef16b473d216889b493aa0c7a63e15f945092c",
}
TOLERANCE = 1e-5  # between machines, of the recomputed values


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


def differences(new: dict[str, Tensor], path: Path) -> float:
    """Prints the largest difference of each part; the largest of all."""
    parts: dict[str, float] = {}
    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(new):
            raise ValueError(f"{path} holds other names: {sorted(set(file.keys()) ^ set(new))[:5]}; write it again")
        for name in file.keys():
            difference = (file.get_tensor(name).double() - new[name].double()).abs().max().item()
            part = name.split("/")[0]
            parts[part] = max(parts.get(part, 0.0), difference)
    for part, difference in parts.items():
        print(f"{path.name}: {part}: largest difference {difference:.1e}")
    return max(parts.values())


def main(argv: list[str] | None = None) -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dino", type=Path, required=True, help="checkout of facebookresearch/dino")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the files are")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    check_files(args.dino)
    warnings.filterwarnings("ignore", message=".*weight_norm.*")
    with imported(args.dino) as dino, redirect_stdout(io.StringIO()):
        tensors, texts = compute(dino)
        with on_the_cpu(dino):
            draws = augmentation(dino)
    files = {"dino.safetensors": tensors, "dino_augmentation.safetensors": draws}
    if args.check:
        return int(max(differences(tensors, args.out / name) for name, tensors in files.items()) > TOLERANCE)
    metadata = {"commit": COMMIT, "torch": torch.__version__, "date": datetime.now(timezone.utc).date().isoformat()}
    for name, content in files.items():
        content = {key: tensor.detach().contiguous() for key, tensor in content.items()}
        save_file(content, args.out / name, metadata={**metadata, **(texts if content is not draws else {})})
        print(f"{args.out / name}: {len(content)} tensors, {(args.out / name).stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
