"""The CRD is what the types say."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from msgspec import Meta

from mlwarden import policy
from mlwarden.model import schema
from mlwarden.model.schema import Rule


class Colour(StrEnum):
    RED = "red"


class Inner(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An inner thing.

    Attributes:
        long_name: what it is called; a second
            line of it.
    """

    RULES: ClassVar = (Rule("self.longName != ''", "a name"),)

    long_name: Annotated[str, Meta(min_length=1, max_length=5, pattern="^a")]
    when: datetime | None = None


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    """An outer thing, in one line.

    And a paragraph that is nobody's business.

    Attributes:
        inner: them.
        colour: its colour.
    """

    inner: tuple[Inner, ...]
    colour: Colour = Colour.RED
    counts: Annotated[dict[str, Annotated[int, Meta(ge=0)]], Meta(max_length=3)] = {}
    patch: dict[str, object] = {}
    flag: bool = False


def test_a_struct_becomes_a_structural_schema() -> None:
    assert schema.schema(Outer) == {
        "type": "object",
        "description": "An outer thing, in one line.",
        "required": ["inner"],
        "properties": {
            "inner": {
                "description": "Them.",
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "description": "An inner thing.",
                    "required": ["longName"],
                    "properties": {
                        "longName": {
                            "description": "What it is called; a second line of it.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 5,
                            "pattern": "^a",
                        },
                        "when": {"type": "string", "format": "date-time"},
                    },
                    "x-kubernetes-validations": [{"rule": "self.longName != ''", "message": "a name"}],
                },
            },
            "colour": {"description": "Its colour. Default: red.", "type": "string", "enum": ["red"]},
            "counts": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "integer", "minimum": 0}},
            "patch": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "flag": {"description": "Default: false.", "type": "boolean"},
        },
    }


@pytest.mark.parametrize("kind", [int | str, set[str], object, Any, bytes, complex])
def test_a_type_without_a_structural_schema_is_a_mistake(kind: Any) -> None:
    bad = msgspec.defstruct("Bad", [("field", kind)])
    with pytest.raises(TypeError, match=r"Bad\.field"):
        schema.schema(bad)


def bounded(found: dict[str, Any], where: str = "") -> Iterator[str]:
    """Yields the paths of strings, lists and maps without an upper bound."""
    kind = found.get("type")
    if kind == "string" and not {"maxLength", "enum", "format"} & set(found):
        yield where
    if kind == "array":
        yield from [where] if "maxItems" not in found else bounded(found["items"], where + "[]")
    if kind == "object" and "additionalProperties" in found:
        yield from [where] if "maxProperties" not in found else bounded(found["additionalProperties"], where + ".*")
    for name, inner in found.get("properties", {}).items():
        yield from bounded(inner, f"{where}.{name}")


def test_everything_in_it_is_bounded_and_described() -> None:
    (version,) = policy.crd()["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    assert not [*bounded(properties["spec"]), *bounded(properties["status"])]
    assert not [name for part in ("spec", "status") for name, inner in properties[part]["properties"].items() if "description" not in inner]
