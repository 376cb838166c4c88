"""Configs as data: the JSON that a run leaves of its config, read back without running anything.

A ``.py`` config is a program. A run writes what it came to as ``run_config.json`` beside it; a tool that only looks at
a run, perhaps a stranger's, reads that. With ``MST_DATA_ONLY_CONFIGS=1`` no tool reads any other config.
"""

import functools
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mst_transfer.files.atomic_files import write_text_atomically

FILE = "run_config.json"
VARIABLE = "MST_DATA_ONLY_CONFIGS"
MAX_BYTES = 4 * 2**20
MAX_DEPTH = 100
# What JSON has no form for: {"__tuple__": [1, 2]}, {"__float__": "inf"}, and {"__items__": [[key, value]]}
# for keys that are no text.
TUPLE, ITEMS, FLOAT = "__tuple__", "__items__", "__float__"
_SCOPES = ("mst_transfer", "pretrain", "mmcv", "mmengine")  # beside those that mmengine knows
_NAME = re.compile(r"(?:(\w+)\.(?=[A-Z]))?[A-Za-z_][\w/]*")
_EVALUATING = ("CameraMotionCompensation", "RFSearchHook")  # mmdet's and mmcv's: they run texts of the config as Python
_NMS = ("nms", "soft_nms", "nms_match", "nms_rotated", "nms_quadri")  # mmcv runs any other text as Python, too
_registered_only = 0


class ConfigRefusedError(ValueError):
    """A config is a program where data are wanted, or its data are not what a run saves."""


def data_only() -> bool:
    """Whether the environment allows no config but saved ones.

    Raises:
        ValueError: the variable is neither 0 nor 1.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE}={value!r} must be 1 (read only configs saved as JSON) or 0 (run .py configs)")
    return value == "1"


@contextmanager
def registered_types_only() -> Iterator[None]:
    """Within this block a registry builds what is registered; mmengine would import any other ``type`` and call it."""
    global _registered_only
    _registered_only += 1
    try:
        yield
    finally:
        _registered_only -= 1


def are_types_registered_only() -> bool:
    """Whether a registry may build nothing but what is registered: see ``registered_types_only``."""
    return bool(_registered_only) or data_only()


def write_saved_config(cfg: Any, path: str | os.PathLike) -> None:
    """Writes an mmengine ``Config`` as JSON, tuples marked; the file appears whole or not at all.

    Raises:
        FileNotWrittenError: no space, no right.
        TypeError: a value is no plain data; the message names it.
    """
    write_text_atomically(path, json.dumps(_encoded(cfg.to_dict(), ""), indent=1) + "\n")


def read_saved_config(path: str | os.PathLike) -> Any:
    """The mmengine ``Config`` that ``write_saved_config`` wrote; nothing is imported or built for it.

    Raises:
        ConfigRefusedError: the file is too large, no such JSON, or names what no registry of a library holds.
        FileNotFoundError: there is no such file.
    """
    from mmengine.config import Config

    path = Path(path)
    size = path.stat().st_size
    try:
        if size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES / 2**20:.0f} MiB")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_decoded, parse_constant=_refuse_constant)
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError("it holds no object with names")
        _check(content, "", 0)
        return Config(content, cfg_text=text, filename=str(path))
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:300]
        raise ConfigRefusedError(
            f"config {path} was refused: {why}. Next step: let the run write it anew; or, if you trust every line of "
            "the .py config, name that"
        ) from error


def read_config_file(path: str | os.PathLike) -> Any:
    """An mmengine ``Config`` from a saved config, or from a program where the environment allows it.

    Raises:
        ConfigRefusedError: see ``read_saved_config``; or it is a program, and only data may be read.
        FileNotFoundError: no such file, or no such base.
        ValueError: the file is no config.
    """
    from mmengine.config import Config

    if Path(path).suffix == ".json":
        return read_saved_config(path)
    if data_only():
        raise ConfigRefusedError(
            f"config {path} is a program, and {VARIABLE}=1 allows configs saved as JSON alone. Next step: name the "
            f"{FILE} of a run; or, if you trust the file, unset {VARIABLE}"
        )
    try:
        return Config.fromfile(str(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config {path}: {error}. Is a file that its _base_ names not there?") from error
    except SyntaxError as error:
        raise ValueError(f"config {path} is not Python: {error.msg} (line {error.lineno})") from error
    except OSError as error:
        raise ValueError(f"config {path} cannot be read ({error}). Next step: name a .py config") from error


def read_config_of_run(folder: str | os.PathLike, trusted: bool = False, path: Path | None = None) -> Any:
    """The config of a run for a tool that only looks at it: what the run saved as JSON.

    Args:
        folder: the run's work directory.
        trusted: the user trusts its ``.py``, the newest if there are several, and wants that.
        path: read this file instead.

    Raises:
        ConfigRefusedError: there is only a program, and it is not trusted; or see ``read_config_file``.
        FileNotFoundError: there is no config.
    """
    saved, programs = Path(folder) / FILE, sorted(Path(folder).glob("*.py"), key=lambda one: one.stat().st_mtime)
    if path is None and not programs and not saved.is_file():
        raise FileNotFoundError(f"{folder} holds no config of a run, {FILE}")
    if path is None:
        path = programs[-1] if programs and (trusted or not saved.is_file()) else saved
    if path.suffix != ".json" and not trusted:
        raise ConfigRefusedError(
            f"config {path} is a program, and runs of this version leave {FILE} beside it. Next step: if you trust "
            "every line of it, --trust-config runs it"
        )
    return read_config_file(path)


def _encoded(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and not value.keys() & {TUPLE, ITEMS, FLOAT}:
            return {key: _encoded(one, f"{place}.{key}") for key, one in value.items()}
        return {ITEMS: [[_encoded(key, place), _encoded(one, f"{place}.{key}")] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        items = [_encoded(one, f"{place}.{index}") for index, one in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: str(value)}
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{place.lstrip('.')}={value!r} is a {type(value).__name__}, which is no plain data")


def _decoded(pairs: list[tuple[str, Any]]) -> Any:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice in one object")
    marker, value = pairs[0] if len(pairs) == 1 else ("", None)
    if marker == FLOAT and value in ("inf", "-inf", "nan"):
        return float(value)
    if marker in (TUPLE, ITEMS) and isinstance(value, list):
        return tuple(value) if marker == TUPLE else {key: one for key, one in value}
    if content.keys() & {TUPLE, ITEMS, FLOAT}:
        raise ValueError(f"{TUPLE}, {ITEMS} or {FLOAT} does not stand as a run writes it")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


@functools.cache
def _scopes() -> frozenset[str]:
    from mmengine.config.utils import MODULE2PACKAGE

    return frozenset({*_SCOPES, *MODULE2PACKAGE})


def _check(node: Any, place: str, depth: int) -> None:
    """Refuses what would import or run something once it is built."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    *_, above, key = ("", "", *place.split("."))
    if place in ("custom_imports", "_base_") and node:
        raise ValueError(f"{place}={node!r} would run other files")
    if key in ("default_scope", "_scope_") and node is not None and node not in _scopes():
        raise ValueError(f"{place}={node!r} is none of {', '.join(sorted(_scopes()))}")
    if key in ("type", "constructor", "runner_type") and isinstance(node, str):
        match = _NAME.fullmatch(node)
        if not match or match[1] not in (None, *_scopes()):
            raise ValueError(f"{place}={node!r} is not the name of something registered: Name or package.Name")
        if node.rpartition(".")[2] in _EVALUATING or (above == "nms" and node not in _NMS):
            raise ValueError(f"{place}={node!r} would run texts of the config as Python")
    children = enumerate(node) if isinstance(node, list | tuple) else node.items() if isinstance(node, dict) else ()
    for name, value in children:
        _check(value, f"{place}.{name}" if place else str(name), depth + 1)
