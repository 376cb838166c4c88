"""``MMDistributedDataParallel`` for models on the CPU."""

from typing import Any

from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper without the device id that a Runner always passes, which DDP refuses on the CPU.

    Args:
        module: The model.
        device_ids: Ignored.
        **kwargs: Passed on.
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        super().__init__(module=module, **kwargs)
