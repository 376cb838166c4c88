"""How much a config may compute, and how what it may not say is refused."""

import ast
from collections.abc import Mapping
from typing import Any

MAX_SPENT = 2_000_000  # steps of evaluation, values in sequences, characters of texts
MAX_DEPTH = 100
MAX_BITS = 4096
SCALARS = (str, int, float, bool, type(None))


class ConfigRefusedError(ValueError):
    """A config says something that is not data, or too much of it."""


class Budget:
    """Counts steps and values; refuses with the file and the line.

    Args:
        where: name of the file, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._spent = self._depth = 0

    def _refuse(self, node: ast.AST, why: str) -> ConfigRefusedError:
        return ConfigRefusedError(
            f"{self.where}:{getattr(node, 'lineno', '?')}: {why}: configs are read as data only, without running "
            "them. Next step: write the value out; or, if you trust every line of the file, read it as a program"
        )

    def _spend(self, node: ast.AST, amount: int) -> None:
        self._spent += amount
        if self._spent > MAX_SPENT:
            raise self._refuse(node, f"more than {MAX_SPENT:,} steps and values")

    def _check_flat(self, node: ast.AST, *values: Any) -> None:
        """Comparing nested values that share parts could take forever."""
        for value in values:
            if isinstance(value, list | tuple | set | Mapping):
                self._spend(node, len(value))
                if isinstance(value, Mapping) or all(isinstance(one, SCALARS) for one in value):
                    continue
                raise self._refuse(node, f"{shown(node)}: nested values are not compared")
            elif isinstance(value, str | range):
                self._spend(node, len(value))

    def _key(self, node: ast.AST, value: Any) -> Any:
        if not isinstance(value, SCALARS):
            raise self._refuse(node, f"a key of type {type(value).__name__}")
        return value

    def _update(self, node: ast.AST, result: dict, more: Any) -> None:
        if not isinstance(more, Mapping):
            raise self._refuse(node, "** of something that is no dict")
        self._spend(node, len(more))
        result.update(more)


def shown(node: ast.AST, limit: int = 60) -> str:
    text = ast.unparse(node).replace("\n", " ")
    return repr(text if len(text) <= limit else text[:limit] + "…")
