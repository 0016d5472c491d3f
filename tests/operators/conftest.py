"""mlwarden installed beside the ecosystem's real operators, on a cluster of this folder's own.

Nothing is built here. A test of an operator that is not built skips and says how to have it; where none is, not even the cluster starts.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import operators

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.kubelet import HostKubelet
    from mlwarden.embedded.operators import Beside


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"operators_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_chart = _module(Path(__file__).parents[1] / "chart" / "conftest.py")


@pytest.fixture(scope="session")
def cluster() -> "Iterator[EmbeddedCluster]":
    """A control plane of our own: the operators' real definitions are not the other folders'."""
    from mlwarden.embedded.cluster import EmbeddedCluster

    if not any(map(_is_there, operators.OPERATORS)):
        pytest.skip("no operator is built here: `make operators` builds them")
    with EmbeddedCluster() as running:
        yield running


@pytest.fixture(scope="session")
def kubelet(cluster: "EmbeddedCluster") -> "Iterator[HostKubelet]":
    """The host node: mlwarden's own pods run there as host processes."""
    from mlwarden.embedded.kubelet import HostKubelet

    with HostKubelet(cluster) as running:
        yield running


class Platform(_chart.Installed):  # type: ignore[name-defined, misc]
    """mlwarden, and the operators that run beside it."""

    def __init__(self, cluster: "EmbeddedCluster", kubelet: "HostKubelet") -> None:
        super().__init__(cluster, kubelet)
        self.operators: dict[str, Beside] = {}
        self._numbers = itertools.count()

    def run(self, *names: str) -> None:
        """Starts those of these operators that do not run yet."""
        for name in names:
            if name not in self.operators:
                self.operators[name] = operators.Beside(self.cluster, name)
                self.operators[name].start()

    def team(self, profile: str = "experiment") -> str:
        """A fresh namespace under a profile, in which alice may edit."""
        return str(self.namespace(f"team-{next(self._numbers)}", profile))

    def image(self, name: str = "clean:1.0") -> str:
        return f"{self.cluster.registry}/{name}"

    def apply(self, obj: dict[str, Any], namespace: str, *, user: str = "alice", check: bool = True) -> str:
        """kubectl apply."""
        import yaml

        options = ("apply", "--namespace", namespace, "-f", "-")
        return str(self.cluster.kubectl(*options, user=user, input=yaml.safe_dump(obj), check=check))

    def refused(self, obj: dict[str, Any], namespace: str, *parts: str) -> str:
        """kubectl apply is refused by mlwarden, with these words, and nothing is made."""
        from mlwarden.embedded.cluster import ToolError

        with pytest.raises(ToolError) as caught:
            self.apply(obj, namespace)
        assert "mlwarden" in caught.value.output
        for part in parts:
            assert part in caught.value.output
        return str(caught.value.output)

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        found = self.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def ran(self, namespace: str, count: int, *, seconds: float = 90) -> list[dict[str, Any]]:
        """Waits until so many pods were released and run, or did; returns all that there are."""

        def all_run() -> list[dict[str, Any]]:
            found = self.pods(namespace)
            there = [
                pod for pod in found if pod["status"].get("phase") in {"Running", "Succeeded"} and "schedulingGates" not in pod["spec"]
            ]
            return found if len(there) >= count else []

        try:
            return list(self.until(all_run, seconds=seconds))
        except AssertionError as error:
            states = [
                (pod["metadata"]["name"], pod["status"].get("phase"), pod["spec"].get("schedulingGates"), pod["status"].get("conditions"))
                for pod in self.pods(namespace)
            ]
            events = self.admin.get(f"/api/v1/namespaces/{namespace}/events")["items"]
            told = "\n".join(f"{event['involvedObject']['name']}: {event['message']}" for event in events)
            logs = "\n".join(f"--- {name}\n{each.log()}" for name, each in self.operators.items())
            raise AssertionError(f"{error}: {states}\n{told}\n{logs}") from error


@pytest.fixture(scope="session")
def installed(cluster: "EmbeddedCluster", kubelet: "HostKubelet") -> "Iterator[Platform]":
    """mlwarden, really installed; no operator runs yet."""
    found = Platform(cluster, kubelet)
    found.push()
    found.release.install()
    yield found
    for operator in found.operators.values():
        operator.stop()


@pytest.fixture(scope="session")
def beside(request: pytest.FixtureRequest) -> "Callable[..., Platform]":
    """`beside("jobset", "trainer")`: mlwarden with these operators running; skips, in words, where one is not built."""

    def start(*names: str) -> Platform:
        missing = [reason for name in names if (reason := operators.obstacle(name))]
        if missing:
            pytest.skip("; ".join(missing))
        found: Platform = request.getfixturevalue("installed")
        found.run(*names)
        return found

    return start


def _is_there(name: str) -> bool:
    return not operators.obstacle(name)
