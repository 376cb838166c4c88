"""Swin-T backbones: ours against those of mmdet and mmseg on the same weights, on one core.

    python -m benchmarks swin

The four maps of one random image: in inference, and in training the maps and the gradients of all weights. The
backbones take turns within a round, so that what slows the machine down slows all of them; processor time is measured,
so that a busy machine does not count. ``saved`` is what autograd keeps from the forward to the backward pass, without
parameters. The maps' largest relative difference is checked first. Linear layers are three quarters of the time, and
the same in all of them: little can be gained.
"""

import importlib
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, compare, processor_clock, take_turns
from mst_transfer.checkpoint.sources.swin import from_mm
from mst_transfer.models.backbones.swin import TimmSwin

SIZES = ((224, 224), (800, 1333))
PEERS = ("mmdet", "mmseg")
TOLERANCE = 1e-4  # of the largest value of a map


def build_backbones() -> dict[str, nn.Module]:
    """Swin-T of every library with the same random weights, without stochastic depth."""
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {}
    for library in PEERS:
        swin = importlib.import_module(f"{library}.models.backbones.swin").SwinTransformer
        nets[library] = swin(drop_path_rate=0.0)
    ours = TimmSwin()
    ours.vit.load_state_dict(from_mm(nets[PEERS[0]].state_dict()))
    for library in PEERS[1:]:
        nets[library].load_state_dict(nets[PEERS[0]].state_dict())
    return nets | {"ours": ours}


def check_equal(nets: dict[str, nn.Module], image: Tensor) -> float:
    """Largest difference of our maps to the peers', relative to the map's largest value.

    Raises:
        RuntimeError: it is above ``TOLERANCE``: times of different functions are no comparison.
    """
    with torch.no_grad():
        ours = nets["ours"](image)
        worst = max(
            ((a - b).abs().max() / b.abs().max()).item()
            for library in PEERS
            for a, b in zip(ours, nets[library](image), strict=True)
        )
    if worst > TOLERANCE:
        raise RuntimeError(f"maps differ by {worst:.2g} of their largest value, allowed is {TOLERANCE}")
    return worst


def infer(net: nn.Module, image: Tensor) -> None:
    with torch.no_grad():
        net(image)


def train(net: nn.Module, image: Tensor) -> None:
    net.zero_grad()
    torch.stack([feature.mean() for feature in net(image)]).sum().backward()


def saved_megabytes(net: nn.Module, image: Tensor) -> float:
    """Memory of the distinct tensors that a forward pass keeps for the backward pass."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = net(image)  # alive while it is counted: addresses stay distinct
    return sum(storages.values()) / 1e6 if outputs else 0.0


def run(quick: bool = False, rounds: int = 5) -> list[Row]:
    """Two rows a size and kind of work, one for each peer."""
    nets, rows = build_backbones(), []
    for height, width in ((40, 60),) if quick else SIZES:
        image = torch.randn(1, 3, height, width)
        difference = check_equal(nets, image)
        for work in (infer, train):
            works = {name: partial(work, net, image) for name, net in nets.items()}
            times = take_turns(works, 1 if quick else rounds, processor_clock)
            for peer in PEERS:
                note = f"maps differ by at most {difference:.0e}"
                if work is train:
                    saved = [saved_megabytes(nets[name], image) for name in (peer, "ours")]
                    note += f"; saved for the backward pass: {saved[0]:.0f} and {saved[1]:.0f} MB"
                title = f"Swin-T, {height}x{width}: {work.__name__}"
                rows.append(compare(title, (peer, times[peer]), ("ours", times["ours"]), note=note))
    return rows
