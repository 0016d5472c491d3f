"""A model that is only mounted has no packages: `imageScan` passes over it, and over nothing else."""

from datetime import timedelta
from typing import Any

import pytest

from mlwarden import checks, workloads
from mlwarden.model.evidence import NOT_READ, Facts, ImageFacts, Phase, Resolution
from mlwarden.model.finding import Outcome

from .scans import DIGEST, NOW, PINNED, compiled, ready, scan  # type: ignore[import-not-found]

CONFIG = "application/vnd.cncf.model.config.v1+json"
MODEL = {"artifact": CONFIG, "packages": 0, "blind": (NOT_READ,), "os": "", "scanners": ()}
TAGGED = "registry.example/team/train:1"


def answers(*, image: str = PINNED, rule: Any = None, images: Any = None, container: str = "", **changes: Any) -> list[checks.Answer]:
    """About the image of a volume, and of a container where there is one."""
    spec = {
        "volumes": [{"name": "model", "image": {"reference": image}}],
        "containers": [{"name": "main", "image": container}] if container else [],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "serve"}, "spec": spec}
    known = images if images is not None else ready(scan(**(MODEL | changes)))
    resolutions = {TAGGED: Resolution(digest=DIGEST, at=NOW)}
    facts = Facts(now=NOW, namespace={}, profile="production", images=known, resolutions=resolutions)
    return list(checks.judge(rule or compiled(), workloads.extract(pod), facts))


@pytest.mark.parametrize("image", [PINNED, TAGGED])
def test_a_mounted_model_passes_and_its_finding_says_why(image: str) -> None:
    (only,) = answers(image=image)
    assert only.outcome is Outcome.PASS
    assert only.message == f"image {image} is a model that is only mounted ({CONFIG}): nobody looked at what is in it"
    assert only.path == "spec.volumes[0].image.reference"


def test_a_model_has_no_packages_next_week_either() -> None:
    (only,) = answers(scanned_at=NOW - timedelta(days=30), database_at=NOW - timedelta(days=90))
    assert only.outcome is Outcome.PASS


def test_the_same_reference_is_unknown_where_it_is_to_run() -> None:
    ran, mounted = answers(container=PINNED)
    assert (ran.path, ran.outcome) == ("spec.containers[0].image", Outcome.UNKNOWN)
    assert "model artifact" in ran.message
    assert mounted.outcome is Outcome.PASS


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact": ""},
        {"artifact": "application/vnd.oci.image.config.v1+json"},
        {"artifact": "application/vnd.cncf.helm.config.v1+json"},
        {"packages": 1},
        {"blind": ()},
        {"blind": (NOT_READ, "2 layers are not in the registry")},
        {"blind": ("layers that are not a model's: 1; a node may mount them like an image's", NOT_READ)},
        {"blind": ("no operating system and no packages recognised",)},
    ],
)
def test_what_may_be_something_else_is_unknown(changes: dict[str, Any]) -> None:
    (only,) = answers(**changes)
    assert only.outcome is Outcome.UNKNOWN


def test_what_is_found_in_it_counts() -> None:
    assert answers(counts={"CRITICAL": 1})[0].outcome is Outcome.FAIL


def test_a_model_that_was_not_looked_at_is_unknown() -> None:
    assert answers(images={})[0].outcome is Outcome.UNKNOWN
    pending = {DIGEST: ImageFacts(digest=DIGEST, phase=Phase.PENDING, scan=scan(**MODEL))}
    assert answers(images=pending)[0].outcome is Outcome.UNKNOWN


def test_a_policy_that_asks_for_secrets_is_not_content_with_a_model_nobody_searched() -> None:
    asks = compiled(severity="HIGH", secrets=True)
    assert answers(rule=asks)[0].outcome is Outcome.UNKNOWN
    assert answers(rule=compiled(severity="HIGH", exitOnEOL=True), scanners=())[0].outcome is Outcome.PASS
