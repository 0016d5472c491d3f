"""The node by itself, without mlwarden: containers run, and whatever happens to it, nothing is left of it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import ground, images, nodeinit
from mlwarden.embedded.ground import Ground
from mlwarden.embedded.node import NODE
from mlwarden.embedded.processes import Keeper, wait_until

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster
_STARTED = "mlwarden.embedded.cluster import EmbeddedCluster\nwith EmbeddedCluster(nodes=0, real_node=True) as cluster:\n"


def until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    found = wait_until(condition, seconds=seconds)
    assert found, "waited in vain"
    return found


@pytest.fixture(scope="module")
def space(cluster: "EmbeddedCluster") -> Iterator[str]:
    yield cluster.create_namespace("bare")
    cluster.api().delete("/api/v1/namespaces/bare")


def run(cluster: "EmbeddedCluster", space: str, name: str, *arguments: str, image: str = "", **changes: Any) -> None:
    image = image or f"{cluster.registry}/resident@{images.push_image(cluster.registry, 'resident:1', runs=True)}"
    container = {"name": "main", "image": image, "args": list(arguments)}
    body = {"metadata": {"name": name}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **changes}}
    cluster.api().create(f"/api/v1/namespaces/{space}/pods", body)


def phase(cluster: "EmbeddedCluster", space: str, name: str) -> str:
    return str(cluster.api().get(f"/api/v1/namespaces/{space}/pods/{name}")["status"].get("phase"))


def container(cluster: "EmbeddedCluster", space: str, name: str) -> dict[str, Any]:
    statuses = cluster.api().get(f"/api/v1/namespaces/{space}/pods/{name}")["status"].get("containerStatuses") or [{}]
    return dict(statuses[0])


def test_containers_run_and_are_read_entered_and_attached_to(cluster: "EmbeddedCluster", space: str) -> None:
    run(cluster, space, "stays")
    until(lambda: phase(cluster, space, "stays") == "Running")
    until(lambda: "started on stays" in cluster.kubectl("logs", "stays", "-n", space))
    assert cluster.kubectl("exec", "stays", "-n", space, "--", "/app/server", "say", "it", "is", "me") == "it is me\n"
    run(cluster, space, "ends", "exit", "3", restartPolicy="Never")
    until(lambda: phase(cluster, space, "ends") == "Failed")


def test_an_image_volume_is_mounted(cluster: "EmbeddedCluster", space: str) -> None:
    digest = images.push_image(cluster.registry, "weights:1", files={"model/weights": b"0.1 0.2\n"})
    mounts = [{"name": "weights", "mountPath": "/weights"}]
    image = f"{cluster.registry}/resident@{images.push_image(cluster.registry, 'resident:1', runs=True)}"
    spec = {
        "volumes": [{"name": "weights", "image": {"reference": f"{cluster.registry}/weights@{digest}"}}],
        "containers": [{"name": "main", "image": image, "args": ["cat", "/weights/model/weights"], "volumeMounts": mounts}],
        "restartPolicy": "Never",
    }
    cluster.api().create(f"/api/v1/namespaces/{space}/pods", {"metadata": {"name": "reads"}, "spec": spec})
    until(lambda: phase(cluster, space, "reads") == "Succeeded")
    assert cluster.kubectl("logs", "reads", "-n", space) == "0.1 0.2\n"


def test_while_the_registry_is_gone_a_pod_says_so_and_it_starts_when_it_is_back(cluster: "EmbeddedCluster", space: str) -> None:
    digest = images.push_image(cluster.registry, "late:1", runs=True)
    cluster.stop_registry()
    try:
        run(cluster, space, "waits", image=f"{cluster.registry}/late@{digest}")
        until(lambda: "connection refused" in str(container(cluster, space, "waits").get("state", {}).get("waiting", {}).get("message")))
    finally:
        cluster.start_registry()
    assert images.push_image(cluster.registry, "late:1", runs=True) == digest
    images.push_image(cluster.registry, "resident:1", runs=True)
    until(lambda: phase(cluster, space, "waits") == "Running", seconds=90)


def test_the_kubelet_goes_and_comes_back_and_pods_go_on(cluster: "EmbeddedCluster", space: str) -> None:
    run(cluster, space, "goes-on")
    until(lambda: phase(cluster, space, "goes-on") == "Running")
    assert cluster.node is not None
    cluster.node.stop_kubelet()
    assert any("/app/server" in line for line in cluster.node.ground.processes().values())
    cluster.node.start_kubelet()
    assert container(cluster, space, "goes-on")["restartCount"] == 0


def test_after_a_power_cut_the_pods_are_started_again(cluster: "EmbeddedCluster", space: str) -> None:
    run(cluster, space, "comes-back")
    until(lambda: phase(cluster, space, "comes-back") == "Running")
    assert cluster.node is not None
    cluster.node.restart()
    until(lambda: container(cluster, space, "comes-back").get("restartCount") == 1)
    until(lambda: "running" in container(cluster, space, "comes-back")["state"])


def left(keeper_directory: Path, name: str) -> list[str]:
    """What is left of a ground: its directory, its interface, its cgroups, its processes."""
    interface = f"mlw{name.removeprefix('mlwarden-')}"
    links = {link["ifname"] for link in json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)}
    found = [str(keeper_directory)] if keeper_directory.exists() else []
    found += [interface] if interface in links else []
    found += [str(path) for each in nodeinit.hierarchies() if (path := Path(each.path, name)).exists()]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(keeper_directory) in (folder / "cmdline").read_text(errors="replace"):
                found.append((folder / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return found


class TestNothingIsLeft:
    def started(self, tail: str) -> "subprocess.Popen[str]":
        code = f"import os, signal, time\nfrom {_STARTED}    print(cluster.directory, cluster.node.ground.name, flush=True)\n    {tail}\n"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    @pytest.fixture(autouse=True)
    def _machine(self) -> None:
        if reason := ground.obstacle():
            pytest.skip(reason)

    @pytest.mark.parametrize(
        "tail", ["pass", "os.kill(os.getpid(), signal.SIGKILL)", "raise KeyboardInterrupt"], ids=["close", "kill", "interrupt"]
    )
    def test_of_a_node_however_its_run_ends(self, tail: str) -> None:
        with self.started(tail) as process:
            assert process.stdout is not None
            directory, name = process.stdout.readline().split()
            process.wait(timeout=60)
        until(lambda: not left(Path(directory), name), seconds=30)

    def test_of_what_a_kubelet_sets_for_the_whole_machine(self) -> None:
        """Seconds after which a kernel that panicked starts again: a kubelet wants ten. It belongs to no namespace."""
        setting = Path("/proc/sys/kernel/panic")
        before = setting.read_text()
        try:
            setting.write_text("9\n")
            with self.started(f"print(open('{setting}').read().strip(), flush=True)") as process:
                assert process.stdout is not None
                directory, name = process.stdout.readline().split()
                meanwhile = process.stdout.readline()
                assert process.wait(timeout=60) == 0
            assert (meanwhile, setting.read_text()) == ("9\n", "9\n")
        finally:
            setting.write_text(before)
        until(lambda: not left(Path(directory), name), seconds=30)

    def test_of_one_that_is_killed_while_the_next_one_starts(self) -> None:
        """The second run begins while the first is being taken down, and takes none of it for its own."""
        with self.started("time.sleep(600)") as first:
            assert first.stdout is not None
            directory, name = first.stdout.readline().split()
            os.kill(first.pid, signal.SIGKILL)
            with self.started("pass") as second:
                assert second.stdout is not None
                line = second.stdout.readline().split()
                assert second.wait(timeout=60) == 0
        until(lambda: not left(Path(directory), name) and not left(Path(line[0]), line[1]), seconds=30)


class TestAMachineThatCannot:
    """In the words that a person gets; the trial itself is not made here."""

    @pytest.fixture(autouse=True)
    def _fresh(self) -> Iterator[None]:
        ground.obstacle.cache_clear()
        yield
        ground.obstacle.cache_clear()

    def test_for_want_of_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert ground.obstacle() == "a real node needs root: it makes namespaces, mounts and interfaces"

    def test_for_want_of_programs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert ground.obstacle() == "a real node needs iproute2 and iptables: `make packages` installs what is missing"

    def test_for_want_of_room(self, monkeypatch: pytest.MonkeyPatch, everything_else: None) -> None:
        monkeypatch.setattr(ground, "_MINIMUM_BYTES", 1 << 60)
        assert "are free; TMPDIR names another folder" in ground.obstacle()

    @pytest.mark.parametrize("name", ["/tmp/" + "x" * 46, "/tmp/a,b", "/tmp/a:b", "/tmp/a\\b"])
    def test_for_a_folder_whose_name_sockets_or_mounts_cannot_hold(
        self, monkeypatch: pytest.MonkeyPatch, everything_else: None, name: str
    ) -> None:
        monkeypatch.setattr(tempfile, "gettempdir", lambda: name)
        assert ground.obstacle().endswith(f"and has {name}; TMPDIR names another folder")

    def test_for_want_of_namespaces(self, monkeypatch: pytest.MonkeyPatch, everything_else: None) -> None:
        def refuse(*_: object) -> None:
            raise ground.GroundError("new namespaces: Operation not permitted")

        monkeypatch.setattr(ground, "_hold", refuse)
        assert ground.obstacle() == "this machine carries no node: new namespaces: Operation not permitted"

    def test_for_want_of_cgroups(self, monkeypatch: pytest.MonkeyPatch, everything_else: None) -> None:
        monkeypatch.setattr(nodeinit, "hierarchies", lambda: iter(()))
        assert "needs cgroups, and none are mounted" in ground.obstacle()

    @pytest.fixture
    def everything_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(ground, "_PACKAGES", {})
        monkeypatch.setattr(ground.build, "is_built", lambda _name: True)


class TestGround:
    @pytest.fixture
    def subject(self) -> Iterator[Ground]:
        if reason := ground.obstacle():
            pytest.skip(reason)
        keeper = Keeper()
        made = Ground(keeper)
        yield made
        made.stop()
        keeper.close()

    def test_two_side_by_side_have_addresses_of_their_own(self, subject: Ground) -> None:
        subject.start()
        other = Keeper()
        second = Ground(other)
        try:
            second.start()
            assert subject.addresses != second.addresses
        finally:
            second.stop()
            other.close()

    def test_addresses_that_somebody_took_since_are_given_up(self, subject: Ground) -> None:
        taken = subject.addresses
        subprocess.run(["ip", "route", "add", taken.services, "dev", "lo"], check=True)
        try:
            subject.start()
            assert subject.addresses != taken
        finally:
            subprocess.run(["ip", "route", "delete", taken.services, "dev", "lo"], check=True)

    def test_a_command_in_it_gives_its_exit_code_and_gets_our_signals(self, subject: Ground) -> None:
        subject.start()
        assert subprocess.run(subject.enter("sh", "-c", "exit 7"), check=False).returncode == 7
        process = subprocess.Popen(subject.enter("sleep", "600"))
        until(lambda: any(line.startswith("sleep 600") for line in subject.processes().values()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
        with pytest.raises(ground.GroundError, match=r"`ls /nowhere` exited with 2: .*No such file"):
            subject.run("ls", "/nowhere")

    def test_what_happens_inside_is_not_seen_outside(self, subject: Ground) -> None:
        subject.start()
        for command in ("echo x > /run/only-here", "echo x > /var/lib/only-here", "iptables -N ONLY-HERE", "mount -t tmpfs none /mnt"):
            subject.run("sh", "-c", command)
        assert not Path("/run/only-here").exists()
        assert not Path("/var/lib/only-here").exists()
        assert "ONLY-HERE" not in subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout
        assert " /mnt " not in Path("/proc/self/mounts").read_text()


def test_the_node_is_called_what_everybody_calls_it(cluster: "EmbeddedCluster") -> None:
    assert [node["metadata"]["name"] for node in cluster.api().get("/api/v1/nodes")["items"]] == [NODE]
