"""What CI does about the packages of a real node: by a machine's programs that are scripts here, as which user, and how often apt fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlwarden.embedded import ground, ownimage

PACKAGES = Path(__file__).parents[2] / ".ci" / "packages"


class Machine:
    """A PATH of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.tries = directory, directory / "tries"
        self.has("id", "echo 0")
        self.has("apt-get", "exit 0")
        self.fails(0)

    def has(self, program: str, script: str) -> None:
        path = self.directory / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def fails(self, times: int) -> None:
        """`make packages` fails so often; what it printed is apt's."""
        self.has(
            "make", f'echo x >> {self.tries}; [ $(wc -l < {self.tries}) -gt {times} ] || {{ echo "E: no route to the mirror"; exit 2; }}'
        )

    def run(self, path: str = "/usr/bin:/bin", **environment: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.directory}:{path}", "MLWARDEN_CI_PAUSE": "0", **environment}
        return subprocess.run(["/bin/bash", PACKAGES], env=environment, capture_output=True, text=True, check=False)

    @property
    def tried(self) -> int:
        return len(self.tries.read_text().splitlines()) if self.tries.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(("failures", "tried"), [(0, 1), (2, 3)])
def test_packages_that_are_there_in_the_end_are_enough(machine: Machine, failures: int, tried: int) -> None:
    machine.fails(failures)
    done = machine.run()
    assert (done.returncode, machine.tried) == (0, tried)
    assert "skip" not in done.stdout


def test_ci_fails_with_apts_last_words_where_they_cannot_be_had(machine: Machine) -> None:
    machine.fails(9)
    done = machine.run()
    assert (done.returncode, machine.tried) == (1, 3)
    assert "E: no route to the mirror" in done.stdout
    assert "MLWARDEN_NODE=skip" in done.stdout


def test_who_is_not_root_or_wants_no_node_skips_and_says_so(machine: Machine) -> None:
    machine.fails(9)
    said = machine.run(MLWARDEN_NODE="skip")
    assert (said.returncode, machine.tried) == (0, 0)
    assert "tests/node and tests/image will skip: MLWARDEN_NODE=skip" in said.stdout
    machine.has("id", "echo 1000")
    said = machine.run()
    assert (said.returncode, machine.tried) == (0, 0)
    assert "will skip: this is not root" in said.stdout


def test_a_machine_without_apt_skips_and_says_so(machine: Machine, tmp_path: Path) -> None:
    (machine.directory / "apt-get").unlink()
    only = tmp_path / "only"
    only.mkdir()
    for program in ("dirname", "bash"):
        (only / program).symlink_to(next(path for folder in ("/usr/bin", "/bin") if (path := Path(folder, program)).exists()))
    said = machine.run(path=str(only))
    assert (said.returncode, machine.tried) == (0, 0)
    assert "will skip: there is no apt-get here" in said.stdout


def test_the_tests_of_a_node_and_of_the_image_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MLWARDEN_NODE", "skip")
    assert "MLWARDEN_NODE=skip" in ground.obstacle.__wrapped__()
    assert "MLWARDEN_NODE=skip" in ownimage.obstacle()


def test_only_who_asks_for_them_collects_the_tests_beside_real_operators() -> None:
    root = PACKAGES.parents[1]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "--ignore-glob=tests/[!o]*"]

    def collected(*paths: str) -> int:
        done = subprocess.run([*command, *paths], cwd=root, capture_output=True, text=True, check=False)
        return sum(line.startswith("tests/operators/") for line in done.stdout.splitlines())

    assert collected() == collected("tests") == 0
    assert collected("tests/operators") > 0
