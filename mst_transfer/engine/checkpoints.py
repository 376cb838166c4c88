"""Checkpoints of detectors and segmentors: how a run's own are written, and whether others fit its model."""

from typing import Any

from mst_transfer.registry import HOOKS
from mst_transfer.runs.checkpoint_hook import SafeCheckpointHook

HOOKS.register_module(module=SafeCheckpointHook)
HOOK = "mst_transfer.SafeCheckpointHook"
_COUNTERPARTS = ("CheckpointHook", "mmengine.CheckpointHook")


def use_safe_checkpoints(cfg: Any) -> None:
    """Puts our hook in the place of mmengine's ``CheckpointHook``; another type that a config names stays."""
    hooks = dict(cfg.get("default_hooks") or {})
    hook = dict(hooks.get("checkpoint") or {}, type=(hooks.get("checkpoint") or {}).get("type", "CheckpointHook"))
    if hooks.get("checkpoint", {}) is not None and hook["type"] in (*_COUNTERPARTS, HOOK):
        hooks["checkpoint"] = dict(hook, type=HOOK)
        cfg.default_hooks = hooks


class WeightsRefusedError(ValueError):
    """The weights to begin with do not cover the model's backbone."""


def check_coverage(model: Any, weights: dict[str, Any], path: str) -> str | None:
    """Compares weights that a run begins with (``load_from``) with its model; mmengine takes whatever fits.

    Args:
        model: a detector or segmentor, without a distributed wrapper.
        weights: name -> tensor, of the checkpoint.
        path: the checkpoint's, for the message.

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


def check_classes(checkpoint: Any, tested: Any) -> str | None:
    """Compares the classes that a checkpoint was trained on with those that it is to be tested on.

    Args:
        checkpoint: content of a checkpoint; nothing is known of one without ``meta.dataset_meta.classes``.
        tested: ``metainfo`` of the test set.

    Returns:
        A warning if names differ, which may be other spellings; None if they agree.

    Raises:
        ValueError: A class has another number than in training, so that figures would be of mixed-up names.
    """
    theirs, ours = (
        list((meta or {}).get("classes") or ()) for meta in (checkpoint.get("meta", {}).get("dataset_meta"), tested)
    )
    if not theirs or not ours or theirs == ours:
        return None
    moved = [name for name in ours if name in theirs and theirs.index(name) != ours.index(name)]
    text = f"trained on the classes [{', '.join(theirs)}], but the test set has [{', '.join(ours)}]"
    if moved:
        raise ValueError(
            f"{text}: {moved[0]!r} is class {ours.index(moved[0])} here and was {theirs.index(moved[0])} there. Next "
            "step: give the test set the classes of training, in their order (the list of categories of a COCO file, "
            "metainfo.classes, or classes.txt)"
        )
    return f"the checkpoint was {text}"
