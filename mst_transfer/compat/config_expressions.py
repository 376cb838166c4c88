"""Values of a config's Python text, computed from its syntax tree: nothing is compiled, imported or run.

What a config may say: literals, names that it defined above, ``dict(...)`` and a few other builtins that make data,
arithmetic, indexing, comprehensions, plain f-strings, and ``_base_.name.name``. Everything else is refused, and so is
whatever would take more than a bounded number of steps, or make more than a bounded number of values.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mst_transfer.compat.config_budget import MAX_BITS, MAX_DEPTH, SCALARS, Budget, ConfigRefusedError, shown

_FORMAT = re.compile(r"0?\d{0,2}(\.\d{1,2})?[defgs%]?")
_UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_}
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda value, container: value in container,
    ast.NotIn: lambda value, container: value not in container,
}
_OF_SCALARS: dict[str, Callable] = {
    function.__name__: function for function in (abs, bool, float, int, max, min, range, round, sorted, str, sum)
}
_OF_ANYTHING: dict[str, Callable] = {
    function.__name__: function for function in (dict, enumerate, len, list, reversed, set, tuple, zip)
}


class Evaluator(Budget):
    """Computes the names that a config's text defines.

    Args:
        where: name of the file, for messages.
        bases: what ``_base_`` stands for.
        placeholder: value of the text inside ``{{ }}`` outside of quotes.
        text: what a text becomes (placeholders inside it are replaced).
    """

    def __init__(
        self,
        where: str,
        bases: Mapping[str, Any],
        placeholder: Callable[[str], Any],
        text: Callable[[str], str],
    ) -> None:
        super().__init__(where)
        self.bases, self.placeholder, self.text = bases, placeholder, text
        self.names: dict[str, Any] = {}

    def run(self, tree: ast.Module) -> dict[str, Any]:
        """The names and values that the statements define, in their order.

        Raises:
            ConfigRefusedError: names the line, what stands there and what may.
        """
        for statement in tree.body:
            self._statement(statement)
        return self.names

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.Assign):
            value = self.value(node.value)
            for target in node.targets:
                self._assign(target, value, self.names)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, self.value(node.value), self.names)
        elif isinstance(node, ast.AugAssign):
            former = ast.copy_location(ast.Name(getattr(node.target, "id", ""), ast.Load()), node)
            value = self.value(ast.copy_location(ast.BinOp(former, node.op, node.value), node))
            self._assign(node.target, value, self.names)
        elif not isinstance(node, ast.Pass):
            raise self._refuse(node, f"{shown(node)} is no assignment")

    def _assign(self, target: ast.expr, value: Any, names: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, list | tuple):
            if len(value) != len(target.elts) or any(isinstance(one, ast.Starred) for one in target.elts):
                raise self._refuse(target, f"{shown(target)} does not fit {len(value)} values")
            for one, part in zip(target.elts, value, strict=True):
                self._assign(one, part, names)
        else:
            raise self._refuse(target, f"{shown(target)} on the left of an assignment")

    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""
        self._spend(node, 1)
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise self._refuse(node, f"{shown(node)} ({type(node).__name__})")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refuse(node, f"nested more than {MAX_DEPTH} deep")
        try:
            return method(node)
        except (ArithmeticError, TypeError, LookupError, ValueError) as error:
            if isinstance(error, ConfigRefusedError):
                raise
            raise self._refuse(node, f"{shown(node)} has no value ({type(error).__name__}: {error})") from error
        finally:
            self._depth -= 1

    def _constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, SCALARS):
            raise self._refuse(node, f"{shown(node)} is neither text, number, bool nor None")
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            raise self._refuse(node, f"a number of more than {MAX_BITS} bits")
        return self.text(node.value) if isinstance(node.value, str) else node.value

    def _name(self, node: ast.Name) -> Any:
        if node.id == "_base_":
            return self.bases
        if node.id not in self.names:
            raise self._refuse(node, f"'{node.id}' is not defined above")
        return self.names[node.id]

    def _attribute(self, node: ast.Attribute) -> Any:
        root: ast.expr = node
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        owner = self.value(node.value) if isinstance(root, ast.Name) and root.id == "_base_" else None
        if not isinstance(owner, Mapping) or node.attr not in owner:
            raise self._refuse(node, f"{shown(node)} is no entry of _base_")
        return owner[node.attr]

    def _items(self, nodes: Iterable[ast.expr]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                inner = self.value(node.value)
                if not isinstance(inner, list | tuple | range):
                    raise self._refuse(node, f"{shown(node)} is no list")
                self._spend(node, len(inner))
                yield from inner
            else:
                yield self.value(node)

    def _list(self, node: ast.List) -> list:
        return list(self._items(node.elts))

    def _tuple(self, node: ast.Tuple) -> tuple:
        return tuple(self._items(node.elts))

    def _set(self, node: ast.Set) -> Any:
        if len(node.elts) == 1 and isinstance(node.elts[0], ast.Set) and len(node.elts[0].elts) == 1:
            inner = node.elts[0].elts[0]  # {{ … }}
            if isinstance(inner, ast.Attribute):
                return self.value(inner)
            return self.placeholder(str(inner.value) if isinstance(inner, ast.Constant) else ast.unparse(inner))
        return {self._key(one, value) for one, value in zip(node.elts, self._items(node.elts), strict=True)}

    def _dict(self, node: ast.Dict) -> dict:
        result: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                self._update(node, result, self.value(value))
            else:
                result[self._key(key, self.value(key))] = self.value(value)
        return result

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        if type(node.op) not in _UNARY:
            raise self._refuse(node, shown(node))
        return _UNARY[type(node.op)](self.value(node.operand))

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        function = _BINARY.get(type(node.op))
        sequences = [side for side in (left, right) if not isinstance(side, int | float)]
        if function is None or (sequences and not isinstance(node.op, ast.Add | ast.Mult)):
            raise self._refuse(node, f"{shown(node)} is no arithmetic of numbers")
        if isinstance(node.op, ast.Mult) and sequences:
            times = left if sequences[0] is right else right
            self._spend(node, len(sequences[0]) * max(times, 0))
        elif sequences:
            self._spend(node, len(left) + len(right))
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if isinstance(node.op, ast.Pow) else left.bit_length() + right.bit_length()
            if bits > MAX_BITS:
                raise self._refuse(node, f"{shown(node)} is a number of more than {MAX_BITS} bits")
        return function(left, right)

    def _boolop(self, node: ast.BoolOp) -> Any:
        for one in node.values:
            result = self.value(one)
            if bool(result) == isinstance(node.op, ast.Or):
                break
        return result

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for kind, one in zip(node.ops, node.comparators, strict=True):
            right = self.value(one)
            self._check_flat(node, left, right)
            if not _COMPARE[type(kind)](left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        owner = self.value(node.value)
        if not isinstance(owner, str | list | tuple | range | Mapping):
            raise self._refuse(node, f"{shown(node)}: nothing to index")
        if isinstance(node.slice, ast.Slice):
            parts: list[Any] = [
                part and self.value(part) for part in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            self._spend(node, len(owner))
            return owner[slice(*parts)]
        return owner[self._key(node.slice, self.value(node.slice))]

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        parts = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                if "{$" in str(part.value) or "{ $" in str(part.value):
                    raise self._refuse(node, "a {{ }} placeholder inside an f-string")
                parts.append(str(part.value))
                continue
            assert isinstance(part, ast.FormattedValue)
            value = self.value(part.value)
            spec = str(self.value(part.format_spec)) if part.format_spec else ""
            if part.conversion != -1 or not isinstance(value, SCALARS) or not _FORMAT.fullmatch(spec):
                raise self._refuse(node, f"{shown(node)} is no plain f-string")
            parts.append(format(value, spec))
            self._spend(node, len(parts[-1]))
        return "".join(parts)

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        function = _OF_SCALARS.get(name) or _OF_ANYTHING.get(name)
        if function is None or name in self.names:
            allowed = ", ".join(sorted({*_OF_SCALARS, *_OF_ANYTHING}))
            raise self._refuse(node, f"the call {shown(node)} (calls may be of {allowed})")
        arguments = list(self._items(node.args))
        if name == "dict":
            return self._dict_of(node, arguments)
        if node.keywords:
            raise self._refuse(node, f"{shown(node)}: {name} takes no named arguments here")
        if name in _OF_SCALARS:
            self._check_flat(node, *arguments)
            if name == "str" and not isinstance(arguments[0], SCALARS):
                raise self._refuse(node, f"{shown(node)}: str of a {type(arguments[0]).__name__}")
        else:
            self._spend(node, sum(len(one) for one in arguments))
            if name == "set":
                self._check_flat(node, *arguments)
        result = function(*arguments)
        if name in ("range", "str", "sorted"):
            self._spend(node, len(result))
        return list(result) if name in ("enumerate", "reversed", "zip") else result

    def _dict_of(self, node: ast.Call, arguments: list[Any]) -> dict:
        result: dict[Any, Any] = {}
        for one in arguments:
            if isinstance(one, Mapping):
                self._update(node, result, one)
                continue
            self._spend(node, len(one))
            result.update({self._key(node, key): value for key, value in one})
        for keyword in node.keywords:
            value = self.value(keyword.value)
            self._update(node, result, value if keyword.arg is None else {keyword.arg: value})
        return result

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp) -> list:
        return [self.value(node.elt) for _ in self._rounds(node.generators)]

    def _generatorexp(self, node: ast.GeneratorExp) -> list:
        return self._listcomp(node)

    def _dictcomp(self, node: ast.DictComp) -> dict:
        return {
            self._key(node.key, self.value(node.key)): self.value(node.value) for _ in self._rounds(node.generators)
        }

    def _rounds(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """One turn for each assignment of the loops' names, which are undone at the end."""
        if not generators:
            yield
            return
        first, former = generators[0], dict(self.names)
        values = self.value(first.iter)
        if first.is_async or not isinstance(values, list | tuple | range | set | Mapping | str):
            raise self._refuse(first.iter, f"{shown(first.iter)}: nothing to loop over")
        try:
            for one in values:
                self._assign(first.target, one, self.names)
                if all(self.value(condition) for condition in first.ifs):
                    yield from self._rounds(generators[1:])
        finally:
            self.names = former
