"""Which room may import from which: the floors of both packages, in the syntax tree of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# From the ground up. A room imports from lower floors, and from itself; lazily or for types makes no difference.
ROOMS = ["files", "registry configs devices", "compat", "checkpoint", "runs", "models datasets evaluation export"]
ROOMS += ["probes preflight", "engine", "card", "cli"]
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}
PRETRAIN_MAY_USE = {room for room, floor in FLOORS.items() if floor <= FLOORS["runs"]} | {"probes"}

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mst_transfer", "pretrain")
RUN = "mst_transfer.engine.run"


def module_files(root: Path) -> dict[str, Path]:
    """Dotted name → file of every module of the packages; configs of pre-training are data."""
    files = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            if not path.is_relative_to(root / "pretrain" / "configs"):
                files[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return files


def names_imported(name: str, path: Path) -> Iterator[str]:
    """Full names in every import statement of a module, at whatever depth."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imports(root: Path) -> dict[str, set[str]]:
    """Module → modules of the packages that it imports."""
    files = module_files(root)

    def module_of(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {module_of(target) for target in names_imported(name, path)} - {"", name} for name, path in files.items()
    }


def room_of(module: str) -> str:
    """The room of a module of ``mst_transfer``; the package itself has none."""
    return module.partition(".")[2].partition(".")[0]


def is_allowed(importer: str, imported: str) -> bool:
    """Whether the doors let a module import another."""
    if imported == "mst_transfer":  # every import of a module runs it
        return True
    if imported.startswith("pretrain"):  # the command line and the Python API call the pre-trainer
        return importer.startswith("pretrain") or importer.startswith("mst_transfer.cli") or importer == "mst_transfer"
    if importer.startswith("pretrain"):
        return room_of(imported) in PRETRAIN_MAY_USE
    if importer == "mst_transfer":
        return True
    here, there = room_of(importer), room_of(imported)
    return here == there or FLOORS[there] < FLOORS[here]


def broken_doors(root: Path) -> set[tuple[str, str]]:
    """Imports that go up, or sideways."""
    return {(a, b) for a, targets in imports(root).items() for b in targets if not is_allowed(a, b)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, over whatever way, the first one again at the end; empty: there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(name) for name in module_files(ROOT) if name.startswith("mst_transfer.")}
    assert rooms <= set(FLOORS)


def test_imports_go_down() -> None:
    assert broken_doors(ROOT) == set()


def test_no_circles() -> None:
    graph = {name: targets - set(PACKAGES) for name, targets in imports(ROOT).items()}
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("importer", "line", "imported"),
    [
        ("files/paper.py", "from mst_transfer.engine import run", RUN),
        ("models/paper.py", "def f():\n    import mst_transfer.engine.run", RUN),
        ("models/paper.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..engine import run", RUN),
        ("datasets/paper.py", "from mst_transfer.models import norms", "mst_transfer.models.norms"),
        ("engine/paper.py", "from pretrain.model import MST", "pretrain.model"),
        ("../pretrain/paper.py", "def f():\n    from mst_transfer.engine import run", RUN),
    ],
)
def test_a_broken_door_is_seen(tmp_path: Path, importer: str, line: str, imported: str) -> None:
    for file in ("engine/run.py", "models/norms.py", "../pretrain/model.py", importer):
        path = (tmp_path / "mst_transfer" / file).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line if file == importer else "")
    assert {b for _, b in broken_doors(tmp_path)} == {imported}


def test_a_circle_is_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("pretrain", ("mmdet", "mmseg", "mmcv")),
        ("mst_transfer", ("pretrain", "mmdet", "mmseg", "mmcv", "mmengine", "torch", "torchvision", "timm")),
        ("mst_transfer.checkpoint", ("pretrain", "mmdet", "mmseg", "mmcv", "mmengine")),
        ("mst_transfer.configs.read", ("pretrain", "mmdet", "mmseg", "mmcv")),
        ("mst_transfer.probes", ("pretrain", "mmdet", "mmseg", "mmcv")),
        ("mst_transfer.models.backbones", ("pretrain", "mmdet", "mmseg")),
    ],
)
def test_what_an_import_loads(modules: str, unwanted: tuple[str, ...]) -> None:
    """All of ``pretrain``, probes and backbones without the libraries of heads; the contract without anything heavy."""
    names = [modules]
    if modules in ("pretrain", "mst_transfer.probes", "mst_transfer.models.backbones"):
        names = [name for name in module_files(ROOT) if name.startswith(modules) and "__main__" not in name]
    code = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        f"print([name for name in sys.modules if name.split('.')[0] in {unwanted!r}])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"
