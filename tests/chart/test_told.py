"""What people are told, where they look: on the Notebook and not on `nb-0`, and in words that no terminal obeys."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\u202egnp.exe\u2066",
    "\x9b31m",
    "a\nPod x/y is not held by mlwarden\r",
)


@pytest.fixture(scope="module")
def space(installed: "Installed") -> str:
    return installed.namespace("told", "experiment")


@pytest.mark.parametrize(
    ("version", "kind", "plural"),
    [
        ("kubeflow.org/v1", "Notebook", "notebooks"),
        ("ray.io/v1", "RayCluster", "rayclusters"),
        ("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"),
        ("apps/v1", "Deployment", "deployments"),
    ],
)
def test_an_event_reaches_what_a_person_made(installed: "Installed", space: str, version: str, kind: str, plural: str) -> None:
    name = f"of-{kind.lower()}"
    template = {"metadata": {"labels": {"app": name}}, "spec": installed.pod("x")["spec"]}
    spec: dict[str, Any] = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec if kind == "Deployment" else {}}
    owner = installed.admin.create(f"/apis/{version}/namespaces/{space}/{plural}", body)
    reference = {"apiVersion": version, "kind": kind, "name": name, "uid": owner["metadata"]["uid"], "controller": True}
    pod = installed.pod(f"{name}-0", "never-pushed:1.0")
    installed.create(space, {**pod, "metadata": {**pod["metadata"], "labels": {"app": name}, "ownerReferences": [reference]}})
    said = installed.said(space, name, "image-scanned")
    path = f"/api/v1/namespaces/{space}/events"
    found = installed.admin.get(path, fieldSelector=f"involvedObject.uid={owner['metadata']['uid']}")["items"]
    assert {event["involvedObject"]["kind"] for event in found} == {kind}
    assert said in {event["message"] for event in found}


def test_why_shows_what_hostile_people_wrote_into_the_cluster(installed: "Installed", space: str, attack: Any) -> None:
    """Annotations, Events in mlwarden's name, image references and gates, as an API server really stores them."""
    image = f"{installed.cluster.registry}/never-pushed:1.0"
    seals = {"mlwarden.io/judged": '["not", {"an": "object"}]', **{f"evil.example/{number}": text for number, text in enumerate(HOSTILE)}}
    pod = installed.pod("hostile", "never-pushed:1.0")
    free = installed.namespace("told-free", "baseline")
    for where in (space, free):
        annotations = seals if where == free else {key: value for key, value in seals.items() if "judged" not in key}
        made = installed.create(where, {**pod, "metadata": {"name": "hostile", "annotations": annotations}})
        for number, text in enumerate(HOSTILE):
            event = {
                "metadata": {"name": f"forged-{number}", "namespace": where},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": "hostile",
                    "namespace": where,
                    "uid": made["metadata"]["uid"],
                },
                "source": {"component": "mlwarden-releaser"},
                "reason": "Held",
                "message": f"Held by image-scanned: {text}",
                "type": "Warning",
                "lastTimestamp": "2036-01-01T00:00:00Z",
            }
            installed.admin.create(f"/api/v1/namespaces/{where}/events", event)
        for user in ("alice", "admin"):
            said = installed.mlwarden("why", "hostile", "--namespace", where, user=user)
            assert said.returncode == (1 if where == space else 0), said.stderr
            lines = said.stdout.splitlines() + said.stderr.splitlines()
            assert lines
            assert not [line for line in lines if not line.isprintable() or line.startswith("Pod x/y")]
            assert said.stdout.count("fix:") <= 1
    shown = installed.mlwarden("evidence", image, user="admin")
    assert all(line.isprintable() for line in shown.stdout.splitlines())
    attack("terminal escapes in annotations and forged Events, read by why", "printed raw", "escaped, one fix, one line each")
    attack("a seal that is no object, read by why", "why died", "left out")
