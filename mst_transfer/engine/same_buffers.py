"""What several processes validate is what the main one saves."""

from typing import Any

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mst_transfer.registry import HOOKS


@HOOKS.register_module()
class SameBuffersHook(Hook):
    """Gives every process the main one's buffers before it validates or tests.

    Parameters are the same everywhere, but a plain ``BatchNorm`` keeps the statistics of its own process's images, and
    a checkpoint holds those of the main one. Without this each process would validate another model than was saved,
    and the metrics would depend on how many processes shared the images.
    """

    def before_val(self, runner: Any) -> None:
        """Broadcasts."""
        if get_world_size() == 1:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for buffer in model.buffers():
            broadcast(buffer, src=0)

    before_test = before_val
