"""CEL's static types and their unification: a port of cel-go's `checker/types.go` (0.29.2).

Ported rather than simplified: what Kubernetes refuses at apply (`1 == 'a'`, `[1, 'a']`, a validation that is not bool) must be refused
here too, or a policy would work in the webhook and not compile to a ValidatingAdmissionPolicy. One rule is stricter: a Quantity is
never dynamic (`assignable`), because its equality is asymmetric in Kubernetes (see `quantity.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Type:
    """A type: its kind, the parameters of `list`, `map`, `optional` and `type`, and the name of a `param`."""

    kind: str
    parameters: tuple["Type", ...] = ()
    name: str = ""

    def __str__(self) -> str:
        inner = f"({', '.join(map(str, self.parameters))})" if self.parameters else ""
        return f"{self.name or self.kind}{inner}"


DYN: Final = Type("dyn")
BOOL: Final = Type("bool")
INT: Final = Type("int")
DOUBLE: Final = Type("double")
STRING: Final = Type("string")
NULL: Final = Type("null_type")
QUANTITY: Final = Type("quantity")
TYPE: Final = Type("type")
_NULLABLE: Final = frozenset(("optional", "quantity"))


def list_of(element: Type) -> Type:
    """list(element)."""
    return Type("list", (element,))


def map_of(key: Type, value: Type) -> Type:
    """map(key, value)."""
    return Type("map", (key, value))


def optional_of(value: Type) -> Type:
    """optional_type(value)."""
    return Type("optional", (value,))


def parameter(name: str) -> Type:
    """A type parameter, to be bound by unification."""
    return Type("param", name=name)


def mentions(kind: str, within: Type) -> bool:
    """Is there a type of this kind anywhere inside?"""
    return within.kind == kind or any(mentions(kind, inner) for inner in within.parameters)


class Unifier:
    """Bindings of type parameters, grown as the checker walks. A failed attempt leaves them as they were."""

    def __init__(self) -> None:
        self._bound: dict[Type, Type] = {}
        self._fresh = 0

    def fresh(self) -> Type:
        """A type parameter nobody else has."""
        self._fresh += 1
        return parameter(f"_var{self._fresh}")

    def assignable(self, given: Sequence[Type], wanted: Sequence[Type]) -> bool:
        """Can values of these types stand where those are wanted? Binds parameters if so."""
        before = dict(self._bound)
        if len(given) == len(wanted) and all(self._assignable(one, other) for one, other in zip(given, wanted, strict=True)):
            return True
        self._bound = before
        return False

    def join(self, previous: Type, current: Type) -> Type | None:
        """The type of a literal's elements so far, or None where they do not agree."""
        return _most_general(previous, current) if self.assignable((previous,), (current,)) else None

    def resolve(self, given: Type, *, to_dyn: bool = False) -> Type:
        """Replaces parameters by what they are bound to, and unbound ones by dyn where asked."""
        bound = self._bound.get(given)
        if bound is not None:
            return self.resolve(bound, to_dyn=to_dyn)
        if given.kind == "param":
            return DYN if to_dyn else given
        if not given.parameters:
            return given
        return Type(given.kind, tuple(self.resolve(inner, to_dyn=to_dyn) for inner in given.parameters), given.name)

    def _assignable(self, given: Type, wanted: Type) -> bool:
        if wanted.kind == "param":
            valid, bound = self._substitution(given, wanted)
            if valid or bound:
                return valid
        if given.kind == "param":
            return self._substitution(wanted, given)[0]
        if given.kind == "dyn" or wanted.kind == "dyn":
            return not (mentions("quantity", given) or mentions("quantity", wanted))
        if given.kind == "null_type" or wanted.kind == "null_type":
            other = wanted if given.kind == "null_type" else given
            return other.kind == "null_type" or other.kind in _NULLABLE
        if given.kind != wanted.kind:
            return False
        if given.kind == "type":
            return True
        return len(given.parameters) == len(wanted.parameters) and all(
            self._assignable(one, other) for one, other in zip(given.parameters, wanted.parameters, strict=True)
        )

    def _substitution(self, given: Type, param: Type) -> tuple[bool, bool]:
        """(may `param` stand for `given`, is it bound already)."""
        if given == param:
            return True, True
        bound = self._bound.get(param)
        if bound is not None:
            if given == bound:
                return True, True
            if self._assignable(given, bound):
                general = _most_general(given, bound)
                if self._absent(param, general):
                    self._bound[param] = general
                return True, True
            return False, True
        if self._absent(param, given):
            self._bound[param] = given
            return True, False
        return False, False

    def _absent(self, param: Type, within: Type) -> bool:
        """The occurs check."""
        if param == within:
            return False
        if within.kind == "param":
            bound = self._bound.get(within)
            return bound is None or self._absent(param, bound)
        return all(self._absent(param, inner) for inner in within.parameters)


def _most_general(one: Type, other: Type) -> Type:
    return one if _less_specific(one, other) else other


def _less_specific(one: Type, other: Type) -> bool:
    if one.kind in {"dyn", "param"}:
        return True
    if other.kind in {"dyn", "param"} or one.kind != other.kind:
        return False
    if one.kind == "type":
        return True
    return len(one.parameters) == len(other.parameters) and all(
        _less_specific(a, b) for a, b in zip(one.parameters, other.parameters, strict=True)
    )
