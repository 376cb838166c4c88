"""JSON and YAML of unknown origin: read within bounded time and memory, or refused with the reason."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20


def read_plain_data(path: str | os.PathLike) -> Any:
    """The content of a ``.json``, ``.yaml`` or ``.yml``.

    Raises:
        ValueError: it is none, has a key twice, a number that is not finite, YAML anchors, tags that would make Python
            objects, or is nested too deeply.
    """
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES / 2**20:.0f} MiB")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_refuse_constant)
        if path.suffix in (".yaml", ".yml"):
            return _yaml(text)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as plain data: {error}") from error
    raise ValueError(f"{path}: a file of this kind must end in .py, .json, .yaml or .yml")


def unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict, for ``json``'s ``object_pairs_hook``.

    Raises:
        ValueError: a key stands there twice.
    """
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands there twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _yaml(text: str) -> Any:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """No anchors, so that a small text cannot stand for a large one; no key twice."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError(f"alias *{self.peek_event().anchor}: write the value out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            unique_keys((str(key), None) for key in keys)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader=PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
