"""Which ``type`` names and settings of a config stay within the registries.

mmengine takes a dotted ``type`` that no registry knows for the address of any Python object, imports it and calls it
with the other entries: ``dict(type='os.system', command='...')``. A config that is read as data only may name what is
registered, and nothing else.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mst_transfer.compat.config_budget import ConfigRefusedError

OWN_SCOPES = ("mst_transfer", "pretrain", "mmcv")
# Places of the libraries that evaluate a text of the config as Python.
TYPES_THAT_EVALUATE = ("CameraMotionCompensation", "RFSearchHook")
NMS_TYPES = ("nms", "soft_nms", "nms_match", "nms_rotated", "nms_quadri")
_NAME = re.compile(r"(?:(\w+)\.)?([A-Za-z_][\w/]*)")
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 100


def scopes() -> frozenset[str]:
    """Packages whose registries a config may name: those of OpenMMLab, and ours."""
    from mmengine.config.utils import MODULE2PACKAGE

    return frozenset({"mmengine", *MODULE2PACKAGE, *OWN_SCOPES})


def check_size(content: Any, where: str) -> None:
    """Refuses nested data that is endless, too deep, or would be too large once shared parts are copied.

    Raises:
        ConfigRefusedError: says which.
    """
    for number, _ in enumerate(_walk(content, "", where, 0)):
        if number > _MAX_VALUES:
            raise ConfigRefusedError(f"{where}: more than {_MAX_VALUES:,} values, counting shared ones each time")


def check_types(content: Mapping[str, Any], where: str) -> None:
    """Refuses what would import or run something that no registry holds.

    Args:
        content: a config, after its bases were merged in.
        where: its file, for messages.

    Raises:
        ConfigRefusedError: names the entry.
    """
    if content.get("custom_imports"):
        raise _refused(where, "custom_imports", content["custom_imports"], "imports modules")
    known = scopes()
    for path, value in _walk(content, "", where, 0):
        last = path.rpartition(".")[2]
        if last in ("default_scope", "_scope_") and value is not None and value not in known:
            raise _refused(where, path, value, f"is none of {', '.join(sorted(known))}")
        if not isinstance(value, str) or last not in ("type", "constructor", "runner_type"):
            continue
        match = _NAME.fullmatch(value)
        if match is None or (match[1] and match[1] not in known):
            raise _refused(where, path, value, "is not the name of something registered: Name or package.Name")
        if match[2] in TYPES_THAT_EVALUATE:
            raise _refused(where, path, value, "evaluates texts of its config as Python")
        if path.split(".")[-2:-1] == ["nms"] and value not in NMS_TYPES:
            raise _refused(where, path, value, f"is none of {', '.join(NMS_TYPES)}")


def _refused(where: str, path: str, value: Any, why: str) -> ConfigRefusedError:
    return ConfigRefusedError(
        f"{where}: {path}={value!r} {why}: configs are read as data only. Next step: use a registered name; or, if you "
        "trust the file, read it as a program"
    )


def _walk(node: Any, path: str, where: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path."""
    if depth > _MAX_DEPTH:
        raise ConfigRefusedError(f"{where}: nested more than {_MAX_DEPTH} deep at {path[:60]}…")
    yield path, node
    if isinstance(node, Mapping):
        pairs: Any = dict.items(node) if isinstance(node, dict) else node.items()
    elif isinstance(node, list | tuple):
        pairs = enumerate(node)
    else:
        return
    for key, value in pairs:
        yield from _walk(value, f"{path}.{key}" if path else str(key), where, depth + 1)
