"""A cluster's own policies beyond what the API server has places for: nobody is told that it enforces them."""

import secrets
from typing import Any

import pytest

from mlwarden.controllers.names import PLACES

from .conftest import ready  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


def test_a_policy_without_a_place_says_so_and_says_that_it_has_one_when_another_leaves(
    cluster: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mark = secrets.token_hex(3)
    names = [f"own-{mark}-{number:03}" for number in range(len(PLACES) + 1)]
    nowhere = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "there-is-none"}}}
    spec = {"profiles": {"experiment": "Deny"}, "message": "no", "why": "w", "fix": {"text": "f"}, "match": nowhere}
    with ready(cluster, tmp_path_factory.mktemp("places")) as running:
        for name in names:
            body = {"metadata": {"name": name}, "spec": {**spec, "requirement": {"expression": {"expression": "true"}}}}
            running.admin.create(POLICIES, {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", **body})

        def compiled() -> dict[str, str]:
            stored = {
                each["metadata"]["name"]: each.get("status", {}).get("conditions", ()) for each in running.admin.get(POLICIES)["items"]
            }
            return {name: each["reason"] for name in names for each in stored.get(name, ()) if each["type"] == "Compiled"}

        def without(found: dict[str, str]) -> list[str]:
            return [name for name, reason in found.items() if reason == "NoPlace"]

        try:
            running.held.until(lambda: len(found := compiled()) == len(names) and len(without(found)) == 1, seconds=120)
            (left,) = without(compiled())
            gone = next(name for name in names if name != left)
            running.admin.delete(f"{POLICIES}/{gone}")
            running.held.until(lambda: compiled().get(left) == "ByTheApiServer")
            assert not without(compiled())
        finally:
            for name in names:
                if name in compiled():
                    running.admin.delete(f"{POLICIES}/{name}")
