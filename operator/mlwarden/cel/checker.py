"""Names, types and the rules of the subset: a port of the parts of cel-go's `checker/checker.go` that the subset needs.

Also ported: Kubernetes' `ValidateHomogeneousAggregateLiterals` (no mixed lists and maps), and the rule that a validation's static type
is exactly bool. Stricter than Kubernetes: map literals have string keys, patterns of `matches` are literals (so that they are checked
here and never at admission), optionals are not put into lists, maps or other optionals, and quantities are compared by `compareTo`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from mlwarden.cel.declarations import COMPARES, OVERLOADS, TYPE_NAMES, Overload
from mlwarden.cel.errors import CelError
from mlwarden.cel.nodes import Call, Has, Index, ListOf, Literal, Logic, Loop, MapOf, Name, Node, OptionalMap, Select
from mlwarden.cel.types import BOOL, DOUBLE, DYN, INT, NULL, STRING, Type, Unifier, list_of, map_of, mentions, optional_of

_LITERALS: Final[dict[type, Type]] = {bool: BOOL, int: INT, float: DOUBLE, str: STRING, type(None): NULL}
_NAMESPACES: Final = frozenset(name.partition(".")[0] for name in OVERLOADS if "." in name and not name.startswith("."))


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the checker found out.

    Attributes:
        types: of every node, without type parameters.
        functions: of every call, the name in `OVERLOADS` (namespaced functions resolved).
    """

    types: Mapping[Node, Type]
    functions: Mapping[Node, str]


def check(node: Node, *, source: str, variables: Collection[str], expect: Type | None) -> Checked:
    """Types the tree. `expect` is the type the expression must have; None: any.

    Raises:
        CelError: an unknown name or function, types that do not fit, or something outside the subset.
    """
    checker = _Checker(source=source, variables=frozenset(variables))
    checker.visit(node, {})
    types = {each: checker.unifier.resolve(found, to_dyn=True) for each, found in checker.types.items()}
    checker.literals(types)
    result = types[node]
    if expect is not None and result != expect:
        hint = "compare it, e.g. `… == true`" if expect == BOOL else "wrap it: `string(…)`"
        raise CelError(f"the expression must be {expect} but is {result}", source=source, position=node.position, hint=hint)
    return Checked(types=types, functions=checker.functions)


def qualified(node: Node, function: str) -> str:
    """`a.b` + `f` → `a.b.f`, or "" where the node is not a plain chain of names."""
    parts = [function]
    while isinstance(node, Select) and not node.optional:
        parts.append(node.field)
        node = node.operand
    return ".".join([node.name, *reversed(parts)]) if isinstance(node, Name) else ""


@dataclass(kw_only=True)
class _Checker:
    source: str
    variables: frozenset[str]
    unifier: Unifier = field(default_factory=Unifier)
    types: dict[Node, Type] = field(default_factory=dict)
    functions: dict[Node, str] = field(default_factory=dict)

    def refuse(self, message: str, node: Node, hint: str = "") -> CelError:
        return CelError(message, source=self.source, position=node.position, hint=hint)

    def visit(self, node: Node, scope: Mapping[str, Type]) -> Type:
        """Types a node and remembers it."""
        found = self.types[node] = self.type_of(node, scope)
        return found

    def type_of(self, node: Node, scope: Mapping[str, Type]) -> Type:  # noqa: C901 -- one case per kind of node
        match node:
            case Literal():
                return _LITERALS[type(node.value)]
            case Name():
                return self.name(node, scope)
            case Select():
                return self.unifier.resolve(self.select(node, node.operand, scope, optional=node.optional))
            case Has():
                self.select(node, node.operand, scope, optional=False)
                return BOOL
            case Index():
                return self.index(node, scope)
            case Call():
                return self.call(node, scope)
            case Logic():
                for term in node.terms:
                    self.boolean(term, scope)
                return BOOL
            case ListOf():
                return self.list_literal(node, scope)
            case MapOf():
                return self.map_literal(node, scope)
            case Loop():
                return self.loop(node, scope)
            case OptionalMap():
                return self.optional_map(node, scope)

    def boolean(self, node: Node, scope: Mapping[str, Type]) -> None:
        found = self.visit(node, scope)
        if not self.unifier.assignable((found,), (BOOL,)):
            raise self.refuse(f"expected bool, found {self.shown(found)}", node)

    def shown(self, found: Type) -> Type:
        return self.unifier.resolve(found, to_dyn=True)

    def name(self, node: Name, scope: Mapping[str, Type]) -> Type:
        if node.name in scope:
            return scope[node.name]
        if node.name in self.variables:
            return DYN
        if node.name in TYPE_NAMES:
            return TYPE_NAMES[node.name]
        known = ", ".join(sorted(self.variables | scope.keys())) or "none"
        raise self.refuse(f"there is no variable {node.name!r} here", node, f"variables: {known}")

    def select(self, node: Node, operand: Node, scope: Mapping[str, Type], *, optional: bool) -> Type:
        given = self.unifier.resolve(self.visit(operand, scope))
        is_optional = given.kind == "optional"
        target = given.parameters[0] if is_optional else given
        match target.kind:
            case "map":
                result = target.parameters[1]
            case "param":
                self.unifier.assignable((DYN,), (target,))
                result = DYN
            case "dyn":
                result = DYN
            case _:
                raise self.refuse(f"{self.shown(target)} has no fields", node)
        return optional_of(result) if is_optional or optional else result

    def index(self, node: Index, scope: Mapping[str, Type]) -> Type:
        given = (self.visit(node.operand, scope), self.unifier.resolve(self.visit(node.index, scope)))
        if given[1].kind not in {"int", "double", "bool", "string", "dyn", "param"}:
            raise self.refuse(f"an index is a number or a string, this is {self.shown(given[1])}", node.index)
        return self.overload(node, "_[?_]" if node.optional else "_[_]", given)

    def call(self, node: Call, scope: Mapping[str, Type]) -> Type:
        arguments = tuple(self.visit(argument, scope) for argument in node.arguments)
        function = node.function
        if node.target is not None:
            namespaced = qualified(node.target, function)
            if namespaced in OVERLOADS:
                return self.overload(node, namespaced, arguments)
            if isinstance(node.target, Name) and node.target.name in _NAMESPACES - self.variables - scope.keys():
                raise self.refuse(f"{namespaced}() is not in the subset", node, self.similar(node.target.name))
            arguments = (self.visit(node.target, scope), *arguments)
        if function not in OVERLOADS:
            raise self.refuse(f"{function}() is not in the subset", node, f"functions: {', '.join(self.callable())}")
        return self.overload(node, function, arguments, method=node.target is not None)

    @staticmethod
    def callable() -> list[str]:
        return sorted(name for name in OVERLOADS if name[0].isalpha())

    def similar(self, namespace: str) -> str:
        return "functions: " + ", ".join(name for name in self.callable() if name.startswith(f"{namespace}."))

    def overload(self, node: Node, function: str, given: tuple[Type, ...], *, method: bool = False) -> Type:
        self.functions[node] = function
        result: Type | None = None
        candidates = [each for each in OVERLOADS[function] if each.method is method and len(each.parameters) == len(given)]
        if len(candidates) > 1 and any(self.unifier.resolve(each).kind == "param" for each in given):
            # Which overload an unbound type is bound to depends on the order of declarations in cel-go.
            raise self.refuse("an element of an empty list or map has no type", node)
        for candidate in candidates:
            wanted, answer = self.instantiate(candidate)
            if self.unifier.assignable(given, wanted):
                found = self.unifier.resolve(answer)
                if result is None:
                    result = found
                elif result.kind != "dyn" and result != found:
                    result = DYN
        if result is None:
            shown = ", ".join(str(self.shown(each)) for each in given)
            raise self.refuse(f"{function} does not take ({shown})", node)
        self.restrict(node, function, given)
        return result

    def instantiate(self, candidate: Overload) -> tuple[tuple[Type, ...], Type]:
        fresh: dict[str, Type] = {}

        def renamed(one: Type) -> Type:
            if one.kind == "param":
                return fresh.setdefault(one.name, self.unifier.fresh())
            return Type(one.kind, tuple(renamed(inner) for inner in one.parameters), one.name) if one.parameters else one

        return tuple(renamed(each) for each in candidate.parameters), renamed(candidate.result)

    def restrict(self, node: Node, function: str, given: tuple[Type, ...]) -> None:
        """What Kubernetes accepts and the subset does not."""
        resolved = tuple(self.unifier.resolve(each) for each in given)
        if function in {*COMPARES, "dyn", "type"} and any(mentions("quantity", each) for each in resolved):
            raise self.refuse("quantities are compared by compareTo, isLessThan and isGreaterThan", node)
        if function in {"optional.of", "optional.ofNonZeroValue"} and any(mentions("optional", each) for each in resolved):
            raise self.refuse("an optional of an optional is not in the subset", node)
        if function == "matches" and isinstance(node, Call):
            pattern = node.arguments[-1]
            if not (isinstance(pattern, Literal) and isinstance(pattern.value, str)):
                raise self.refuse("the pattern of matches() is a string literal", pattern)

    def list_literal(self, node: ListOf, scope: Mapping[str, Type]) -> Type:
        element: Type | None = None
        for index, each in enumerate(node.elements):
            found = self.element(each, scope, optional=index in node.optional)
            element = self.joined(each, element, found)
        return list_of(self.unifier.fresh() if element is None else element)

    def map_literal(self, node: MapOf, scope: Mapping[str, Type]) -> Type:
        if not node.keys:
            return map_of(self.unifier.fresh(), self.unifier.fresh())
        value: Type | None = None
        for index, (key, each) in enumerate(zip(node.keys, node.values, strict=True)):
            found = self.visit(key, scope)
            if self.unifier.resolve(found) != STRING:
                raise self.refuse(f"keys of maps are strings, this is {self.shown(found)}", key, "string(…) makes one")
            value = self.joined(each, value, self.element(each, scope, optional=index in node.optional))
        return map_of(STRING, value or DYN)

    def element(self, node: Node, scope: Mapping[str, Type], *, optional: bool) -> Type:
        found = self.unifier.resolve(self.visit(node, scope))
        if optional:
            if found.kind != "optional":
                raise self.refuse(f"`?` takes an optional, this is {self.shown(found)}", node)
            return found.parameters[0]
        if mentions("optional", found):
            raise self.refuse("an optional in a list or map is not in the subset", node, "write `?` before it, or orValue(…) after it")
        return found

    def joined(self, node: Node, previous: Type | None, current: Type) -> Type:
        if previous is None:
            return current
        found = self.unifier.join(previous, current)
        if found is None:
            raise self.refuse(f"expected {self.shown(previous)} as before, found {self.shown(current)}", node)
        return found

    def loop(self, node: Loop, scope: Mapping[str, Type]) -> Type:
        over = self.unifier.resolve(self.visit(node.over, scope))
        match over.kind:
            case "list" | "map":
                variable = over.parameters[0]
            case "dyn" | "param":
                self.unifier.assignable((DYN,), (over,))
                variable = DYN
            case _:
                raise self.refuse(f"{node.macro} goes over a list or map, this is {self.shown(over)}", node)
        inner = {**scope, node.variable: variable}
        if node.predicate is not None:
            self.boolean(node.predicate, inner)
        if node.transform is not None:
            return list_of(self.unifier.resolve(self.element(node.transform, inner, optional=False)))
        return list_of(self.unifier.resolve(variable)) if node.macro == "filter" else BOOL

    def optional_map(self, node: OptionalMap, scope: Mapping[str, Type]) -> Type:
        target = self.visit(node.target, scope)
        value = self.unifier.fresh()
        if not self.unifier.assignable((target,), (optional_of(value),)):
            raise self.refuse(f"the target is an optional, this is {self.shown(target)}", node)
        body = self.visit(node.body, {**scope, node.variable: self.unifier.resolve(value)})
        if not node.flat:
            if mentions("optional", self.unifier.resolve(body)):
                raise self.refuse("an optional of an optional is not in the subset", node.body, "optFlatMap takes an optional")
            return optional_of(self.unifier.resolve(body))
        # Kubernetes types it as `… ? body : optional.none()`.
        result = self.unifier.fresh()
        fits = self.unifier.assignable((body, optional_of(self.unifier.fresh())), (result, result))
        if not fits or self.unifier.resolve(body).kind not in {"optional", "dyn"}:
            raise self.refuse(f"the second argument is an optional, this is {self.shown(body)}", node.body)
        return self.unifier.resolve(result)

    def literals(self, types: Mapping[Node, Type]) -> None:
        """Kubernetes' validator: elements of a literal have one and the same type, dyn included."""
        for node in types:
            if isinstance(node, ListOf):
                self.homogeneous(node.elements, node.optional, types)
            elif isinstance(node, MapOf):
                self.homogeneous(node.values, node.optional, types)

    def homogeneous(self, nodes: tuple[Node, ...], optional: frozenset[int], types: Mapping[Node, Type]) -> None:
        first: Type | None = None
        for index, node in enumerate(nodes):
            found = types[node]
            if index in optional:
                found = found.parameters[0]
            if first is None:
                first = found
            elif found != first:
                raise self.refuse(f"a list or map of {first} cannot hold {found}", node, "all elements have one type; dyn(…) makes any")
