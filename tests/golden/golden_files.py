"""Golden files: how scripts write and compare them, how tests read them, and how tables are shown."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
TOLERANCE = 1e-5  # between machines, of values that are computed again


def command_line(doc: str | None, *projects: str, required: bool = True, check: bool = False):
    """A parser that takes a checkout of each project: ``facebookresearch/dino`` as ``--dino``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for project in projects:
        name = project.rpartition("/")[2].lower()
        parser.add_argument(f"--{name}", type=Path, required=required, help=f"checkout of {project}")
    if check:
        parser.add_argument("--check", action="store_true", help="write nothing: compute again and compare")
    return parser


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a golden file; a name is one of this folder."""
    with safe_open(HERE / path, framework="pt") as file:
        metadata = {k: json.loads(v) if v[:1] in ("[", "{") else v for k, v in file.metadata().items()}
        return {key: file.get_tensor(key) for key in file.keys()}, metadata


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def write(path: str | Path, tensors: dict[str, Tensor], *, check: bool = False, **metadata: Any) -> bool:
    """Writes a golden file; metadata that are no text become JSON.

    Args:
        check: compares the tensors with those that are stored instead, and prints the largest difference of each part.

    Returns:
        Whether the file now holds these values, up to ``TOLERANCE``.
    """
    if not check:
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
        save_file(tensors, HERE / path, metadata=texts)
        print(f"{HERE / path}: {len(tensors)} tensors, {(HERE / path).stat().st_size / 1000:.0f} kB")
        return True
    stored, _ = read(path)
    if stored.keys() != tensors.keys():
        raise ValueError(f"{path} holds other names: {sorted(stored.keys() ^ tensors.keys())[:5]}; write it again")
    parts: dict[str, float] = {}
    for name, tensor in stored.items():
        difference = (tensor.double() - tensors[name].double()).abs().max().item()
        parts[name.split("/")[0]] = max(parts.get(name.split("/")[0], 0.0), difference)
    print("\n".join(f"{path}: {name}: largest difference {difference:.1e}" for name, difference in parts.items()))
    return max(parts.values()) <= TOLERANCE


def agree(what: str, ours: Tensor, theirs: Tensor, tolerance: float, relative: bool = False) -> None:
    """Asserts that two tensors agree, and prints the largest difference (``pytest tests/golden -rP`` shows it)."""
    assert ours.shape == theirs.shape, what
    difference = (ours.double() - theirs.double()).abs()
    if relative:
        difference = difference / theirs.double().abs().clamp(min=1e-300)
    largest, kind = difference.max().item(), "relative" if relative else "absolute"
    print(f"| {what} | {kind} {tolerance:g} | {largest:.1e} |")
    assert largest <= tolerance, f"{what}: largest {kind} difference {largest:.3g}, tolerance {tolerance:g}"


def show_table(rows: Sequence[Sequence[str]], markdown: Path | None) -> None:
    """Prints a header and rows in columns, and writes them to a Markdown file where one is named."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        markdown.write_text("\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n")
