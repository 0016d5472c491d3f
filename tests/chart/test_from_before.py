"""From the version before, as it was released: chart and processes. Under load, nothing that ran before is refused or stays held.

The version after it is this tree with two changes to the packs that are only here: a policy that is new, and one that forbids everything.
"""

import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mlwarden import __version__
from mlwarden.embedded import images
from mlwarden.embedded.api import Api, ApiError
from mlwarden.embedded.installed import NAMESPACE, install_ml_kinds

if TYPE_CHECKING:
    from conftest import Installed
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.kubelet import HostKubelet

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
BEFORE = "6ffdd5e8abc1e6887bdd5a264ba1658e24fda4bf"
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
NEW, STRICTER = "named-owners", "sysctls"
PROFILES = ("baseline", "experiment", "production")


def program(tree: Path) -> tuple[str, ...]:
    return ("/usr/bin/env", f"PYTHONPATH={tree / 'operator'}", sys.executable, "-m", "mlwarden.cli.main")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the version before."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", BEFORE, "charts", "operator", "policies"], capture_output=True, check=False
    )
    if archive.returncode != 0:
        pytest.skip(f"the version before is not here (a shallow clone?): {archive.stderr.decode().strip()}")
    tree = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(tree, filter="data")
    return tree


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree, with one policy more, and one that lets nothing pass."""
    tree = tmp_path_factory.mktemp("new")
    for name in ("charts", "operator", "policies"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "docs").mkdir()
    (tree / "tools").symlink_to(ROOT / "tools")
    stricter = tree / "policies" / "baseline" / f"{STRICTER}.yaml"
    changed = yaml.safe_load(stricter.read_text())
    changed["spec"]["requirement"]["expression"]["expression"] = "false"
    stricter.write_text(yaml.safe_dump(changed))
    added = {
        **changed,
        "metadata": {"name": NEW},
        "spec": {**changed["spec"], "requirement": {"expression": {"expression": "'owner' in object.metadata.?labels.orValue({})"}}},
    }
    (tree / "policies" / "baseline" / f"{NEW}.yaml").write_text(yaml.safe_dump(added))
    command = [*program(tree)[:3], "-m", "mlwarden.embedded.tables"]
    subprocess.run(command, check=True, capture_output=True, cwd=tree)
    return tree


@pytest.fixture(scope="module")
def release(cluster: "EmbeddedCluster", kubelet: "HostKubelet", install_on: "type[Installed]", old: Path) -> "Iterator[Installed]":
    """The version before, installed and at work."""
    found, ours = install_on(cluster, kubelet), kubelet.program
    install_ml_kinds(cluster)
    found.push()
    try:
        kubelet.program = program(old)
        found.release.install(source=old / "charts" / "mlwarden")
        yield found
    finally:
        kubelet.program = ours
        found.clean()


class Load(threading.Thread):
    """Somebody who creates a good pod and tries a bad one, in one namespace after the other, until told to stop."""

    def __init__(self, installed: "Installed", spaces: list[str]) -> None:
        super().__init__(daemon=True)
        self._api: Api = installed.cluster.api("alice")
        self._installed, self._spaces, self._ended = installed, spaces, threading.Event()
        self.created: list[tuple[str, str]] = []
        self.refused: list[str] = []
        self.let_in: list[str] = []

    def run(self) -> None:
        number = 0
        while not self._ended.wait(0.1):
            number += 1
            for space in self._spaces:
                path, name = f"/api/v1/namespaces/{space}/pods", f"good-{number}"
                try:
                    self._api.create(path, self._installed.pod(name))
                    self.created.append((space, name))
                except ApiError as error:
                    self.refused.append(f"{space}/{name}: {error}")
                try:
                    self._api.create(path, self._installed.pod(f"bad-{number}", hostPID=True), dryRun="All")
                    self.let_in.append(f"{space}/bad-{number}")
                except ApiError:
                    continue
        self._api.close()

    def stop(self) -> None:
        self._ended.set()
        self.join()


class TestUpgrade:
    """One story, in this order."""

    def test_nothing_that_ran_before_is_refused_or_stays_held_and_nothing_that_was_refused_comes_in(
        self, release: "Installed", kubelet: "HostKubelet", new: Path, attack: Any
    ) -> None:
        images.vulnerable(release.cluster.registry, "held:1.0")
        spaces = [release.namespace(f"upgrade-{profile}", profile) for profile in PROFILES]
        for space in spaces:
            release.create(space, release.pod("first"))
            release.runs(space, "first")
        release.create("upgrade-production", release.pod("held", "held:1.0"))
        release.said("upgrade-production", "held", "CVE-2025-32434")
        load = Load(release, spaces)
        load.start()
        try:
            release.until(lambda: len(load.created) > 10)
            kubelet.program = program(new)
            release.release.upgrade(source=new / "charts" / "mlwarden")
            enough = len(load.created) + 30
            release.until(lambda: len(load.created) + len(load.refused) > enough)
        finally:
            load.stop()
        assert load.refused == []
        assert load.let_in == []
        for space, name in load.created:
            release.runs(space, name)
        assert release.state("upgrade-production", "held") == "Held"
        seen = f"{len(load.created)} pods created meanwhile: refused 0, still held 0; refused before and let in meanwhile: 0"
        attack("an upgrade to new and stricter policies, under load", "enforced at once, or never ready", seen)

    def test_the_notes_name_those_that_warn(self, release: "Installed") -> None:
        notes = release.cluster.helm("get", "notes", "mlwarden", "--namespace", NAMESPACE)
        assert f"packs.accept={__version__}" in notes
        listed = next(line for line in notes.splitlines() if NEW in line).replace(" ", "").split(",")
        assert {NEW, STRICTER} <= set(listed)
        assert "host-namespaces" not in listed

    def test_the_policies_and_why_say_which_wait(self, release: "Installed") -> None:
        waiting = release.until(lambda: _waiting(release.admin.get(POLICIES)["items"]))
        assert {NEW, f"{STRICTER}-next"} <= waiting
        said = release.mlwarden("why", "held", "--namespace", "upgrade-production")
        assert said.returncode == 1
        line = next(line for line in said.stdout.splitlines() if "only warn until the administrator accepts version" in line)
        assert all(name in line for name in waiting)
        assert __version__ in line

    def test_who_applies_is_warned(self, release: "Installed") -> None:
        body = yaml.safe_dump(release.pod("warned"))
        said = release.cluster.kubectl(
            "apply", "--dry-run=server", "--namespace", "upgrade-production", "--filename", "-", user="alice", input=body, check=False
        )
        assert NEW in said
        assert "created (server dry run)" in said

    def test_accepted_it_is_enforced(self, release: "Installed", new: Path) -> None:
        release.release.upgrade(source=new / "charts" / "mlwarden", packs={"accept": __version__})

        def refusal(**labels: str) -> str:
            body = release.pod("tried")
            try:
                release.create("upgrade-production", {**body, "metadata": {"name": "tried", "labels": labels}}, dryRun="All")
            except ApiError as error:
                return error.message
            return ""

        release.until(lambda: NEW in refusal() or STRICTER in refusal())
        release.until(lambda: not _waiting(release.admin.get(POLICIES)["items"]))
        notes = release.cluster.helm("get", "notes", "mlwarden", "--namespace", NAMESPACE)
        assert "only warn" not in notes


def _waiting(policies: list[dict[str, Any]]) -> set[str]:
    return {
        each["metadata"]["name"]
        for each in policies
        for condition in (each.get("status") or {}).get("conditions") or ()
        if condition["type"] == "Accepted" and condition["status"] == "False"
    }
