"""Prints the lines of every room, and the longest modules and functions: ``python tests/sizes.py [CHECKOUT]``."""

import ast
import sys
from collections import Counter
from pathlib import Path

METHOD = ("model", "masking", "head", "decoder", "losses", "schedules", "step")


def lines(path: Path) -> int:
    """Lines of a file, blank ones included."""
    return len(path.read_text(encoding="utf-8").splitlines())


def length(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - doc


def main() -> None:
    """Prints the tables."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    rooms: Counter[str] = Counter()
    modules, functions = [], []
    for path in sorted(file for package in ("mst_transfer", "pretrain") for file in (root / package).rglob("*.py")):
        parts = path.relative_to(root).parts
        rooms["/".join(parts[:2] if len(parts) > 2 else parts[:1])] += lines(path)
        modules.append((lines(path), "/".join(parts)))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                functions.append((length(node), f"{'/'.join(parts)}: {node.name}"))
    tests = {room: sum(map(lines, (root / "tests" / room).rglob("*.py"))) for room in rooms if "/" in room}
    for room, count in sorted(rooms.items()):
        print(f"{room:30} {count:6,} {tests.get(room, ''):>6}")
    print(f"{'packages, tests':30} {sum(rooms.values()):6,} {sum(map(lines, (root / 'tests').rglob('*.py'))):6,}")
    print(f"{'the method':30} {sum(lines(root / 'pretrain' / f'{name}.py') for name in METHOD):6,}")
    for title, found in (("modules", modules), ("functions, docstrings left out", functions)):
        print(f"longest {title}: " + "; ".join(f"{name} {count}" for count, name in sorted(found, reverse=True)[:4]))


if __name__ == "__main__":
    main()
