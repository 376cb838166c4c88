"""Swin-T backbones: ours against those of mmdet and mmseg on the same weights, on one core.

    python -m benchmarks.swin [--sizes 224x224 800x1333] [--repeats 9] [--threads 1] [--json OUT]

The four maps of one random image: in inference, and in training the maps and the gradients of all weights. The
backbones take turns within a round, so that what slows the machine down slows all of them; processor time is measured,
so that a busy machine does not count. ``saved`` is what autograd keeps from the forward to the backward pass, without
parameters. The maps' largest relative difference is checked first.
"""

import argparse
import importlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import mmdet
import mmseg
import timm
import torch
from torch import Tensor, nn

from mst_transfer.checkpoint.sources.swin import from_mm
from mst_transfer.models.backbones.swin import TimmSwin

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
        RuntimeError: it is above :data:`TOLERANCE`: times of different functions are no comparison.
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


def seconds(work: Callable[[nn.Module, Tensor], None], net: nn.Module, image: Tensor) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work(net, image)
    return time.process_time() - start


def measure(nets: dict[str, nn.Module], image: Tensor, repeats: int) -> list[dict]:
    """One row for each backbone and kind of work; ratios are of medians, above 1 where ours is faster."""
    rows = []
    for work in (infer, train):
        times: dict[str, list[float]] = {name: [] for name in nets}
        for repeat in range(repeats + 1):
            for name, net in nets.items():
                spent = seconds(work, net, image)
                if repeat:  # the first round warms up
                    times[name].append(spent)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            row = {
                "work": work.__name__,
                "backbone": name,
                "seconds": medians[name],
                "min": min(values),
                "max": max(values),
                "ratio": medians[name] / medians["ours"],
            }
            if work is train:
                row["saved_mb"] = saved_megabytes(nets[name], image)
            rows.append(row)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Swin-T backbones of mst_transfer, mmdet and mmseg.")
    parser.add_argument("--sizes", nargs="+", default=["224x224", "800x1333"], help="heights x widths in pixels")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the table here too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    nets, tables = build_backbones(), {}
    print(
        f"{'size':>9} {'work':>6} {'backbone':>9} {'seconds':>8} {'spread':>13} {'ours is faster':>14} {'saved MB':>9}"
    )
    for size in args.sizes:
        height, width = (int(side) for side in size.split("x"))
        image = torch.randn(1, 3, height, width)
        difference = check_equal(nets, image)
        rows = measure(nets, image, args.repeats)
        tables[size] = {"rows": rows, "difference": difference}
        for row in rows:
            spread = f"{row['min']:.2f}..{row['max']:.2f}"
            saved = f"{row['saved_mb']:9.0f}" if "saved_mb" in row else ""
            print(
                f"{size:>9} {row['work']:>6} {row['backbone']:>9} {row['seconds']:8.3f} {spread:>13} "
                f"{row['ratio']:14.2f} {saved}"
            )
        print(f"{size:>9} largest relative difference of the maps {difference:.1e}")
    versions = {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, timm, mmdet, mmseg)},
    }
    if args.json:
        args.json.write_text(json.dumps({"tables": tables, "versions": versions, "threads": args.threads}, indent=2))


if __name__ == "__main__":
    main()
