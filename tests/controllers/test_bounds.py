"""No namespace has more requests for evidence than its share, whoever makes them, and nobody else's pods wait for it."""

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence
from mlwarden.evidence.bounds import NEW
from mlwarden.evidence.store import Purpose, Requester
from mlwarden.workloads import is_gated

if TYPE_CHECKING:
    from conftest import Running
    from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster
PATH = "/apis/mlwarden.io/v1alpha1/imageevidences"
MOST = 4
CLEAN: dict[str, Any] = {"counts": {}}


@pytest.fixture(scope="module")
def bounded(cluster: "EmbeddedCluster", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """A controller that allows four requests for each namespace."""
    from .conftest import ready  # type: ignore[import-not-found]

    with ready(cluster, tmp_path_factory.mktemp("bounded"), evidence_per_namespace=MOST) as controller:
        yield controller


def waiting(running: "Running", namespace: str) -> list[dict[str, Any]]:
    """The requests in the name of a namespace."""
    return [each for each in running.admin.get(PATH)["items"] if namespace in each["spec"].get("namespaces", ())]


def by_digest() -> str:
    return f"registry.example/app@sha256:{secrets.token_hex(32)}"


def said(running: "Running", namespace: str) -> str:
    items = running.admin.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector="reason=Held")["items"]
    return "\n".join(each["message"] for each in items)


def test_one_namespace_at_its_bound_is_told_so_and_no_other_one_waits_for_it(
    bounded: "Running", good_pod: Callable[..., dict[str, Any]], attack: Callable[[str, str, str], None]
) -> None:
    greedy, modest = bounded.held.namespace(), bounded.held.namespace()
    images = [by_digest() for _ in range(3 * MOST)]
    for number, image in enumerate(images):
        bounded.held.create(greedy, good_pod(f"p-{number}", image))
    bounded.held.until(lambda: "scanner.perNamespace" in said(bounded, greedy))
    assert len(waiting(bounded, greedy)) == MOST

    image = by_digest()
    bounded.held.create(modest, good_pod("p", image))
    bounded.answer(image, scan=CLEAN)
    bounded.held.until(lambda: not is_gated(bounded.held.pods(modest)[0]))
    assert "perNamespace" not in said(bounded, modest)
    assert len(waiting(bounded, greedy)) == MOST

    # An answer gives its room to one that waited without a request.
    first = waiting(bounded, greedy)[0]["spec"]["references"][0]
    bounded.answer(first, scan=CLEAN)
    bounded.held.until(lambda: any(not is_gated(pod) for pod in bounded.held.pods(greedy)))
    bounded.held.until(lambda: len(waiting(bounded, greedy)) == MOST + 1, seconds=90)
    attack(
        "a namespace asks for more images than anybody scans",
        f"{3 * MOST} pods made {3 * MOST} requests, and so would thousands",
        f"{3 * MOST} pods, {MOST} requests (scanner.perNamespace={MOST}); the others' Events say why; a neighbour's pod started meanwhile",
    )


def test_what_no_held_pod_waits_for_any_more_makes_room(bounded: "Running", good_pod: Callable[..., dict[str, Any]]) -> None:
    space = bounded.held.namespace()
    for number in range(MOST):
        bounded.held.create(space, good_pod(f"p-{number}", by_digest()))
    bounded.held.until(lambda: len(waiting(bounded, space)) == MOST)
    left = {each["metadata"]["name"] for each in waiting(bounded, space)}
    bounded.admin.delete(f"/api/v1/namespaces/{space}/pods/p-0", gracePeriodSeconds="0")
    bounded.held.until(lambda: len(bounded.held.pods(space)) == MOST - 1)
    image = by_digest()
    bounded.held.create(space, good_pod("p-next", image))
    bounded.held.until(lambda: evidence.name_for(image) in {each["metadata"]["name"] for each in waiting(bounded, space)}, seconds=90)
    assert len(left & {each["metadata"]["name"] for each in waiting(bounded, space)}) == MOST - 1


def test_requests_by_a_token_of_ours_beyond_the_bound_do_not_stay(
    bounded: "Running", attack: Callable[[str, str, str], None], good_pod: Callable[..., dict[str, Any]]
) -> None:
    space = bounded.held.namespace()
    honest = by_digest()
    bounded.held.create(space, good_pod("p", honest))
    bounded.held.until(lambda: waiting(bounded, space))
    thief = bounded.held.account(bounded.settings.webhook)
    for _ in range(60):
        thief.create(PATH, evidence.pending(by_digest(), Requester(purpose=Purpose.POD, namespace=space)))
    for _ in range(2 * NEW):
        thief.create(PATH, evidence.pending(by_digest(), Requester(purpose=Purpose.POD, namespace="made-up")))
    bounded.held.until(lambda: len(waiting(bounded, space)) <= 2 * MOST)
    bounded.held.until(lambda: len(waiting(bounded, "made-up")) <= NEW)
    assert evidence.name_for(honest) in {each["metadata"]["name"] for each in waiting(bounded, space)}
    bounded.answer(honest, scan=CLEAN)
    bounded.held.until(lambda: not is_gated(bounded.held.pods(space)[0]))
    attack(
        "a stolen token of the webhook asks for evidence in a tenant's name",
        "60 objects stayed, a thousand in half a minute would have",
        f"{2 * MOST} stayed of 60, the tenant's own among them, and its pod started; {NEW} of a namespace that does not exist",
    )


def test_evidence_about_something_else_than_its_name_says_is_answered_by_nobody_and_does_not_pile_up(
    bounded: "Running", attack: Callable[[str, str, str], None]
) -> None:
    thief = bounded.held.account(bounded.settings.webhook)
    names = {f"tag-{secrets.token_hex(20)}" for _ in range(3 * NEW)}
    for name in names:
        body = evidence.pending("registry.example/strange:1")
        thief.create(PATH, {**body, "metadata": {**body["metadata"], "name": name}})

    def left() -> int:
        return len(names & {each["metadata"]["name"] for each in bounded.admin.get(PATH)["items"]})

    bounded.held.until(lambda: left() <= NEW)
    attack(
        "evidence is created whose name says something else than it is about",
        "nobody counted, answered or removed it",
        f"{left()} of {len(names)} stay, for a person to look at",
    )
