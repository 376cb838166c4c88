"""Checkpoints of detectors and segmentors: how a run's own are written, and whether others fit its model."""

from typing import Any

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mst_transfer.registry import HOOKS
from mst_transfer.runs.checkpoint_hook import SafeCheckpointHook

HOOKS.register_module(module=SafeCheckpointHook)
HOOK = "mst_transfer.SafeCheckpointHook"
_COUNTERPARTS = ("CheckpointHook", "mmengine.CheckpointHook")


def use_safe_checkpoints(cfg: Any) -> None:
    """Puts our hook in the place of mmengine's ``CheckpointHook``; another type that a config names stays."""
    hooks = dict(cfg.get("default_hooks") or {})
    hook = hooks.get("checkpoint", {})
    if hook is not None and hook.get("type", "CheckpointHook") in (*_COUNTERPARTS, HOOK):
        cfg.default_hooks = dict(hooks, checkpoint=dict(hook, type=HOOK))


class WeightsRefusedError(ValueError):
    """The weights to begin with do not cover the model's backbone."""


def check_coverage(model: Any, weights: dict[str, Any], path: str) -> str | None:
    """Compares weights that a run begins with (``load_from``) with its model; mmengine takes whatever fits.

    Returns:
        A sentence about what stays random outside the backbone; None if everything was found.

    Raises:
        WeightsRefusedError: tensors of the backbone are missing or have another shape.
    """
    missing = [
        name
        for name, tensor in model.named_parameters()
        if name not in weights or tuple(weights[name].shape) != tuple(tensor.shape)
    ]
    backbone = [name for name in missing if name.startswith("backbone.")]
    if backbone:
        raise WeightsRefusedError(
            f"{path} lacks {len(backbone)} tensors of this model's backbone, such as {backbone[0]}, or has them in "
            "another shape. Next step: name a checkpoint of the same backbone, or give a backbone's file as "
            "model.backbone.checkpoint"
        )
    if missing:
        return f"{path} covers the backbone; {len(missing)} other tensors, such as {missing[0]}, begin at random"
    return None


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
