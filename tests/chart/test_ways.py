"""Every way in which an image gets into a pod by every kind of image that should not: nothing starts but what is good."""

import json
import subprocess
import sys
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


def evidence(ways: Ways, installed: "Installed", state: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mlwarden.cli.main", "evidence", ways.images[state], *arguments]
    return subprocess.run(command, env=installed.cluster.environment(), capture_output=True, text=True, check=False)


def test_what_is_known_of_an_image_and_who_runs_it_is_one_command(ways: Ways, installed: "Installed") -> None:
    good = evidence(ways, installed, "good")
    assert good.returncode == 0, good.stderr
    assert "no known vulnerabilities" in good.stdout
    assert "release: Verified" in good.stdout
    assert "ways/target (main, good-0; Running)" in good.stdout
    bad = evidence(ways, installed, "vulnerable").stdout
    assert "CVE-2025-32434 CRITICAL: torch 2.5.1, fixed in 2.6.0" in bad
    assert "release: Missing" in evidence(ways, installed, "unsigned").stdout
    unknown = evidence(ways, installed, "unscanned")
    assert unknown.returncode == 0  # it was asked for, and waits
    assert "waiting for the scanner" in unknown.stdout
    told = json.loads(evidence(ways, installed, "good", "--output=json").stdout)
    assert told["digest"] == ways.images["good"].rpartition("@")[2]


def test_when_the_scanner_comes_back_what_was_held_runs_and_the_second_try_of_kubectl_debug_passes(ways: Ways) -> None:
    assert ways.come_back() == []
    again: list[Cell] = [ways.debug_again(state) for state in WITHOUT_SCANNER]
    assert [cell.outcome for cell in again] == [RUNS, RUNS]
