"""The checked tree, compiled to Python closures over plain JSON.

A closure takes the frame (see `values.Frame`) and returns a value or raises `EvaluationError`. Rejected: walking the tree (three times
slower), and generating Python source (as fast, but needs `exec`). Macro variables live in numbered slots of the frame; loops never
overlap in a slot, because each nested one gets the next number.

A field that is missing is an exception and costs a microsecond; `has()` and `.?` do not raise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mlwarden.cel import operators
from mlwarden.cel.checker import Checked
from mlwarden.cel.errors import CelError, EvaluationError
from mlwarden.cel.functions import FUNCTIONS
from mlwarden.cel.matching import compile_pattern
from mlwarden.cel.nodes import Call, Has, Index, ListOf, Literal, Logic, Loop, MapOf, Name, Node, OptionalMap, Select, children
from mlwarden.cel.operators import Closure
from mlwarden.cel.pattern import PatternError
from mlwarden.cel.types import DOUBLE
from mlwarden.cel.values import NONE, Frame, Optional, TypeValue, no_overload, stored

FIRST_SLOT: Final = 2
"""frame[0] is the budget, frame[1] the variables."""

_CONVERSIONS: Final = frozenset(("int", "double", "bool", "quantity"))


@dataclass(kw_only=True, slots=True)
class Compiler:
    """Compiles one expression. `slots` is how many macro variables a frame needs."""

    source: str
    checked: Checked
    slots: int = 0

    def compile(self, node: Node, scope: Mapping[str, int]) -> Closure:  # noqa: C901 -- one case per kind of node
        """One closure for one node; `scope` maps macro variables to slots."""
        match node:
            case Literal():
                return operators.constant(node.value)
            case Name():
                return self.name(node, scope)
            case Select():
                operand = self.compile(node.operand, scope)
                return operators.optional_select(operand, node.field) if node.optional else operators.select(operand, node.field)
            case Has():
                return operators.has(self.compile(node.operand, scope), node.field)
            case Index():
                operand, index = self.compile(node.operand, scope), self.compile(node.index, scope)
                return operators.index(operand, index, optional=node.optional)
            case Call():
                return self.call(node, scope)
            case Logic():
                terms = [self.compile(term, scope) for term in node.terms]
                return operators.logic(terms, decisive=node.operator == "||")
            case ListOf():
                return operators.list_literal(tuple(self.compile(each, scope) for each in node.elements), node.optional)
            case MapOf():
                keys = tuple(self.compile(each, scope) for each in node.keys)
                return operators.map_literal(keys, tuple(self.compile(each, scope) for each in node.values), node.optional)
            case Loop():
                return self.loop(node, scope)
            case OptionalMap():
                return self.optional_map(node, scope)

    def name(self, node: Name, scope: Mapping[str, int]) -> Closure:
        """A macro variable, a variable of the environment, or a type."""
        if node.name in scope:
            slot = scope[node.name]
            return lambda frame: frame[slot]
        found = self.checked.types[node]
        return operators.constant(TypeValue(found.parameters[0].kind)) if found.kind == "type" else operators.variable(node.name)

    def call(self, node: Call, scope: Mapping[str, int]) -> Closure:
        """A function or operator, by its resolved name."""
        function = self.checked.functions[node]
        parts = node.arguments if node.target is None or "." in function else (node.target, *node.arguments)
        if function == "matches":
            return self.matches(node, parts, scope)
        arguments = [self.compile(part, scope) for part in parts]
        special = operators.LAZY.get(function)
        if special is not None:
            return special(*arguments)
        if function in {"_==_", "_!=_"}:
            return operators.equality(parts, arguments, wanted=function == "_==_")
        if function == "sum" and self.checked.types[parts[0]].parameters[:1] == (DOUBLE,):
            function = "sum(double)"
        closure = operators.apply(FUNCTIONS[function, len(arguments)], arguments)
        if function in _CONVERSIONS and isinstance(parts[0], Literal):
            self.fold(node, function, closure)
        return closure

    def fold(self, node: Call, function: str, closure: Closure) -> None:
        """Kubernetes evaluates conversions of literals when it compiles, and refuses the ones that fail."""
        try:
            closure([1000, {}])
        except EvaluationError as error:
            raise CelError(f"{function}(): {error.message}", source=self.source, position=node.position) from None

    def matches(self, node: Call, parts: tuple[Node, ...], scope: Mapping[str, int]) -> Closure:
        """`matches`, with its pattern compiled now."""
        pattern = parts[1]
        if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            raise CelError("the pattern of matches() is a string literal", source=self.source, position=node.position)
        try:
            search = compile_pattern(pattern.value)
        except PatternError as error:
            message = f"the pattern is refused: {error} (at its character {error.offset + 1})"
            raise CelError(message, source=self.source, position=pattern.position) from None
        text = self.compile(parts[0], scope)
        return lambda frame: search(frame, text(frame))

    def bind(self, variable: str, scope: Mapping[str, int]) -> tuple[int, dict[str, int]]:
        """A slot for a macro variable: one above every slot in sight, so that a shadowed one keeps its value."""
        slot = max(scope.values(), default=FIRST_SLOT - 1) + 1
        self.slots = max(self.slots, slot - FIRST_SLOT + 1)
        return slot, {**scope, variable: slot}

    def loop(self, node: Loop, scope: Mapping[str, int]) -> Closure:
        """One of the macros over a list or map."""
        over = self.compile(node.over, scope)
        slot, inner = self.bind(node.variable, scope)
        weight = 1 + sum(_weight(part) for part in (node.predicate, node.transform) if part is not None)
        predicate = None if node.predicate is None else self.compile(node.predicate, inner)
        transform = None if node.transform is None else self.compile(node.transform, inner)
        match node.macro, predicate, transform:
            case "all" | "exists", _, _ if predicate is not None:
                return operators.quantifier(over, slot, predicate, weight, decisive=node.macro == "exists")
            case "exists_one", _, _ if predicate is not None:
                return operators.exists_one(over, slot, predicate, weight)
            case _, _, None if predicate is not None:
                return operators.keep(over, slot, predicate, weight)
            case _ if transform is not None:
                return operators.transform(over, slot, predicate, transform, weight)
            case _:
                raise CelError(f"{node.macro} is not in the subset", source=self.source, position=node.position)

    def optional_map(self, node: OptionalMap, scope: Mapping[str, int]) -> Closure:
        """`optMap` and `optFlatMap`."""
        target = self.compile(node.target, scope)
        slot, inner = self.bind(node.variable, scope)
        body = self.compile(node.body, inner)
        flat = node.flat

        def optional_map(frame: Frame) -> Any:
            value = target(frame)
            if type(value) is not Optional:
                raise no_overload("optMap", value)
            if value is NONE:
                return NONE
            frame[slot] = value.value
            result = body(frame)
            if not flat:
                return Optional(stored(result))
            if type(result) is not Optional:
                raise no_overload("optFlatMap", result)
            return result

        return optional_map


def _weight(node: Node) -> int:
    """The cost of evaluating a node once; loops inside charge for themselves."""
    if isinstance(node, Loop):
        return 1 + _weight(node.over)
    return 1 + sum(_weight(child) for child in children(node))
