"""On an API server that does not enforce MutatingAdmissionPolicy the webhook adds the gate, and the install says so."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.kubelet import HostKubelet

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
_KINDS = "admissionregistration.k8s.io/v1/mutatingadmissionpolicies", "admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings"
NOT_ENFORCED = ("--disable-admission-plugins=MutatingAdmissionPolicy",)
NOT_SERVED = (*NOT_ENFORCED, f"--runtime-config={','.join(f'{kind}=false' for kind in _KINDS)}")


@pytest.fixture(scope="module", params=[NOT_SERVED, NOT_ENFORCED], ids=["not-served", "served-and-not-enforced"])
def elsewhere(request: pytest.FixtureRequest, install_on: "type[Installed]") -> "Iterator[Installed]":
    """mlwarden on a cluster of its own."""
    with EmbeddedCluster(apiserver_arguments=request.param) as cluster, HostKubelet(cluster) as kubelet:
        found = install_on(cluster, kubelet)
        found.push()
        found.release.install()
        yield found


def test_pods_are_held_and_released_and_when_nobody_can_add_the_gate_nothing_is_created(elsewhere: "Installed") -> None:
    namespace = elsewhere.namespace("serving")
    created = elsewhere.create(namespace, elsewhere.pod("good"))
    assert created["spec"]["schedulingGates"] == [{"name": "mlwarden.io/evidence"}]
    elsewhere.runs(namespace, "good")
    said = "".join(elsewhere.release.logs().values())
    assert "the webhook adds the gate, and fails closed" in said
    events = "/api/v1/namespaces/default/events"
    elsewhere.until(lambda: elsewhere.admin.get(events, fieldSelector="reason=GateByWebhook")["items"])
    elsewhere.kubelet.kill_all()
    try:
        with pytest.raises(ApiError, match=r"failed calling webhook.*gate\.mlwarden\.io"):
            elsewhere.create(namespace, elsewhere.pod("in-the-dark"))
        free = elsewhere.namespace("free", "")
        elsewhere.create(free, elsewhere.pod("in-the-dark"))
    finally:
        elsewhere.kubelet.resume()
    elsewhere.until(lambda: _created(elsewhere, namespace))
    elsewhere.runs(namespace, "later")


def _created(elsewhere: "Installed", namespace: str) -> bool:
    try:
        return bool(elsewhere.create(namespace, elsewhere.pod("later")))
    except ApiError:
        return False
