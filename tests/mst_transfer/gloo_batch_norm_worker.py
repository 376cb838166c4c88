"""One process's share of a batch through ``GlooSyncBatchNorm2d``: for ``run_group``."""

import torch
from torch import Tensor

SIZES = (4, 1, 0)
SHAPES: tuple[tuple[tuple[int, ...], float | None], ...] = (((3, 5, 6), 0.1), ((3,), None))


def inputs_of(shape: tuple[int, ...]) -> Tensor:
    """The whole batch."""
    return torch.randn(sum(SIZES), *shape, generator=torch.Generator().manual_seed(0)) * 3 + 7


def normalise_part() -> list[dict[str, Tensor]]:
    """Outputs, gradients and buffers of this process, for each shape."""
    from mst_transfer.devices.cpu_processes import GlooSyncBatchNorm2d
    from mst_transfer.runs import launch

    launch.init_distributed("pytorch")
    start, results = sum(SIZES[: launch.rank()]), []
    mine = slice(start, start + SIZES[launch.rank()])
    for shape, momentum in SHAPES:
        norm = GlooSyncBatchNorm2d(shape[0], momentum=momentum)
        x = inputs_of(shape)[mine].clone().requires_grad_()
        for _ in range(2):
            y = norm(x)
        whole = torch.linspace(-1, 1, inputs_of(shape).numel()).view(-1, *shape)
        (y * whole[mine]).sum().backward()
        gradients = {"x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
        results.append({**gradients, "y": y.detach(), **dict(norm.named_buffers())})
        del x, y
    launch.shutdown_distributed()
    return results
