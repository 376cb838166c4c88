"""Reads a config and refuses what is misspelt in it, or of another kind than its command takes."""

from collections.abc import Mapping
from typing import Any

from mst_transfer.configs import config_check, shipped
from mst_transfer.configs.kind import DETECTION, PRETRAINING, SEGMENTATION, check_kind


def read_config(
    name: str,
    cfg_options: Mapping[str, Any] | None = None,
    kinds: tuple[str, ...] = (PRETRAINING, DETECTION, SEGMENTATION),
) -> tuple[Any, dict[str, Any]]:
    """Reads a config with a command line's changes, every name checked.

    Args:
        name: Path, ``mst_transfer::NAME`` or NAME of a shipped config.
        cfg_options: Dotted path → new value.
        kinds: Those of :mod:`mst_transfer.configs.kind` that the command takes.

    Returns:
        An ``mmengine.Config``, and the changes without their plus signs.

    Raises:
        FileNotFoundError: No such config, or one of its bases is not there.
        UnknownConfigKeyError: A name in the config or in ``cfg_options`` that nothing reads.
        ValueError: The file is no config.
        WrongKindError: It is of none of ``kinds``.
    """
    from mmengine.config import Config

    path = shipped.resolve_config(name)
    try:
        cfg = Config.fromfile(str(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config {path}: {error}. Is a file that its _base_ names not there?") from error
    except SyntaxError as error:
        raise ValueError(f"config {path} is not Python: {error.msg} (line {error.lineno})") from error
    except OSError as error:
        raise ValueError(f"config {path} cannot be read ({error}). Next step: name a .py config") from error
    check_kind(cfg, *kinds)
    config_check.check_config(cfg)
    options = config_check.check_cfg_options(cfg, cfg_options or {})
    cfg.merge_from_dict(options)
    config_check.check_config(cfg)  # new keys may be misspelt too
    return cfg, options
