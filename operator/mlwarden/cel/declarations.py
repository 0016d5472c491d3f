"""The listed subset: every operator and function, its overloads, as Kubernetes 1.36 and later declare them for new expressions.

Data, not code: what is not in this table is refused. Overloads over types that no JSON value has (uint, bytes, timestamp, duration) are
left out; that changes no result, because such values cannot arise. Not here, and so refused: `format`, `strings.quote`, `find`,
`findAll`, url, ip, cidr, semver, named formats and the authorizer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mlwarden.cel.types import (
    BOOL,
    DOUBLE,
    DYN,
    INT,
    QUANTITY,
    STRING,
    TYPE,
    Type,
    list_of,
    map_of,
    optional_of,
    parameter,
)

A: Final = parameter("A")
B: Final = parameter("B")
UINT: Final = Type("uint")
"""No value is of this type; its presence makes `dyn % dyn` dyn, as in Kubernetes."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One signature. A method's first parameter is its target."""

    parameters: tuple[Type, ...]
    result: Type
    method: bool = False


def _plain(*rows: tuple[Type, ...]) -> tuple[Overload, ...]:
    """Rows of (parameter …, result)."""
    return tuple(Overload(row[:-1], row[-1]) for row in rows)


def _methods(*rows: tuple[Type, ...]) -> tuple[Overload, ...]:
    return tuple(Overload(row[:-1], row[-1], method=True) for row in rows)


def _ordered() -> Iterable[tuple[Type, ...]]:
    numbers = (INT, DOUBLE)
    yield from ((one, other, BOOL) for one in numbers for other in numbers)
    yield from ((BOOL, BOOL, BOOL), (STRING, STRING, BOOL))


_COMPARABLE: Final = (INT, DOUBLE, BOOL, STRING)
_ORDER: Final = _plain(*_ordered())
_EQUALITY: Final = _plain((A, A, BOOL))
_SETS: Final = _plain((list_of(A), list_of(A), BOOL))
_OPT_LIST: Final = optional_of(list_of(A))
_OPT_MAP: Final = optional_of(map_of(A, B))

OVERLOADS: Final[dict[str, tuple[Overload, ...]]] = {
    # operators
    "_?_:_": _plain((BOOL, A, A, A)),
    "!_": _plain((BOOL, BOOL)),
    "-_": _plain((DOUBLE, DOUBLE), (INT, INT)),
    "_==_": _EQUALITY,
    "_!=_": _EQUALITY,
    "_<_": _ORDER,
    "_<=_": _ORDER,
    "_>_": _ORDER,
    "_>=_": _ORDER,
    "_+_": _plain((DOUBLE, DOUBLE, DOUBLE), (INT, INT, INT), (list_of(A), list_of(A), list_of(A)), (STRING, STRING, STRING)),
    "_-_": _plain((DOUBLE, DOUBLE, DOUBLE), (INT, INT, INT)),
    "_*_": _plain((DOUBLE, DOUBLE, DOUBLE), (INT, INT, INT)),
    "_/_": _plain((DOUBLE, DOUBLE, DOUBLE), (INT, INT, INT)),
    "_%_": _plain((INT, INT, INT), (UINT, UINT, UINT)),
    "@in": _plain((A, list_of(A), BOOL), (A, map_of(A, B), BOOL)),
    "_[_]": _plain((list_of(A), INT, A), (map_of(A, B), A, B), (_OPT_LIST, INT, optional_of(A)), (_OPT_MAP, A, optional_of(B))),
    "_[?_]": _plain(
        (list_of(A), INT, optional_of(A)),
        (_OPT_LIST, INT, optional_of(A)),
        (map_of(A, B), A, optional_of(B)),
        (_OPT_MAP, A, optional_of(B)),
    ),
    # conversions
    "dyn": _plain((A, DYN)),
    "type": _plain((A, Type("type", (A,)))),
    "int": _plain((DOUBLE, INT), (INT, INT), (STRING, INT)),
    "double": _plain((DOUBLE, DOUBLE), (INT, DOUBLE), (STRING, DOUBLE)),
    "string": _plain((BOOL, STRING), (DOUBLE, STRING), (INT, STRING), (STRING, STRING)),
    "bool": _plain((BOOL, BOOL), (STRING, BOOL)),
    # strings and lists
    "size": (
        *_plain((STRING, INT), (list_of(A), INT), (map_of(A, B), INT)),
        *_methods((STRING, INT), (list_of(A), INT), (map_of(A, B), INT)),
    ),
    "contains": _methods((STRING, STRING, BOOL)),
    "startsWith": _methods((STRING, STRING, BOOL)),
    "endsWith": _methods((STRING, STRING, BOOL)),
    "matches": (*_methods((STRING, STRING, BOOL)), *_plain((STRING, STRING, BOOL))),
    "lowerAscii": _methods((STRING, STRING)),
    "upperAscii": _methods((STRING, STRING)),
    "trim": _methods((STRING, STRING)),
    "charAt": _methods((STRING, INT, STRING)),
    "replace": _methods((STRING, STRING, STRING, STRING), (STRING, STRING, STRING, INT, STRING)),
    "split": _methods((STRING, STRING, list_of(STRING)), (STRING, STRING, INT, list_of(STRING))),
    "substring": _methods((STRING, INT, STRING), (STRING, INT, INT, STRING)),
    "join": _methods((list_of(STRING), STRING), (list_of(STRING), STRING, STRING)),
    "indexOf": _methods((list_of(A), A, INT), (STRING, STRING, INT), (STRING, STRING, INT, INT)),
    "lastIndexOf": _methods((list_of(A), A, INT), (STRING, STRING, INT), (STRING, STRING, INT, INT)),
    "isSorted": _methods(*((list_of(each), BOOL) for each in _COMPARABLE)),
    "sum": _methods((list_of(INT), INT), (list_of(DOUBLE), DOUBLE)),
    "min": _methods(*((list_of(each), each) for each in _COMPARABLE)),
    "max": _methods(*((list_of(each), each) for each in _COMPARABLE)),
    "distinct": _methods((list_of(A), list_of(A))),
    "flatten": _methods((list_of(list_of(A)), list_of(A))),
    "reverse": _methods((list_of(A), list_of(A))),
    "slice": _methods((list_of(A), INT, INT, list_of(A))),
    "sort": _methods(*((list_of(each), list_of(each)) for each in _COMPARABLE)),
    "first": _methods((list_of(A), optional_of(A))),
    "last": _methods((list_of(A), optional_of(A))),
    "sets.contains": _SETS,
    "sets.equivalent": _SETS,
    "sets.intersects": _SETS,
    # optionals
    "optional.of": _plain((A, optional_of(A))),
    "optional.ofNonZeroValue": _plain((A, optional_of(A))),
    "optional.none": _plain((optional_of(A),)),
    "hasValue": _methods((optional_of(A), BOOL)),
    "value": _methods((optional_of(A), A)),
    "or": _methods((optional_of(A), optional_of(A), optional_of(A))),
    "orValue": _methods((optional_of(A), A, A)),
    # quantities
    "quantity": _plain((STRING, QUANTITY)),
    "isQuantity": _plain((STRING, BOOL)),
    "sign": _plain((QUANTITY, INT)),
    "isGreaterThan": _methods((QUANTITY, QUANTITY, BOOL)),
    "isLessThan": _methods((QUANTITY, QUANTITY, BOOL)),
    "compareTo": _methods((QUANTITY, QUANTITY, INT)),
    "asApproximateFloat": _methods((QUANTITY, DOUBLE)),
    "asInteger": _methods((QUANTITY, INT)),
    "isInteger": _methods((QUANTITY, BOOL)),
    "add": _methods((QUANTITY, QUANTITY, QUANTITY), (QUANTITY, INT, QUANTITY)),
    "sub": _methods((QUANTITY, QUANTITY, QUANTITY), (QUANTITY, INT, QUANTITY)),
}

TYPE_NAMES: Final[dict[str, Type]] = {
    "bool": Type("type", (BOOL,)),
    "int": Type("type", (INT,)),
    "double": Type("type", (DOUBLE,)),
    "string": Type("type", (STRING,)),
    "list": Type("type", (list_of(A),)),
    "map": Type("type", (map_of(A, B),)),
    "null_type": Type("type", (Type("null_type"),)),
    "type": Type("type", (TYPE,)),
}

COMPARES: Final = frozenset(
    ("_==_", "_!=_", "@in", "distinct", "indexOf", "lastIndexOf", "sets.contains", "sets.equivalent", "sets.intersects")
)
"""Functions that compare by equality: refused over quantities."""
