"""The answer, as bytes. Patches are written down directly: comparing two documents would cost ten times what judging one does."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mlwarden.model.nodes import Nodes
from mlwarden.model.workload import Json
from mlwarden.workloads import nodes as places

_STEP = re.compile(r'\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\.?([A-Za-z_][A-Za-z0-9_-]*)')
_WARNING, _WARNINGS = 256, 4096
"""Bytes of one warning and of all: the API server shortens and drops what is beyond (apiserver/pkg/endpoints/filters/warning.go)."""
_API = "admission.k8s.io/v1"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def allow(
    uid: str, *, warnings: Sequence[str] = (), audit: Mapping[str, str] | None = None, patch: Sequence[Mapping[str, Json]] = ()
) -> bytes:
    """Returns a review that allows, with warnings, audit annotations and a JSON patch."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = msgspec.json.encode(patch)  # bytes are encoded as base64, which is what []byte is in Go's JSON
    return _review(response, warnings, audit)


def deny(uid: str, message: str, *, code: int = 403, warnings: Sequence[str] = (), audit: Mapping[str, str] | None = None) -> bytes:
    """Returns a review that refuses, with the words for the person."""
    reason = {403: "Forbidden", 400: "BadRequest", 413: "RequestEntityTooLarge", 503: "ServiceUnavailable"}.get(code, "Forbidden")
    status = {"status": "Failure", "code": code, "reason": reason, "message": message}
    return _review({"uid": uid, "allowed": False, "status": status}, warnings, audit)


def pins(changes: Mapping[str, str], obj: Json) -> list[dict[str, Json]]:
    """Returns the JSON patch that writes each pinned reference; it fails where another reference stands by then than was judged."""
    operations: list[dict[str, Json]] = []
    for path, pinned in changes.items():
        steps = _steps(path)
        before = _at(obj, steps)
        if isinstance(before, str):
            pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)
            operations.append({"op": "test", "path": pointer, "value": before})
            operations.append({"op": "replace", "path": pointer, "value": pinned})
    return operations


def kept_to(nodes: Nodes | None, obj: Json) -> list[dict[str, Json]]:
    """Returns the JSON patch that keeps a pod to these nodes; it fails where it asks for others by then than was judged."""
    spec = obj.get("spec") if isinstance(obj, dict) else None
    if nodes is None or not isinstance(spec, dict):
        return []
    affinity, required = spec.get("affinity"), places.required(spec, nodes)
    if not isinstance(affinity, dict):
        made = {"nodeAffinity": {_REQUIRED: required}}
        return [{"op": "add", "path": "/spec/affinity", "value": made}]
    own = affinity.get("nodeAffinity")
    made = {**(own if isinstance(own, dict) else {}), _REQUIRED: required}
    return [
        {"op": "test", "path": "/spec/affinity", "value": affinity},
        {"op": "add", "path": "/spec/affinity/nodeAffinity", "value": made},
    ]


def affinity(stored: Json) -> list[dict[str, Json]]:
    """Returns the JSON patch that gives a pod its affinity back, nothing for None."""
    return [] if stored is None else [{"op": "add", "path": "/spec/affinity", "value": stored}]


def _review(response: dict[str, Any], warnings: Sequence[str], audit: Mapping[str, str] | None) -> bytes:
    kept, room = [], _WARNINGS
    for warning in warnings:
        line = _line(warning)
        room -= len(line.encode())
        if room < 0:
            break
        kept.append(line)
    if kept:
        response["warnings"] = kept
    if audit:
        response["auditAnnotations"] = dict(audit)
    return msgspec.json.encode({"apiVersion": _API, "kind": "AdmissionReview", "response": response})


def _line(warning: str) -> str:
    """One line of at most `_WARNING` bytes: for a line break or a control character the API server drops the warning without a word."""
    line = " ".join("".join(each if each.isprintable() else " " for each in warning).split())
    encoded = line.encode()
    return line if len(encoded) <= _WARNING else encoded[: _WARNING - 3].decode(errors="ignore") + "…"


def _steps(path: str) -> list[str | int]:
    found: list[str | int] = []
    for match in _STEP.finditer(path):
        index, quoted, name = match.groups()
        found.append(int(index) if index is not None else msgspec.json.decode(f'"{quoted}"') if quoted is not None else name)
    return found


def _at(obj: Json, steps: Sequence[str | int]) -> Json:
    for step in steps:
        there = (isinstance(obj, dict) and step in obj) or (isinstance(obj, list) and isinstance(step, int) and step < len(obj))
        if not there:
            return None
        obj = obj[step]
    return obj
