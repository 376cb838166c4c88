"""Misspelt config keys are refused; mmengine ignores them silently.

A top-level name of a config is accepted if

- mmengine's Runner or the libraries read it (``LIVE_KEYS``, ``VARIABLES``),
- some file of the config reads it itself (a helper variable, like ``max_epochs`` in ``dict(max_epochs=max_epochs)``),
- a ``_base_`` of another package (``mmdet::...``) defines it,
- it starts with an underscore, or the config lists it in ``allowed_keys``,
- a run saved it: its variables were read when the run began.

A misspelt key, ``trian_cfg``, is none of these.
"""

import ast
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mst_transfer.configs.saved import read_config_file

# Beside the Runner's arguments: what it, or we, read from the config when a run starts.
LIVE_KEYS = frozenset(
    """
    activation_checkpointing compile efficient_conv_bn_eval find_unused_parameters model_wrapper_cfg
    sync_bn strategy runner_type custom_imports allowed_keys tta_model tta_pipeline launcher exact_resume
    image_checks max_nonfinite_steps track
    """.split()
)
# Variables of the libraries' configs: copied while the file is read.
VARIABLES = frozenset(
    """
    dataset_type data_root backend_args file_client_args metainfo num_classes crop_size img_scale image_size
    train_pipeline val_pipeline test_pipeline img_ratios vis_backends norm_cfg max_epochs max_iters
    class_name classes palette albu_train_transforms
    """.split()
)


class UnknownConfigKeyError(ValueError):
    """A config or a ``--cfg-options`` path has a name that nothing reads, or that nothing reads any more."""


@functools.cache
def runner_keys() -> frozenset[str]:
    """Names of the arguments of mmengine's Runner, read from its source: importing it takes seconds."""
    import mmengine

    source = (Path(str(mmengine.__file__)).parent / "runner" / "runner.py").read_text(encoding="utf-8")
    (runner,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Runner")
    (init,) = (node for node in runner.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return frozenset(argument.arg for argument in (*init.args.args, *init.args.kwonlyargs)) - {"self", "cfg"}


def check_config(cfg: Any) -> None:
    """Refuses an mmengine ``Config`` with unknown top-level keys.

    Raises:
        UnknownConfigKeyError: Names each unknown key, the nearest known one and the ways out.
    """
    known = _live_keys(cfg) | VARIABLES
    suspects = [key for key in cfg if key not in known and not key.startswith("_")]
    if suspects and cfg.filename:
        if Path(cfg.filename).suffix == ".json":
            return
        accepted = _names_read_or_inherited(Path(cfg.filename))
        suspects = [key for key in suspects if key not in accepted]
    if suspects:
        lines = [f"  '{key}'{_did_you_mean(key, known)}" for key in suspects]
        raise UnknownConfigKeyError(
            f"config {cfg.filename or '(built in code)'} has top-level keys that nothing reads:\n"
            + "\n".join(lines)
            + "\nNext step: correct the name; or, for a variable of your own, start it with '_' or add "
            f"allowed_keys = {suspects!r} to the config"
        )


def check_cfg_options(cfg: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Refuses ``--cfg-options`` whose path does not exist in the config, or that come too late.

    Too late comes a change to a variable like ``data_root`` or ``train_pipeline``: reading the file has copied
    its value to where it is used. After merging, ``check_config`` finds new top-level keys that nothing reads.

    Args:
        cfg: The ``mmengine.Config`` that they are to change.
        options: Dotted path → value. A leading ``+`` allows a new key: ``+optim_wrapper.clip_grad.max_norm=1``.

    Returns:
        The options without the plus signs, ready for ``cfg.merge_from_dict``.

    Raises:
        UnknownConfigKeyError: Names the first part that does not exist, the nearest one and the ways out; or the paths
            to which a variable was copied.
    """
    for option in options:
        path = option.removeprefix("+")
        _check_path(cfg, path, path != option)
        _check_not_copied(cfg, option, path)
    return {option.removeprefix("+"): value for option, value in options.items()}


def _live_keys(cfg: Any) -> frozenset[str]:
    return runner_keys() | LIVE_KEYS | frozenset(cfg.get("allowed_keys") or ())


def _descend(node: Any, parts: Sequence[str]) -> tuple[int, Any]:
    """How many parts of a dotted path exist, and the value there."""
    for depth, part in enumerate(parts):
        if part not in _children(node):
            return depth, node
        node = node[int(part)] if isinstance(node, Sequence) else node[part]
    return len(parts), node


def _check_path(cfg: Any, path: str, adds: bool) -> None:
    parts = path.split(".")
    depth, node = _descend(cfg, parts)
    if depth == len(parts) or (depth == 0 and parts[0] in runner_keys()):  # or a section that is left to its default
        return
    part, known, parent = parts[depth], _children(node), ".".join(parts[:depth])
    where = f"'{parent}'" if depth else "the top level of the config"
    if not adds:
        raise UnknownConfigKeyError(
            f"--cfg-options {path}: {where} has no '{part}'{_did_you_mean(part, known)}. "
            f"It has: {', '.join(sorted(known)) or 'nothing below it'}. "
            f"Next step: correct the path, or write +{path}=... to add a new key"
        )
    if isinstance(node, Sequence) and not isinstance(node, str):
        raise UnknownConfigKeyError(
            f"--cfg-options +{path}: '{parent}' is a list of {len(known)} items and has no '{part}'; items are added "
            "in a config file alone. Next step: write the whole list there"
        )


def _check_not_copied(cfg: Any, option: str, path: str) -> None:
    name, _, below = path.partition(".")
    live = _live_keys(cfg)
    if name in live or name not in cfg:
        return
    rest = f".{below}" if below else ""
    paths = [copy + rest for copy in _copies(cfg, live, name, cfg[name])]
    if not paths and below:
        parts = below.split(".")
        depth, leaf = _descend(cfg[name], parts)
        copies = _copies(cfg, live, parts[-1], leaf if depth == len(parts) else None)
        paths = [copy for copy in copies if copy.endswith(f".{parts[-1]}")]
    ways = f"set {', '.join(paths[:8])}" if paths else "change it in the config file, or set the path where it is used"
    raise UnknownConfigKeyError(
        f"--cfg-options {option}: '{name}' is a variable of the config file; its value was copied when the file was "
        f"read, so a change would have no effect. Next step: {ways}"
    )


def _copies(cfg: Any, live: Iterable[str], name: str, value: Any) -> list[str]:
    """Paths below the keys in ``live`` that are called ``name``, hold ``value``, or a text that begins with it."""

    def walk(node: Any, path: str) -> Iterator[str]:
        text = isinstance(node, str) and isinstance(value, str) and len(value) > 2 and node.startswith(value)
        same = isinstance(value, dict | list | tuple) and bool(value) and node == value
        if path.rpartition(".")[2] == name or text or same:
            yield path
            return
        for key in _children(node):
            yield from walk(node[int(key)] if isinstance(node, list | tuple) else node[key], f"{path}.{key}")

    return [path for key in cfg if key in live for path in walk(cfg[key], key)]


def _children(node: Any) -> list[str]:
    if hasattr(node, "keys"):  # a Config, or a mapping
        return [str(key) for key in node.keys()]
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [str(index) for index in range(len(node))]
    return []


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""


def _names_read_or_inherited(path: Path) -> set[str]:
    """Top-level names that the files of a config read, or that bases of other packages define."""
    from mmengine.config import Config

    names: set[str] = set()
    if path.suffix != ".py":
        return names
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):  # a file with mmengine's {{ }} placeholders outside strings, or gone since
        return names
    names |= _names_read(tree)
    for base in Config._get_base_files(str(path)):
        base_path, _ = Config._get_cfg_path(base, str(path))
        if "::" in base and not base.startswith("mst_transfer::"):
            names |= set(read_config_file(base_path))
        else:
            names |= _names_read_or_inherited(Path(base_path))
    return names


def _names_read(tree: ast.AST) -> set[str]:
    """Names that a file reads: plain, and as ``_base_.name``, also inside strings like ``'{{_base_.name}}'``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_base_":
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "_base_." in node.value:
            names |= {piece.split("}")[0].split(".")[0].strip() for piece in node.value.split("_base_.")[1:]}
    return names


def parse_cfg_options(items: Iterable[str], option: str = "--cfg-options") -> dict[str, Any]:
    """Reads ``KEY=VALUE`` words of a command line as mmengine does: numbers, booleans, None, lists, tuples, text.

    Raises:
        ValueError: A word has no ``=``, or brackets that make no list or tuple; names the option.
    """
    from mmengine.config import DictAction

    options: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ValueError(f"{option} {item!r}: it must be KEY=VALUE, e.g. train_cfg.max_epochs=20")
        try:
            options[key] = DictAction._parse_iterable(value)
        except (AssertionError, RecursionError) as error:
            raise ValueError(
                f"{option} {item[:200]!r}: its brackets do not close, or stand behind a word; a list is [1,2], a "
                "tuple (1,2), without blanks"
            ) from error
    return options
