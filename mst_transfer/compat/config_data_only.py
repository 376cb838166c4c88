"""Configs as data: read without running them, where their origin is not trusted.

mmengine runs a ``.py`` config as a program. With ``MST_DATA_ONLY_CONFIGS=1`` in the environment, or inside
:func:`data_only`, ``Config.fromfile`` computes the same config from the file's syntax tree instead, takes ``.json`` and
``.yaml`` as they are, and refuses imports, calls, ``custom_imports`` and ``type`` names that are not registered.
``0`` reads them as programs even where data would be enough, as in ``mst report``.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from mst_transfer.compat.config_budget import ConfigRefusedError
from mst_transfer.compat.config_expressions import Evaluator
from mst_transfer.compat.config_types import check_size, check_types
from mst_transfer.compat.plain_data import read_plain_data

VARIABLE = "MST_DATA_ONLY_CONFIGS"
BASES = "_base_"
MAX_BYTES = 4 * 2**20
MAX_BASES = 20  # depth of inheritance
_ENVIRONMENT = re.compile(r"\{\{['\"]?\s*\$(\w+)\s*:\s*(\S*?)\s*['\"]?\}\}")
_FILE_NAMES = re.compile(r"\{\{\s*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)\s*\}\}")
_inside = 0


def enabled() -> bool:
    """Whether configs are to be read as data only.

    Raises:
        ValueError: the environment variable is neither 0 nor 1.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE}={value!r} must be 1 (read configs as data only) or 0 (run them)")
    return value == "1" or (bool(_inside) and value == "")


@contextmanager
def data_only() -> Iterator[None]:
    """Within this block configs are read as data only, unless the environment says ``0``."""
    global _inside
    _inside += 1
    try:
        yield
    finally:
        _inside -= 1


def read_config(path: str | os.PathLike) -> Any:
    """The mmengine ``Config`` that ``Config.fromfile`` would return, without running the file or its bases.

    Raises:
        ConfigRefusedError: the file or a base is not data; the message names the line.
        FileNotFoundError: there is no such file, or no such base.
    """
    from mmengine.config import Config

    content, text, variables = _read(os.path.abspath(os.path.expanduser(path)), 0)
    check_types(content, str(path))
    return Config(content, cfg_text=text, filename=str(path), env_variables=variables)


def _read(path: str, depth: int) -> tuple[dict[str, Any], str, dict[str, str]]:
    """Content, text with that of the bases, and environment variables of one file, as ``Config._file2dict``."""
    from mmengine.config import Config, ConfigDict

    if depth > MAX_BASES:
        raise ConfigRefusedError(f"{path}: more than {MAX_BASES} configs, each the base of the next. Is one its own?")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"config {path} does not exist")
    placeholders = _Placeholders(path)
    tree, plain = _parse(path)
    bases, texts = ConfigDict(), []
    for name in _base_names(tree, plain, placeholders):
        base, scope = _base_path(name, path)
        content, text, variables = _read(base, depth + 1)
        twice = bases.keys() & content.keys()
        if twice:
            raise ConfigRefusedError(f"{path}: several bases define {', '.join(sorted(twice))}")
        texts.append(text)
        placeholders.used.update(variables)
        bases.update(Config._dict_to_config_dict(content, scope))
    if tree is not None:
        content = Evaluator(path, bases, placeholders.bare, placeholders.text).run(_without_bases(tree))
    else:
        content = placeholders.everywhere(plain)
    check_size(content, path)
    Config._parse_scope(content)
    content.pop("_deprecation_", None)
    content.pop(BASES, None)
    content = Config._substitute_base_vars(content, {}, bases)  # for its copies: merging changes what it is given
    try:
        merged = Config._merge_a_into_b(content, bases)
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigRefusedError(f"{path} does not fit its bases: {error}") from error
    merged = {key: value for key, value in merged.items() if not str(key).startswith("__")}
    check_size(merged, path)
    texts.append(f"{path}\n{Path(path).read_text(encoding='utf-8')}")
    return merged, "\n".join(texts), placeholders.used


def _parse(path: str) -> tuple[ast.Module | None, dict[str, Any]]:
    """The syntax tree of a ``.py``, or the content of a ``.json`` or ``.yaml``."""
    if os.path.getsize(path) > MAX_BYTES:
        raise ConfigRefusedError(f"{path} is larger than {MAX_BYTES / 2**20:.0f} MiB: that is no config")
    if not path.endswith(".py"):
        try:
            content = read_plain_data(path)
        except ValueError as error:
            raise ConfigRefusedError(str(error)) from error
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ConfigRefusedError(f"{path} must hold an object with names")
        return None, content
    try:
        return ast.parse(Path(path).read_text(encoding="utf-8"), path), {}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigRefusedError(
            f"{path} is no Python text of assignments ({type(error).__name__}: {error})"
        ) from error


def _base_statements(tree: ast.Module) -> list[ast.stmt]:
    return [one for one in tree.body if isinstance(one, ast.Assign) and getattr(one.targets[0], "id", None) == BASES]


def _without_bases(tree: ast.Module) -> ast.Module:
    named = _base_statements(tree)
    return ast.Module([one for one in tree.body if one not in named], type_ignores=[])


def _base_names(tree: ast.Module | None, plain: Mapping[str, Any], placeholders: "_Placeholders") -> list[str]:
    if tree is None:
        value = plain.get(BASES) or []
    else:
        named = _base_statements(tree)[:1]
        assert all(isinstance(one, ast.Assign) for one in named)
        evaluator = Evaluator(placeholders.path, {}, placeholders.bare, placeholders.text)
        value = evaluator.value(named[0].value) if named else []  # type: ignore[attr-defined]
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ConfigRefusedError(f"{placeholders.path}: {BASES} must be a path or a list of paths, got {value!r}")
    return names


def _base_path(name: str, path: str) -> tuple[str, str | None]:
    """Path and scope of a base; a package is located, not imported."""
    from mmengine.config import Config

    package, separator, _ = name.partition("::")
    if separator and not package.isidentifier():
        raise ConfigRefusedError(f"{path}: {BASES} {name!r}: {package!r} is not the name of a package")
    base, scope = Config._get_cfg_path(name, path)
    return os.path.abspath(base), scope


class _Placeholders:
    """What stands for ``{{$VARIABLE:default}}`` and ``{{ fileDirname }}`` in one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.used: dict[str, str] = {}
        stem, suffix = os.path.splitext(os.path.basename(path))
        self._names = {
            "fileDirname": os.path.dirname(path),
            "fileBasename": stem + suffix,
            "fileBasenameNoExtension": stem,
            "fileExtname": suffix,
        }

    def text(self, text: str) -> str:
        """A text with its placeholders replaced; what an environment variable holds stays text."""
        if "{{" not in text:
            return text
        return _ENVIRONMENT.sub(self._variable, _FILE_NAMES.sub(lambda match: self._names[match[1]], text))

    def bare(self, inner: str) -> Any:
        """The value of a placeholder outside of quotes: the number, bool or other literal that its text is."""
        text = self.text("{{" + inner + "}}")
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise ConfigRefusedError(
                f"{self.path}: {{{{{inner}}}}} is {text!r}, which is no number or other literal. Put it into quotes"
            ) from error

    def everywhere(self, node: Any) -> Any:
        """Nested data with the placeholders of its texts replaced."""
        if isinstance(node, dict):
            return {key: self.everywhere(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.everywhere(value) for value in node]
        return self.text(node) if isinstance(node, str) else node

    def _variable(self, match: re.Match) -> str:
        name, default = match[1], match[2]
        if name in os.environ:
            self.used[name] = os.environ[name]
        value = os.environ.get(name, default)
        if not value:
            raise ConfigRefusedError(f"{self.path}: the environment variable {name} is not set, and has no default")
        return value


def install() -> None:
    """Makes ``Config.fromfile`` obey :func:`enabled`, and the registries import nothing then. Idempotent.

    Each of mmengine's two modules is adapted when it is imported.
    """
    adaptations = {
        "mmengine.config.config": ("Config", _adapt_config),
        "mmengine.registry.registry": ("get_object_from_string", _adapt_registry),
    }
    for name, (attribute, adapt) in adaptations.items():
        module: Any = sys.modules.get(name)
        if hasattr(module, attribute) and not hasattr(module, "_obeys_data_only"):
            adapt(module)
            module._obeys_data_only = True


def _adapt_config(module: Any) -> None:
    original, find_bases = module.Config.fromfile, module.Config._get_base_files

    @wraps(original)
    def fromfile(filename: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        return read_config(filename) if enabled() else original(filename, *args, **kwargs)

    @wraps(find_bases)
    def base_files(filename: str) -> Any:
        if not enabled():
            return find_bases(filename)
        return _base_names(*_parse(filename), _Placeholders(filename))

    module.Config.fromfile = staticmethod(fromfile)
    module.Config._get_base_files = staticmethod(base_files)


def _adapt_registry(module: Any) -> None:
    find_object = module.get_object_from_string

    @wraps(find_object)
    def registered_only(name: str) -> Any:
        if enabled():
            raise ConfigRefusedError(f"type={name!r} is not registered, and configs are read as data only ({VARIABLE})")
        return find_object(name)

    module.get_object_from_string = registered_only
