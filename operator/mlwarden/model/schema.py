"""From a msgspec struct to the structural schema of a custom resource, so that a type and its CRD cannot disagree.

The API server is the first to refuse nonsense: enumerations, patterns, sizes and CEL rules stand beside the Python type they belong to and
are generated from there. Every string, list and map gets an upper bound, because the API server estimates the cost of a CEL rule from them
and refuses a CRD whose rules could become expensive. Rejected: `msgspec.json.schema` (JSON Schema with `$ref`, `anyOf` and `default: null`,
none of which is structural) and schemas written by hand (they drift).

Field descriptions come from the `Attributes:` section of the docstring. No `default:` is emitted: a default that is stored in every object
can never be changed afterwards; it is named in the description instead.
"""

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, is_typeddict

import msgspec

Schema = dict[str, Any]

STRING_LENGTH = 1024
LIST_LENGTH = 64
MAP_LENGTH = 64
"""Bounds of what names none of its own."""


class Rule(NamedTuple):
    """One row of `x-kubernetes-validations`: a CEL expression over `self`, and what is said where it is false."""

    rule: str
    message: str


class Column(NamedTuple):
    """One column of `kubectl get`; `wide` shows it with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


def rules(*found: Rule) -> dict[str, Any]:
    """Returns CEL rules for one field, as `msgspec.Meta(extra_json_schema=rules(…))`. Rules of a whole struct are its `RULES`."""
    return {"x-kubernetes-validations": [{"rule": each.rule, "message": each.message} for each in found]}


def schema(struct: type[msgspec.Struct]) -> Schema:
    """Returns the structural schema of a struct.

    Raises:
        TypeError: for a type that has no structural schema (a union, a set, `Any`).
    """
    texts = attributes(struct)
    properties: Schema = {}
    required = []
    for field in msgspec.structs.fields(struct):
        found = _of(field.type, f"{struct.__name__}.{field.name}")
        description = _sentence(texts.get(field.name, ""), _default(field))
        properties[field.encode_name] = {"description": description, **found} if description else found
        if field.required:
            required.append(field.encode_name)
    result: Schema = {"type": "object", "properties": properties}
    summary = (inspect.getdoc(struct) or "").split("\n\n", 1)[0].replace("\n", " ")
    if summary:
        result["description"] = summary
    if required:
        result["required"] = required
    own = getattr(struct, "RULES", ())
    if own:
        result.update(rules(*own))
    return result


def definition(
    *,
    kind: str,
    plural: str,
    spec: type[msgspec.Struct],
    status: type[msgspec.Struct],
    columns: Sequence[Column] = (),
    short_names: Sequence[str] = (),
    own_rules: Sequence[Rule] = (),
    scope: str = "Cluster",
    atomic: bool = False,
) -> Schema:
    """Returns the CustomResourceDefinition of a kind of mlwarden.io/v1alpha1, with a status subresource.

    Args:
        kind: in CamelCase.
        plural: the resource's name.
        spec: type of `spec`.
        status: type of `status`.
        columns: of `kubectl get`.
        short_names: for kubectl.
        own_rules: CEL rules over the whole object, the only ones that see `metadata.name`.
        scope: Cluster or Namespaced.
        atomic: whoever changes a part of `spec` by server-side apply, or takes one away, owns all of it.
    """
    body: Schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {**schema(spec), **({"x-kubernetes-map-type": "atomic"} if atomic else {})},
            "status": schema(status),
        },
    }
    if own_rules:
        body.update(rules(*own_rules))
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": body},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": each.name, "type": each.type, "jsonPath": each.path, "priority": int(each.wide)} for each in columns
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.mlwarden.io", "labels": {"app.kubernetes.io/managed-by": "mlwarden"}},
        "spec": {
            "group": "mlwarden.io",
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                "categories": ["mlwarden"],
            },
            "versions": [version],
        },
    }


def attributes(struct: type) -> dict[str, str]:
    """Returns what the `Attributes:` section of a docstring says, field by field."""
    _, _, section = (inspect.getdoc(struct) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if start := re.match(r" {4}(\w+): (.*)", line):
            name, found[start[1]] = start[1], start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _of(kind: Any, where: str) -> Schema:
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        found = _of(inner, where)
        for meta in metas:
            if isinstance(meta, msgspec.Meta):
                found.update(_meta(meta, found["type"]))
        return _tidy(found)
    if get_origin(kind) in {Union, types.UnionType}:
        inner = [each for each in get_args(kind) if each is not types.NoneType]
        if len(inner) != 1:
            raise TypeError(f"{where}: a union has no structural schema")
        return _of(inner[0], where)
    if get_origin(kind) in {tuple, list, Sequence}:
        return {"type": "array", "maxItems": LIST_LENGTH, "items": _of(get_args(kind)[0], f"{where}[]"), "x-kubernetes-list-type": "atomic"}
    if get_origin(kind) in {dict, Mapping}:
        value = get_args(kind)[1]
        if value in {object, Any}:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return {"type": "object", "maxProperties": MAP_LENGTH, "additionalProperties": _of(value, f"{where}.*")}
    return _plain(kind, where)


def _plain(kind: Any, where: str) -> Schema:
    if hasattr(kind, "__supertype__"):
        return _of(kind.__supertype__, where)
    if not isinstance(kind, type) or is_typeddict(kind):
        raise TypeError(f"{where}: {kind!r} has no structural schema")
    if issubclass(kind, msgspec.Struct):
        return schema(kind)
    if issubclass(kind, Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    if issubclass(kind, datetime):
        return {"type": "string", "format": "date-time"}
    if kind is str:
        return {"type": "string", "maxLength": STRING_LENGTH}
    if kind in {bool, int, float}:
        return {"type": {bool: "boolean", int: "integer", float: "number"}[kind]}
    raise TypeError(f"{where}: {kind.__name__} has no structural schema")


_SIZES = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems"), "object": ("minProperties", "maxProperties")}


def _meta(meta: msgspec.Meta, kind: str) -> Schema:
    found: Schema = {}
    if kind in _SIZES:
        least, most = _SIZES[kind]
        if meta.min_length is not None:
            found[least] = meta.min_length
        if meta.max_length is not None:
            found[most] = meta.max_length
    if meta.ge is not None:
        found["minimum"] = meta.ge
    if meta.le is not None:
        found["maximum"] = meta.le
    if meta.pattern is not None:
        found["pattern"] = meta.pattern
    if meta.extra_json_schema:
        found.update(meta.extra_json_schema)
    return found


def _tidy(found: Schema) -> Schema:
    """An enumeration bounds itself."""
    return {key: value for key, value in found.items() if key != "maxLength"} if "enum" in found else found


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"Default: {str(value).lower()}."
    return f"Default: {value}." if isinstance(value, (str, int)) and value != "" else ""


def _sentence(text: str, default: str) -> str:
    text = text.strip().replace("`", "'")
    if text:
        text = text[0].upper() + text[1:]
    return f"{text} {default}".strip()
