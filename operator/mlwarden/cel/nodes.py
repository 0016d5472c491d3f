"""The syntax tree. Nodes compare by identity: the checker keys its answers by node.

Macros are nodes of their own and are not expanded into cel-go's accumulator loops: the loops are an implementation detail, their
semantics (error absorption, scoping) are in `closures.py`, and a tree that still looks like the text gives better messages.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Base:
    """Every node knows where it starts."""

    position: int


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Literal(Base):
    """A bool, int, double, string or null."""

    value: bool | int | float | str | None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Name(Base):
    """An identifier: a variable, a name bound by a macro, or a type."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Select(Base):
    """`operand.field`, or `operand.?field`."""

    operand: "Node"
    field: str
    optional: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Has(Base):
    """`has(operand.field)`."""

    operand: "Node"
    field: str


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Index(Base):
    """`operand[index]`, or `operand[?index]`."""

    operand: "Node"
    index: "Node"
    optional: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Call(Base):
    """A function, a method (with a target) or an operator (`_+_`, `!_`, `_?_:_`, `@in` … as cel-go names them)."""

    function: str
    target: "Node | None" = None
    arguments: tuple["Node", ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Logic(Base):
    """`a && b && …` or `a || b || …`: flat, so that long chains do not nest."""

    operator: str
    terms: tuple["Node", ...]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ListOf(Base):
    """`[a, ?b]`; `optional` holds the indices marked with `?`."""

    elements: tuple["Node", ...]
    optional: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MapOf(Base):
    """`{key: value, ?key: value}`."""

    keys: tuple["Node", ...]
    values: tuple["Node", ...]
    optional: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Loop(Base):
    """`over.all(variable, …)` and its siblings `exists`, `exists_one`, `map`, `filter`.

    Attributes:
        predicate: the condition; absent in the two-argument `map`.
        transform: of `map` only.
    """

    macro: str
    over: "Node"
    variable: str
    predicate: "Node | None" = None
    transform: "Node | None" = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class OptionalMap(Base):
    """`target.optMap(variable, body)`, or `optFlatMap` (flat)."""

    target: "Node"
    variable: str
    body: "Node"
    flat: bool


Node: TypeAlias = Literal | Name | Select | Has | Index | Call | Logic | ListOf | MapOf | Loop | OptionalMap


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below, in the order of the text."""
    match node:
        case Literal() | Name():
            return ()
        case Select() | Has():
            return (node.operand,)
        case Index():
            return (node.operand, node.index)
        case Call():
            return node.arguments if node.target is None else (node.target, *node.arguments)
        case Logic():
            return node.terms
        case ListOf():
            return node.elements
        case MapOf():
            return tuple(part for pair in zip(node.keys, node.values, strict=True) for part in pair)
        case Loop():
            return (node.over, *(part for part in (node.predicate, node.transform) if part is not None))
        case OptionalMap():
            return (node.target, node.body)
