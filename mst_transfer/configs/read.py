"""Reads a config and refuses what is misspelt in it, or of another kind than its command takes."""

from collections.abc import Mapping
from typing import Any

from mst_transfer.configs import keys, shipped
from mst_transfer.configs.saved import read_config_file

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


def read_config(
    name: str,
    cfg_options: Mapping[str, Any] | None = None,
    kinds: tuple[str, ...] = (PRETRAINING, DETECTION, SEGMENTATION),
) -> tuple[Any, dict[str, Any]]:
    """Reads a config with a command line's changes, every name checked.

    Args:
        name: Path, ``mst_transfer::NAME`` or NAME of a shipped config; or a saved one, ``run_config.json``.
        cfg_options: Dotted path → new value.
        kinds: Those that the command takes: see ``config_kind``.

    Returns:
        An ``mmengine.Config``, and the changes without their plus signs.

    Raises:
        ConfigRefusedError: A saved config that no run writes, or a program where only data may be read.
        FileNotFoundError: No such config, or one of its bases is not there.
        UnknownConfigKeyError: A name in the config or in ``cfg_options`` that nothing reads.
        ValueError: The file is no config.
        WrongKindError: It is of none of ``kinds``.
    """
    cfg = read_config_file(shipped.resolve_config(name))
    check_kind(cfg, *kinds)
    keys.check_config(cfg)
    options = keys.check_cfg_options(cfg, cfg_options or {})
    cfg.merge_from_dict(options)
    keys.check_config(cfg)  # new keys may be misspelt too
    return cfg, options
