"""Says of which kind a config is, and which command takes it."""

from typing import Any

PRETRAINING, DETECTION, SEGMENTATION = "pre-training", "detection", "segmentation"
_KINDS = {"pretrain": PRETRAINING, "mmdet": DETECTION, "mmseg": SEGMENTATION}
_HEADS = "mst train {0}, on several devices with --gpus N"
_TAKEN_BY = {
    PRETRAINING: "mst pretrain {0}, on several devices with --gpus N",
    DETECTION: _HEADS,
    SEGMENTATION: _HEADS,
}


class WrongKindError(ValueError):
    """A command was given a config that it does not take."""


def config_kind(cfg: Any) -> str | None:
    """``PRETRAINING``, ``DETECTION`` or ``SEGMENTATION`` by the scopes that a config names; None if they are others."""
    parts = [cfg.get(name) or {} for name in ("model", "train_cfg")]
    scopes = [str(part.get("type", "")).partition(".")[0] for part in parts]
    scopes += [str(parts[0].get("_scope_")), str(cfg.get("default_scope"))]
    return next((_KINDS[scope] for scope in scopes if scope in _KINDS), None)


def check_kind(cfg: Any, *kinds: str) -> None:
    """Refuses a config of another kind than the given ones, and one that is only a part of configs.

    Raises:
        WrongKindError: Names the config's kind and the command that takes it.
    """
    name = cfg.filename or "the config"
    if not cfg.get("model"):
        raise WrongKindError(
            f"{name} has no model: it is a part for the _base_ of configs. Next step: name one of those"
        )
    kind = config_kind(cfg)
    if kind is not None and kind not in kinds:
        raise WrongKindError(
            f"{name} is a {kind} config, this command takes {' and '.join(kinds)} configs. "
            f"Next step: {_TAKEN_BY[kind].format(name)}"
        )
