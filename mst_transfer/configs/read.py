"""Reads a config and refuses what is misspelt in it, or of another kind than its command takes."""

from collections.abc import Mapping
from typing import Any

from mst_transfer.configs import keys, shipped
from mst_transfer.configs.kind import DETECTION, PRETRAINING, SEGMENTATION, check_kind
from mst_transfer.configs.saved import read_config_file


def read_config(
    name: str,
    cfg_options: Mapping[str, Any] | None = None,
    kinds: tuple[str, ...] = (PRETRAINING, DETECTION, SEGMENTATION),
) -> tuple[Any, dict[str, Any]]:
    """Reads a config with a command line's changes, every name checked.

    Args:
        name: Path, ``mst_transfer::NAME`` or NAME of a shipped config; or a saved one, ``run_config.json``.
        cfg_options: Dotted path → new value.
        kinds: Those of ``mst_transfer.configs.kind`` that the command takes.

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
