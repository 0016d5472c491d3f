"""Clients without a credential that take room at the webhook's port: whoever asks for something is answered as if they were not there."""

import secrets
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mlwarden.admission.listener import CONNECTIONS
from mlwarden.admission.room import UNFINISHED
from mlwarden.model.policy import GATE

from .crowd import ENDLESS, HEAD, Crowd, bodies, while_they_wait  # type: ignore[import-not-found]
from .serving import DENIED, Installed, Serving, good_pod, said, until  # type: ignore[import-not-found]
from .test_serve import ask, debugging  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
Attack = Callable[[str, str, str], None]
HONEST, FEW = 36, 12


@pytest.fixture(scope="module")
def lenient(installed: Installed) -> str:
    """A namespace in `baseline`."""
    return str(installed.cluster.create_namespace(f"{installed.settings.namespace}-baseline"))


def honest(installed: Installed, lenient: str, number: int) -> str:
    """What becomes of the pods of people, by turns: small or large, where pods are held and where not; `""` where one was admitted."""
    space = (installed.space, lenient)[number % 2]
    body = good_pod(f"p-{secrets.token_hex(4)}")
    if number % 4 > 1:
        body["metadata"]["annotations"] = {"large": "x" * 200_000}
    answer = said(lambda: installed.admin.create(f"/api/v1/namespaces/{space}/pods", body, dryRun="All"))
    return "" if answer == "created" else str(answer)


CROWDS: dict[str, dict[str, Any]] = {
    "48 large bodies": {"size": 48, "begin": bodies(large=True)},
    "48 small bodies": {"size": 48, "begin": bodies(large=False)},
    "400 small bodies": {"size": 400, "begin": bodies(large=False)},
    "300 heads": {"size": 300, "begin": HEAD},
    "20 heads without an end": {"size": 20, "begin": ENDLESS},
    "300 handshakes": {"size": 300, "begin": b"", "tls": False},
    "48 large bodies of another address": {"size": 48, "begin": bodies(large=True), "source": "127.0.0.2"},
}

BEFORE = {
    "48 large bodies": "6 of 36 honest objects refused, baseline included",
    "48 large bodies of another address": "5 of 36 honest objects refused, baseline included",
}
STAYED = "nobody refused, but whoever began kept its place for as long as it liked"


@pytest.mark.parametrize("name", CROWDS)
def test_who_begins_and_does_not_end_has_nobody_refused(
    installed: Installed, serving: Serving, lenient: str, attack: Attack, name: str
) -> None:
    serving.serve()
    debug = debugging(installed)
    with Crowd(installed.port, **CROWDS[name]) as crowd:
        refused = [answer for answer in while_they_wait(crowd, lambda number: honest(installed, lenient, number), HONEST) if answer]
        told = list(while_they_wait(crowd, lambda _: installed.try_bad(), FEW))
        debugged = list(while_they_wait(crowd, lambda _: said(debug), FEW))
    print(name, Counter(refused), Counter(told), Counter(debugged))  # noqa: T201 -- figures, for those who compare
    assert refused == []
    assert all("admission webhook" in answer and "denied the request" in answer for answer in debugged)
    assert all(DENIED in answer for answer in told)
    attack(
        f"slow: {name} without a credential",
        BEFORE.get(name, STAYED),
        f"0 of {HONEST} honest objects refused, {FEW} of {FEW} bad ones told why",
    )


def test_a_body_that_does_not_end_is_closed_and_so_is_a_head_and_a_silent_handshake(serving: Serving) -> None:
    serving.serve()
    for options in ({"begin": bodies(large=False)}, {"begin": HEAD}, {"begin": b"", "tls": False}):
        with Crowd(serving.port, 3, **options) as crowd:
            until(lambda crowd=crowd: crowd.go_on(0.1) or crowd.closed >= 3)


def test_of_one_address_no_more_than_eight_bodies_stay(serving: Serving) -> None:
    serving.serve()
    with Crowd(serving.port, 40, bodies(large=True)) as crowd:
        until(lambda: crowd.go_on(0.05) or crowd.closed >= 40 - UNFINISHED)


def test_idle_connections_are_kept_and_beyond_a_thousand_those_go_that_asked_nothing(installed: Installed, serving: Serving) -> None:
    serving.serve()
    with serving.connect() as kept:
        ask(kept)
        own = kept.sock
        with Crowd(serving.port, CONNECTIONS + 50, b"") as crowd:
            until(lambda: crowd.go_on(0.1) or crowd.closed >= 50)
            assert DENIED in installed.try_bad()
            assert ask(kept).status == 400
            assert kept.sock is own


def test_a_pod_is_held_while_the_webhook_has_no_room(installed: Installed, serving: Serving) -> None:
    serving.serve()
    with Crowd(installed.port, 200, bodies(large=True)) as crowd:
        crowd.go_on()
        created = installed.create(good_pod(f"p-{secrets.token_hex(3)}"))
    assert created["spec"]["schedulingGates"] == [{"name": GATE}]


def test_all_addresses_of_both_families_are_listened_on_unless_one_is_named(serving: Serving) -> None:
    serving.start("--host=")
    until(lambda: serving.probe() == "ok")
    for address in ("127.0.0.1", "::1"):
        for port in (serving.port, serving.probe_ports["a"]):
            socket.create_connection((address, port), timeout=5).close()
