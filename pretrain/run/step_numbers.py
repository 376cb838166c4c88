"""What a step is judged by and what is logged of it, on its way from the device to the host.

A device is told ahead what to do; a host that waits for a number before it goes on leaves it idle. So the mean over
the processes, and whether the step is to be left out, are computed on the device, the optimiser is started, and only
then does the host wait for the numbers, which have been on their way since.
"""

import torch
from torch import Tensor
from torch import distributed as dist

from mst_transfer.runs import stop

JUDGED = ("loss", "grad_norm")


class StepNumbers:
    """Means over the processes of a step's numbers; the wish to stop travels along.

    Args:
        values: float32 scalars of this process by name, those of ``JUDGED`` among them.

    Attributes:
        left_out: float32 [], on the device: 1 if one of ``JUDGED`` is not finite in any process, else 0.
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        self._names = list(values)
        packed = torch.stack(list(values.values()))
        wishes = [packed.new_full((1,), float(stop.wish() == status)) for status in stop.STATUSES]
        packed = torch.cat([packed, *wishes])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(packed)
            packed /= dist.get_world_size()
        judged = torch.stack([packed[self._names.index(name)] for name in JUDGED])
        self.left_out = judged.isfinite().all().logical_not().float()
        self._packed = packed.to("cpu", non_blocking=True)  # from CUDA into pinned memory
        self._arrived = None if packed.device.type == "cpu" else torch.Event(packed.device)
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """Waits for the numbers, tells ``stop`` of the wishes, and returns the rest by name."""
        if self._arrived is not None:
            self._arrived.synchronize()
        means = self._packed.tolist()
        shares = zip(stop.STATUSES, means[len(self._names) :], strict=True)
        stop.agree(max((status for status, share in shares if share > 0), default=0))
        return dict(zip(self._names, means, strict=False))
