"""Every way in which an image gets into a pod by every kind of image that should not: nothing starts but what is good."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from mlwarden.embedded.ways import HELD, REFUSED, RUNS, STATES, WITHOUT_SCANNER, Cell, Ways

if TYPE_CHECKING:
    from .conftest import Installed  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def ways(installed: "Installed") -> Iterator[Ways]:
    tried = Ways(installed.cluster)
    try:
        tried.run()
        yield tried
    finally:
        tried.clean()


def test_nothing_starts_but_what_is_good(ways: Ways) -> None:
    wrong = [(cell.way, cell.state, cell.outcome, cell.said) for cell in ways.cells if not cell.right]
    assert wrong == []
    assert len(ways.cells) == 8 * len(STATES)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("unsigned", "it has no signature that counts"),
        ("wrong signer", "it has no signature that counts"),
        ("vulnerable", "CVE-2025-32434"),
        ("unscanned", "try again"),
        ("stale scan", "try again"),
    ],
)
def test_what_cannot_wait_is_refused_with_what_to_do(ways: Ways, state: str, says: str) -> None:
    for way in ("kubectl debug", "pod that names its node"):
        (cell,) = [each for each in ways.cells if (each.way, each.state) == (way, state)]
        assert cell.outcome == REFUSED
        assert says in cell.said


def test_what_is_not_known_is_held_and_not_refused(ways: Ways) -> None:
    held = [cell for cell in ways.cells if cell.state in WITHOUT_SCANNER and cell.way in {"container", "init container", "image volume"}]
    assert [cell.outcome for cell in held] == [HELD] * 6


def test_when_the_scanner_comes_back_what_was_held_runs_and_the_second_try_of_kubectl_debug_passes(ways: Ways) -> None:
    assert ways.come_back() == []
    again: list[Cell] = [ways.debug_again(state) for state in WITHOUT_SCANNER]
    assert [cell.outcome for cell in again] == [RUNS, RUNS]
