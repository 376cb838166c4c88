"""The table "family x (right, refused, wrong)" of docs/checkpoints.md: every ViT and Swin that timm can build.

    python tests/golden/timm_table.py [--representatives] [--markdown OUT] [--only NAME …]

Each architecture is built with two blocks and random weights; its bare state dict, which names no architecture, goes
through recognition into a model, whose features are compared with those of the one that was built. A file has to be
right or refused: features that differ without a word are what must not be.

Random weights keep the residual stream small, so that an epsilon of a norm shows as well as an activation does.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from golden_files import show_table
from safetensors.torch import save_file
from torch import nn

from mst_transfer.checkpoint import architecture_of, load_backbone

FAMILIES = (
    *("vision_transformer", "deit", "eva", "beit", "naflexvit", "vision_transformer_hybrid"),
    *("vision_transformer_relpos", "vision_transformer_sam", "swin_transformer", "swin_transformer_v2"),
    *("swin_transformer_v2_cr", "deepseek_vit", "gemma4_vit", "qwen3_vit"),
)
TOLERANCE = 1e-6  # of the largest feature
STREAM = 0.003
_INTO_THE_STREAM = re.compile(r"patch_embed|pos_embed|_token|\.(proj|fc2)\.(weight|bias)$")


@dataclass(frozen=True)
class Outcome:
    """What became of an architecture's state dict."""

    name: str
    family: str
    verdict: str  # ``right``, ``refused`` or ``wrong``
    detail: str  # the architecture that was inferred and the difference, or why it was refused


def every_name() -> dict[str, str]:
    """All architectures and their families."""
    return {name: family for family in FAMILIES for name in timm.list_models(module=family)}


def representatives(largest: int = sys.maxsize) -> dict[str, str]:
    """The narrowest architecture of every kind; grids, depths and widths are no matter of kind.

    A kind is names of tensors, modules, epsilons, width of heads, pooling, and whether the class has a position.

    Args:
        largest: numbers in two blocks from which on an architecture is left out.
    """
    smallest: dict[Any, tuple[int, str]] = {}
    for name in every_name():
        model: Any = shallow(name, device="meta")
        state = model.state_dict()
        heads = {getattr(module, "num_heads", None) for module in model.modules()}
        facts = (
            frozenset(re.sub(r"\d+", "N", key) for key in state),
            frozenset(f"{type(module).__name__} {getattr(module, 'eps', '')}" for module in model.modules()),
            frozenset(model.num_features / count for count in heads if isinstance(count, int)),
            (getattr(model, "no_embed_class", None), getattr(model, "global_pool", None)),
        )
        size = sum(tensor.numel() for tensor in state.values())
        smallest[facts] = min(smallest.get(facts, (size, name)), (size, name))
    families = every_name()
    return {name: families[name] for size, name in sorted(smallest.values()) if size < largest}


def shallow(name: str, **options: Any) -> nn.Module:
    """Two blocks (of each stage; one where they are huge), for small images as far as the architecture takes a size.

    Raises:
        TypeError: timm has changed so that it cannot be built shallow: it is not built deep instead.
    """
    depth: dict[str, Any] = {"depth": 1 if "_7b_" in name else 2}
    if name.startswith("swin"):
        depth = {"depths": (2, 2, 2, 2)}
    elif name.endswith("_sapiens2"):
        depth["num_kv_heads"] = 4  # which it lists for every block
    patch = re.search(r"patch(\d+)", name)
    size = {"img_size": 4 * int(patch[1] if patch else 16)}
    for tried in [depth] if name.startswith("swin") else [depth | size, depth]:
        try:
            return timm.create_model(name, num_classes=2, **tried, **options)
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            reason = error
    raise TypeError(f"{name} cannot be built with {depth}: {reason}")


@torch.no_grad()
def perturb(model: nn.Module) -> nn.Module:
    """Random values everywhere, those that start as zero or one included."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 and len(parameter) > 1 else 10
        parameter.normal_(0, fan_in**-0.5, generator=generator)
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            parameter += 1
        if _INTO_THE_STREAM.search(name):
            parameter *= STREAM
    return model.eval()


@torch.no_grad()
def examine(name: str, family: str, folder: Path) -> Outcome:
    """One row: recognise, load, compare."""
    model: Any = perturb(shallow(name))
    path = folder / "state.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    try:
        arch, options = architecture_of(path)
        found: Any = timm.create_model(arch, num_classes=0, **options).eval()
        report = load_backbone(found, path)
    except ValueError as error:
        return Outcome(name, family, "refused", str(error).replace(str(path), "FILE"))
    size = model.patch_embed.img_size
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = model.forward_features(image)
    try:
        features = found.forward_features(image)
    except AssertionError as error:  # a model for images of another size
        return Outcome(name, family, "wrong", f"{arch} {options}: {error}")
    if expected.shape != features.shape:
        return Outcome(name, family, "wrong", f"{arch} {options}: shapes {expected.shape} {features.shape}")
    difference = ((expected - features).abs().max() / expected.abs().max()).item()
    verdict = "right" if difference < TOLERANCE and not report.resized else "wrong"
    return Outcome(name, family, verdict, f"{arch} {options}: {difference:.1e}")


def counts(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """A header, a row for each family, and their sum."""
    found = Counter((key, verdict) for one in outcomes for key in (one.family, "all") for verdict in (one.verdict, ""))
    rows = [name for name in (*FAMILIES, "all") if found[name, ""]]
    numbers = [[str(found[name, verdict]) for verdict in ("", "right", "refused", "wrong")] for name in rows]
    header = ["timm's module", "architectures", "right", "refused", "wrong"]
    return [header, *([name, *row] for name, row in zip(rows, numbers, strict=True))]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="What recognition makes of every ViT and Swin of timm.")
    parser.add_argument("--representatives", action="store_true", help="one architecture of every kind")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="architectures to take (default: all)")
    args = parser.parse_args()
    chosen = representatives() if args.representatives else every_name()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or chosen:
            outcomes.append(examine(name, chosen[name], Path(folder)))
            print(f"{outcomes[-1].verdict:<8} {name}", file=sys.stderr)
    for outcome in outcomes:
        if outcome.verdict != "right":
            print(f"{outcome.verdict} {outcome.name}: {outcome.detail.removeprefix('FILE ')[:160]}")
    table = counts(outcomes)
    show_table(table, args.markdown)
    return 1 if any(outcome.verdict == "wrong" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
