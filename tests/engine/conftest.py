"""Policies to judge by, made short."""

from collections.abc import Callable
from typing import Any

import pytest

from mlwarden import policy

Make = Callable[..., policy.CompiledPolicy]


@pytest.fixture(scope="session")
def make() -> Make:
    """Returns a function that makes a compiled policy from a requirement."""

    def made(name: str = "under-test", *, requirement: dict[str, Any] | None = None, **spec: Any) -> policy.CompiledPolicy:
        fields = {
            "profiles": {"production": "Deny", "baseline": "Warn"},
            "requirement": requirement or {"expression": {"forEach": "container", "expression": "has(container.good)", "path": "good"}},
            "message": "{name} is not good",
            "why": "because",
            "fix": {"text": "make it good"},
        }
        manifest = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": fields | spec}
        return policy.compile_policy(policy.parse(manifest))

    return made


@pytest.fixture(scope="session")
def scan(make: Make) -> policy.CompiledPolicy:
    """Returns an image policy."""
    return make("image-scan", requirement={"imageScan": {"severity": "HIGH"}})
