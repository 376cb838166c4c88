"""``mst inspect CHECKPOINT``."""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from mst_transfer.files.atomic_files import readable_size


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status: 1 if the file cannot be read or would not load."""
    parser = argparse.ArgumentParser(
        prog="mst inspect",
        description="Say what a file of weights is, whose names it bears, and whether it would load.",
    )
    parser.add_argument(
        "checkpoint", help="file of any project, zoo://NAME, timm://NAME, hf://ORG/REPO[/FILE][@REVISION]"
    )
    parser.add_argument("--role", choices=("teacher", "student"), help="which network, where the file holds both")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    args = parser.parse_args(argv)
    from mst_transfer.export.inspection import inspect

    facts = inspect(args.checkpoint, args.role)
    print(json.dumps(facts, indent=2) if args.json else table(facts))
    return 1 if "refused" in facts["load"] else 0


def table(facts: dict[str, Any]) -> str:
    """Facts as aligned lines."""
    rows = [row for rows in (_file, _architecture, _weights, _load) for row in rows(facts)]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{value}" for name, value in rows]
    return "\n".join([*lines, "", facts["use"]] if "use" in facts else lines)


def _file(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    file, names = facts["file"], facts["names"]
    yield "file", file["path"]
    if "bytes" in file:
        yield "kind", f"{file['kind']}, {readable_size(file['bytes'])}"
        yield "sha256", file["sha256"]
    yield "source", names["source"]
    roles = ", ".join(names["roles"]) or "not said"
    yield "role", roles if len(names["roles"]) < 2 else f"{roles}; read: {names['read']}"
    for name, value in names.get("provenance", {}).items():
        yield f"  {name}", str(value)


def _architecture(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = facts["architecture"]
    if found["arch"] is None:
        yield "architecture", f"unknown: {found['why']}"
        return
    options = ", ".join(f"{name}={value!r}" for name, value in found["arch_kwargs"].items())
    yield "architecture", found["arch"] + (f" with {options}" if options else "")
    yield "  known from", found["known_from"]
    for name in ("width", "depth", "heads", "window", "patch"):
        if name in found:
            value = found[name]
            yield f"  {name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    yield "  grid", f"{found['grid'][0]}x{found['grid'][1]}, for {found['img_size'][0]}x{found['img_size'][1]} px"
    if "registers" in found:
        yield "  class token", "yes" if found["class_token"] else "no"
        yield "  registers", str(found["registers"])
        yield "  LayerScale", "yes" if found["layer_scale"] else "no"
    resampled = found["pos_embed_interpolation"]
    yield "  positions", found["positions"] + (f", resampled as {resampled} does" if resampled else "")
    known = found["mean"] is not None
    unknown = found["normalisation"] or "not said by the file"
    yield "normalisation", f"mean {found['mean']}, std {found['std']}" if known else unknown


def _weights(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from mst_transfer.checkpoint.errors import list_names

    found = facts["weights"]
    size = f"{found['parameters']:,} numbers in {found['tensors']} tensors, {readable_size(found['bytes'])}"
    yield "weights", f"{size}, {', '.join(f'{name} ({count})' for name, count in found['dtypes'].items())}"
    for title, names in (("NaN, infinity", found["not_finite"]), ("heads", found["heads"])):
        yield title, f"{len(names)}: {list_names(names, 4)}" if names else "none"


def _load(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = facts["load"]
    if "refused" in found:
        yield "would load", f"no: {found['refused']}"
        return
    counts = [f"{found['loaded']} loaded", f"{len(found['resized'])} resized"]
    counts += [f"{len(found[name])} {name}" for name in ("missing", "unexpected", "skipped")]
    yield "would load", f"yes: {', '.join(counts)}"
    if found["remark"]:
        yield "warning", found["remark"]
