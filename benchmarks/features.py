"""Features of a ViT-S/16 on large images: ours against mmseg's ``VisionTransformer`` with the same weights.

    python -m benchmarks features [--quick] [--threads N]

Four maps of a 768x768 image as for SETR, and the last map of 1333x800 (padded to multiples of 32) as for ViTDet, where
ours attends within windows of 14 and globally in four blocks. mmseg has no windows; our own ViT without them shows what
they bring. Training is the forward and backward pass of all weights. Memory is what such a step adds to the largest
resident size of a process of its own.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, compare, peak_memory, processor_clock, take_turns

TOLERANCE = 1e-3  # of the largest value of a map
BLOCKS = (2, 5, 8, 11)
SMALL = dict(embed_dim=384, depth=12, num_heads=6)
TINY = dict(embed_dim=48, depth=12, num_heads=3)
PLACES = {  # image, outputs, windows, goals of inference, training and memory
    "four maps": ((768, 768), BLOCKS, 0, (2.0, 1.5, 2.0)),
    "ViTDet": ((800, 1344), BLOCKS[-1:], 14, (3.0, 3.0, 2.0)),
}
QUICK_SIZES = {"four maps": (64, 64), "ViTDet": (64, 96)}
NAMES = (  # timm's → mmseg's
    (r"^patch_embed\.proj", "patch_embed.projection"),
    (r"^blocks\.", "layers."),
    (r"\.norm(\d)\.", r".ln\1."),
    (r"^norm\.", "ln1."),
    (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)


def build(who: str, place: str, quick: bool) -> nn.Module:
    """One backbone: ``mmseg``, ``ours`` or ``ours, global``."""
    import mst_transfer  # noqa: F401 - lets mmseg import

    size, out_indices, window_size, _ = PLACES[place]
    size, net = (QUICK_SIZES[place], TINY) if quick else (size, SMALL)
    last = window_size == 0
    torch.manual_seed(0)
    if who == "mmseg":
        from mmseg.models.backbones import VisionTransformer

        shape = dict(embed_dims=net["embed_dim"], num_layers=net["depth"], num_heads=net["num_heads"])
        return VisionTransformer(
            img_size=size, patch_size=16, out_indices=out_indices, final_norm=last, patch_bias=True, **shape
        )
    from mst_transfer.models.backbones.vit import TimmViT

    norm = "last" if last else "none"
    windows = window_size if who == "ours" else 0
    arch = "vit_small_patch16_224"
    return TimmViT(arch, img_size=size, out_indices=out_indices, out_norm=norm, window_size=windows, **net)


def check_equal(peer: nn.Module, ours: nn.Module, image: Tensor) -> None:
    """Gives the peer our weights and compares the maps of backbones without windows.

    Raises:
        RuntimeError: they differ: times of different functions are no comparison.
    """
    weights = {}
    for name, tensor in ours.vit.state_dict().items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor
    peer.load_state_dict(weights, strict=True)
    peer.eval()
    ours.eval()
    with torch.no_grad():
        pairs = zip(peer(image), ours(image), strict=True)
        worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    if worst > TOLERANCE:
        raise RuntimeError(f"maps differ by {worst:.2g} of their largest value, allowed is {TOLERANCE}")


def infer(net: nn.Module, image: Tensor) -> None:
    """Maps alone."""
    net.eval()
    with torch.no_grad():
        net(image)


def train(net: nn.Module, image: Tensor) -> None:
    """Maps, and gradients of all weights."""
    net.train()
    net.zero_grad()
    torch.stack([grid.square().mean() for grid in net(image)]).sum().backward()


def added_memory(who: str, place: str) -> float:
    """Bytes that a training step adds to the largest resident size of a new process."""
    command = [sys.executable, "-m", "benchmarks.features", who, place]
    return float(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    )


def measure_memory(who: str, place: str) -> float:
    """What ``added_memory`` returns, in this process."""
    torch.set_num_threads(1)
    net = build(who, place, quick=False)
    image = torch.randn(1, 3, *PLACES[place][0])
    before = peak_memory()
    train(net, image)
    return peak_memory() - before


def run(quick: bool = False, rounds: int = 3) -> list[Row]:
    """Rows for the table."""
    rows = []
    for place, (size, _, window_size, goals) in PLACES.items():
        size = QUICK_SIZES[place] if quick else size
        image = torch.randn(1, 3, *size)
        competitors = ["mmseg", "ours", *(["ours, global"] if window_size else [])]
        nets = {who: build(who, place, quick) for who in competitors}
        check_equal(nets["mmseg"], nets[competitors[-1]], image)
        title = f"{place}, {size[0]}x{size[1]}"
        for work, goal in zip((infer, train), goals[:2], strict=True):
            works: dict[str, Callable[[], object]] = {who: partial(work, net, image) for who, net in nets.items()}
            times = take_turns(works, 1 if quick else rounds, processor_clock)
            for who in competitors[1:]:
                wanted = goal if who == "ours" and not quick else None
                row = compare(f"{title}: {work.__name__}", ("mmseg", times["mmseg"]), (who, times[who]), goal=wanted)
                rows.append(row)
        if quick:  # too little to be seen
            continue
        memory = {who: [added_memory(who, place)] for who in competitors}
        for who in competitors[1:]:
            wanted = goals[2] if who == "ours" else None
            memories = (("mmseg", memory["mmseg"]), (who, memory[who]))
            rows.append(compare(f"{title}: memory of a step", *memories, unit="GB", scale=1e-9, goal=wanted))
    return rows


if __name__ == "__main__":
    print(json.dumps(measure_memory(*sys.argv[1:])))
