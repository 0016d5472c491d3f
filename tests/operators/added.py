"""What each operator, of the version that runs here, puts into pods beside what an object says. Data; `*` stands for any text.

A fact that is neither predicted from the object nor in this list fails a test: then the operator changed, or extraction missed something.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mlwarden.workloads.paths import expand

from .facts import Fact  # type: ignore[import-not-found]

VERSIONS: Mapping[str, str] = {"jobset": "v0.10.1", "trainer": "v2.0.0", "kuberay": "v1.5.0", "kueue": "v0.17.0"}

ADDED: Mapping[str, tuple[Fact, ...]] = {
    "jobset": (),
    "trainer": (),
    "kueue": (),
    "kuberay": (
        ("volume", "shared-mem", "emptyDir"),
        ("containers", "*", "mount", "shared-mem", "/dev/shm"),
        ("volume", "ray-logs", "emptyDir"),
        ("containers", "*", "mount", "ray-logs", "/tmp/ray"),
    ),
}
"""Facts as they stand."""

COPIES: Mapping[str, tuple[Fact, ...]] = {
    "jobset": (),
    "trainer": (),
    "kueue": (),
    "kuberay": (("initContainers", "wait-gcs-ready"),),
}
"""Containers with the image, the security context and the mounts of the pod's first one."""

ACCOUNTS: Mapping[str, tuple[str, ...]] = {"kuberay": ("spec.enableInTreeAutoscaling",)}
"""Paths of what has the operator make an account of the object's own name, for a pod that names none."""


def as_written(found: frozenset[Fact], obj: Mapping[str, Any], *operators: str) -> frozenset[Fact]:
    """The facts of a pod with the account that the object gave it, where the operator made one instead."""
    flags = [path for operator in operators for path in ACCOUNTS.get(operator, ())]
    own = ("account", obj["metadata"]["name"])
    made = own in found and any(value is True for path in flags for _, value in expand(dict(obj), path, ""))
    return found - {own} | {("account", "default")} if made else found


def unexplained(found: Iterable[Fact], predicted: frozenset[Fact], *operators: str) -> list[Fact]:
    """The facts that are neither predicted nor known to be added by one of these operators."""
    known = [fact for operator in operators for fact in ADDED[operator]]
    copies = [container for operator in operators for container in COPIES[operator]]
    copied = {(*copy, *fact[2:]) for copy in copies for fact in predicted if fact[0] == "containers"}
    return sorted(fact for fact in set(found) - predicted - copied if not any(_matches(fact, each) for each in known))


def unseen(found: Iterable[Fact], operator: str) -> list[Fact]:
    """What is listed of an operator and in none of these facts."""
    there = list(found)
    listed = (*ADDED[operator], *((*copy, "image", "*") for copy in COPIES[operator]))
    return [each for each in listed if not any(_matches(fact, each) for fact in there)]


def _matches(fact: Fact, pattern: Fact) -> bool:
    return len(fact) == len(pattern) and all(fnmatchcase(text, each) for text, each in zip(fact, pattern, strict=True))
