"""``mst zoo``: the checkpoints that come with this project; ``mst zoo NAME``: one of them, with its figures."""

import argparse
from collections.abc import Sequence

from mst_transfer.cli.options import aligned
from mst_transfer.files.atomic_files import readable_size


def main(argv: Sequence[str] | None = None) -> int:
    """Prints; the exit status."""
    parser = argparse.ArgumentParser(prog="mst zoo", description="List the checkpoints that come with this project.")
    parser.add_argument("name", nargs="?", help="say how this one was made, and what it is worth")
    args = parser.parse_args(argv)
    from mst_transfer.checkpoint.addresses import ZOO, zoo_card, zoo_names

    if args.name:
        card = zoo_card(args.name.removeprefix("zoo://"))
        figures = card.pop("figures")
        print(aligned([(name, str(value)) for name, value in card.items()], left=range(2)))
        rows = [(*(row[name] for name in ("task", "protocol", "labels", "metric")), *_value(row)) for row in figures]
        print("\n" + aligned([("task", "protocol", "labels", "metric", "value", "95 %"), *rows], left=range(4)))
        return 0
    rows = [("address", "size", "method", "epochs", "trained on")]
    for name in zoo_names():
        card, size = zoo_card(name), readable_size((ZOO / f"{name}.safetensors").stat().st_size)
        rows.append((f"zoo://{name}", size, card["method"], str(card["epochs"]), card["trained on"]))
    print(aligned(rows, left=(0, 2, 4)))
    print("\nmst zoo NAME tells how one was made, and its figures. Licence: see there")
    return 0


def _value(row: dict) -> tuple[str, str]:
    low, high = row["ci95"]
    return f"{row['value']:.1f}", f"{low:.1f} … {high:.1f}"
