"""What the tests of this folder share: an evaluator for expressions of any type, and the answers Kubernetes gave."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlwarden.cel.checker import check
from mlwarden.cel.closures import Compiler
from mlwarden.cel.parser import parse
from mlwarden.cel.values import BUDGET, NONE, Optional, TypeValue

RECORDED = Path(__file__).with_name("recorded.jsonl")
VARIABLES = ("object", "x", "y")


def run(source: str, variables: dict[str, Any]) -> Any:
    """Compiles and evaluates an expression of any type; returns its static type and its value."""
    node = parse(source)
    checked = check(node, source=source, variables=VARIABLES, expect=None)
    compiler = Compiler(source=source, checked=checked)
    closure = compiler.compile(node, {})

    def evaluate() -> Any:
        return closure([BUDGET, variables, *([None] * compiler.slots)])

    return str(checked.types[node]), evaluate


def plain(value: Any) -> Any:
    """A value of ours in the recorder's notation."""
    match value:
        case bool():
            return {"bool": value}
        case int():
            return {"int": str(value)}
        case float():
            return {"double": value if math.isfinite(value) else str(value)}
        case str():
            return {"string": value}
        case None:
            return {"null": True}
        case Optional():
            return {"none": True} if value is NONE else {"optional": plain(value.value)}
        case list():
            return {"list": [plain(each) for each in value]}
        case dict():
            return {"map": sorted(([plain(key), plain(each)] for key, each in value.items()), key=str)}
        case TypeValue():
            return {"type": value.name}
        case _:
            return {"other": type(value).__name__}


def normal(recorded: Any) -> Any:
    """A recorded value, with doubles as numbers and maps in one order."""
    match recorded:
        case {"double": number}:
            double = float(number)
            return {"double": double if math.isfinite(double) else str(double)}
        case {"map": entries}:
            return {"map": sorted(([normal(key), normal(value)] for key, value in entries), key=str)}
        case {"list": elements}:
            return {"list": [normal(each) for each in elements]}
        case {"optional": value}:
            return {"optional": normal(value)}
        case {"other": "type", "s": name}:
            return {"type": name}
        case {"other": "kubernetes.Quantity"}:
            return {"other": "Quantity"}
        case _:
            return recorded


@pytest.fixture
def value() -> Callable[..., Any]:
    """`value(source, **variables)` evaluates an expression of any type to plain JSON."""

    def evaluate(source: str, **variables: Any) -> Any:
        return run(source, variables)[1]()

    return evaluate


def recorded() -> list[dict[str, Any]]:
    """Every recorded row, with its variables."""
    first, *rows = (json.loads(line) for line in RECORDED.read_text("utf-8").split("\n") if line)
    return [{"variables": first["variables"], **row} for row in rows]


@pytest.fixture(name="run")
def _run() -> Callable[..., Any]:
    return run


@pytest.fixture(name="plain")
def _plain() -> Callable[..., Any]:
    return plain


@pytest.fixture(name="normal")
def _normal() -> Callable[..., Any]:
    return normal


@pytest.fixture(scope="session", name="recorded")
def _recorded() -> list[dict[str, Any]]:
    return recorded()
