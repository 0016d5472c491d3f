"""`kubectl debug`, the real one, in every way it has, with images of every sort, on an installation by Helm."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.api import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, ApiError

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
PROD, BASE, LATE = "debug-production", "debug-baseline", "debug-late"
PODS = ((PROD, "fresh"), (PROD, "pinned"), (PROD, "attacked"), (PROD, "recorded"), (BASE, "fresh"))
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")


class Debugging:
    """What alice does with kubectl debug."""

    def __init__(self, installed: "Installed") -> None:
        self.installed, self.cluster = installed, installed.cluster
        self.registry = installed.cluster.registry

    def image(self, name: str, make: Any = images.clean) -> str:
        """Pushes an image that nobody has seen, in the folder that the list of debug images allows."""
        make(self.registry, f"debug/{name}:1")
        return f"{self.registry}/debug/{name}:1"

    def __call__(self, namespace: str, pod: str, image: str, *more: str, profile: str = "restricted", user: str = "alice") -> str:
        command = ["debug", pod, "-n", namespace, f"--image={image}", f"--profile={profile}", "--attach=false", *more]
        return self.cluster.kubectl(*command, user=user, check=False)

    def added(self, namespace: str, pod: str) -> dict[str, dict[str, Any]]:
        found = self.installed.get(namespace, pod)["spec"].get("ephemeralContainers", [])
        return {container["name"]: container for container in found}

    def until_added(self, namespace: str, pod: str, image: str, *more: str) -> dict[str, Any]:
        """Tries again until it is admitted; returns the container."""
        before = set(self.added(namespace, pod))

        def tried() -> Any:
            self(namespace, pod, image, *more)
            return [each for name, each in self.added(namespace, pod).items() if name not in before]

        container: dict[str, Any] = self.installed.until(tried)[0]
        return container

    def known(self, image: str) -> list[dict[str, Any]]:
        """The evidence that names this image as written."""
        return [each for each in self.installed.admin.get(EVIDENCE)["items"] if image in each["spec"]["references"]]

    def scanned(self, image: str) -> str:
        """Has an image scanned, by a pod that waits for it, and returns the image."""
        name = re.sub(r"[^a-z0-9]", "-", image.rpartition("/")[2])
        self.installed.create(PROD, self.installed.pod(f"scan-{name}", image.removeprefix(f"{self.registry}/")))
        self.installed.until(lambda: any(each.get("status", {}).get("digest") for each in self.known(image)))
        digest = next(each["status"]["digest"] for each in self.known(image) if each.get("status", {}).get("digest"))
        path = f"{EVIDENCE}/{digest.replace(':', '-')}"
        self.installed.until(lambda: _exists(self.installed, path))
        return image


def _exists(installed: "Installed", path: str) -> bool:
    try:
        return installed.admin.get(path).get("status", {}).get("phase") == "Ready"
    except ApiError:
        return False


@pytest.fixture(scope="module")
def debug(installed: "Installed") -> Debugging:
    """Alice may debug in three namespaces: one that holds, one that does not, and one that did not when its pod came."""
    found = Debugging(installed)
    rules = [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "patch", "update"]}]
    for namespace, profile in ((PROD, "production"), (BASE, ""), (LATE, "")):
        installed.namespace(namespace, profile)
        base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        installed.admin.create(f"{base}/roles", {"metadata": {"name": "debug"}, "rules": rules})
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debug"}
        installed.admin.create(f"{base}/rolebindings", {"metadata": {"name": "debug"}, "subjects": [subject], "roleRef": role})
    for namespace, name in PODS:
        installed.create(namespace, installed.pod(name))
    old = {"containers": [{"name": "main", "image": f"{found.registry}/vulnerable:1.0"}]}
    installed.create(LATE, {"metadata": {"name": "old"}, "spec": old})
    installed.runs(LATE, "old")
    first = found(LATE, "old", "registry.example.com/unpinned:1", "--container=first", profile="baseline")
    assert "first" in found.added(LATE, "old"), first
    installed.admin.patch(f"/api/v1/namespaces/{LATE}", {"metadata": {"labels": {"mlwarden.io/profile": "production"}}})
    for namespace, name in PODS:
        installed.runs(namespace, name)
    found.until_added(PROD, "pinned", found.image("earlier"), "--container=earlier")
    return found


@pytest.mark.parametrize(
    ("namespace", "pod"),
    [(PROD, "fresh"), (PROD, "pinned"), (LATE, "old")],
    ids=["no earlier one", "a pinned earlier one", "a pod from before with an unpinned earlier one"],
)
def test_an_unscanned_image_is_refused_with_a_time_scanned_and_admitted_by_its_digest(debug: Debugging, namespace: str, pod: str) -> None:
    before, image = debug.added(namespace, pod), debug.image(f"unseen-{pod}")
    said = debug(namespace, pod, image)
    assert f"Pod {namespace}/{pod} is refused by image-scanned" in said
    assert re.search(r"try again: in (about (\d+ s|\d+ min|half a minute)|a minute): it is being scanned", said), said
    debug.installed.until(lambda: debug.known(image))
    container = debug.until_added(namespace, pod, image, "--target=main")
    assert container["image"].startswith(f"{image}@sha256:")
    assert container["targetContainerName"] == "main"
    after = debug.added(namespace, pod)
    assert {name: after[name] for name in before} == before  # what was there was not touched, pinned or not


def test_a_raw_strategic_patch_which_puts_the_new_one_first_is_as_good_as_kubectl(debug: Debugging) -> None:
    container = debug.until_added(LATE, "old", image := debug.image("first"))
    patch = {"spec": {"ephemeralContainers": [{"name": "raw", "image": image, "securityContext": SECURITY}]}}
    path = f"/api/v1/namespaces/{LATE}/pods/old/ephemeralcontainers"
    debug.cluster.api("alice").patch(path, patch, content_type=STRATEGIC_PATCH)
    assert debug.added(LATE, "old")["raw"]["image"] == container["image"]


@pytest.mark.parametrize(
    ("make", "says"),
    [(images.vulnerable, "CVE-2025-32434 (CRITICAL) in torch 2.5.1"), (images.opaque, "no operating system and no packages recognised")],
    ids=["vulnerable", "opaque"],
)
def test_an_image_with_a_finding_or_none_to_see_is_refused_for_good(debug: Debugging, make: Any, says: str) -> None:
    image = debug.image(f"bad-{make.__name__}", make)
    said = debug.installed.until(lambda: says in (text := debug(PROD, "fresh", image)) and text)
    assert "try again:" not in said
    assert "refused by image-scanned" in said


class TestProfiles:
    @pytest.mark.parametrize(
        ("profile", "policy"),
        [("sysadmin", "privileged-containers"), ("netadmin", "dangerous-capabilities"), ("general", "dangerous-capabilities")],
    )
    @pytest.mark.parametrize("namespace", [PROD, BASE])
    def test_what_leads_to_the_node_is_refused_and_told_what_to_do(
        self, debug: Debugging, namespace: str, profile: str, policy: str
    ) -> None:
        said = debug(namespace, "fresh", f"{debug.registry}/debug/any:1", profile=profile)
        assert f"is refused by {policy} (critical)" in said
        assert f"fix:       kubectl debug fresh -n {namespace} --image={debug.registry}/debug/any:1 --profile=restricted" in said
        assert re.search(r"an administrator does from the node: kubectl debug node/node-\d -n kube-system --profile=sysadmin", said)

    def test_the_command_of_the_fix_works(self, debug: Debugging) -> None:
        image = debug.scanned(debug.image("as-told"))
        said = debug(PROD, "fresh", image, profile="baseline")
        command = re.search(r"fix: +kubectl (debug .*)", said)
        assert command, said
        before = len(debug.added(PROD, "fresh"))
        debug.cluster.kubectl(*command[1].split(), "--attach=false", user="alice")
        assert len(debug.added(PROD, "fresh")) == before + 1

    def test_a_custom_container_is_judged_by_what_it_becomes(self, debug: Debugging) -> None:
        custom = debug.cluster.directory / "custom.json"
        custom.write_text(json.dumps({"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}))
        said = debug(PROD, "fresh", f"{debug.registry}/debug/any:1", f"--custom={custom}")
        assert "root-user" in said or "run-as-non-root" in said
        assert "denied the request" in said

    def test_an_image_that_is_not_on_the_list_is_refused_where_production_runs(self, debug: Debugging) -> None:
        said = debug(PROD, "fresh", f"{debug.registry}/opaque:1.0")
        assert "debug-images" in said
        assert "is not on the list" in debug(PROD, "fresh", debug.scanned(f"{debug.registry}/ranking:2.3"))
        own = debug.until_added(PROD, "fresh", f"{debug.registry}/clean:1.0")  # the pod's own image is
        assert PINNED.search(own["image"])


class TestElsewhere:
    def test_a_held_pod_is_not_debugged(self, debug: Debugging) -> None:
        held = debug.image("cannot-be-seen-into", images.opaque)
        debug.installed.create(PROD, debug.installed.pod("held", held.removeprefix(f"{debug.registry}/")))
        said = debug(PROD, "held", debug.scanned(debug.image("for-held")))
        assert "a held pod takes no ephemeral containers" in said

    @pytest.mark.parametrize("profile", ["general", "sysadmin", "restricted"])
    def test_a_node_is_debugged_by_an_administrator_where_nothing_is_governed(self, debug: Debugging, profile: str) -> None:
        image = f"{debug.registry}/debug/node:1"
        said = debug(PROD, "node/node-0", image, profile=profile, user="admin")
        assert "denied the request" in said
        assert "audited: kubectl debug node/node-0 -n kube-system" in said
        assert "Forbidden" in debug("kube-system", "node/node-0", image, profile=profile)  # alice may not, whatever mlwarden thinks
        allowed = debug("kube-system", "node/node-0", image, profile=profile, user="admin")
        assert "denied" not in allowed
        name = re.search(r"pod (node-debugger-\S+)", allowed)
        assert name, allowed
        debug.installed.admin.delete(f"/api/v1/namespaces/kube-system/pods/{name[1]}")

    @pytest.mark.parametrize("more", [(), ("--share-processes",), ("--same-node",)], ids=["copy", "shared processes", "same node"])
    def test_a_copy_is_a_new_pod_and_judged_as_one(self, debug: Debugging, more: tuple[str, ...]) -> None:
        image, name = debug.image(f"copy{len(more)}{''.join(more)}"), f"copy{''.join(more)}"
        custom = debug.cluster.directory / "copy.json"
        amounts = {"cpu": "10m", "memory": "10Mi"}
        custom.write_text(json.dumps({"resources": {"requests": amounts, "limits": amounts}}))

        def copied() -> bool:
            said = debug(PROD, "fresh", image, f"--copy-to={name}", f"--custom={custom}", *more)
            # A copy that names its node cannot be held: refused until its images were scanned.
            assert "denied" not in said or more == ("--same-node",), said
            return "denied" not in said

        debug.installed.until(copied)
        debug.installed.runs(PROD, name)
        found = debug.installed.get(PROD, name)["spec"]["containers"]
        assert len(found) == 2
        assert all(PINNED.search(container["image"]) for container in found)

    def test_a_copy_with_a_vulnerable_image_stays_held_and_on_the_same_node_it_is_refused(self, debug: Debugging) -> None:
        bad = f"--set-image=main={debug.image('copied', images.vulnerable)}"
        command = ["debug", "fresh", "-n", PROD, bad, "--attach=false", "--profile=restricted"]
        debug.cluster.kubectl(*command, "--copy-to=bad-copy", user="alice")
        debug.installed.said(PROD, "bad-copy", "CVE-2025-32434")
        assert debug.installed.state(PROD, "bad-copy") == "Held"
        said = debug.cluster.kubectl(*command, "--copy-to=bad-there", "--same-node", user="alice", check=False)
        assert "refused by image-scanned" in said


class TestRecord:
    def test_person_container_image_and_target_are_in_the_audit_log_and_in_an_event(self, debug: Debugging) -> None:
        image = debug.image("recorded")
        debug(PROD, "recorded", image, "--container=early", "--target=main")
        container = debug.until_added(PROD, "recorded", image, "--target=main")
        prefix = "ephemeral.mlwarden.io/debug-"

        def recorded(name: str) -> list[tuple[str, str, str, int]]:
            return [
                (said[f"{prefix}person"], said[f"{prefix}image"], said[f"{prefix}target"], event["responseStatus"]["code"])
                for event in debug.cluster.audit_events()
                if (said := event.get("annotations", {})).get(f"{prefix}container") == name
            ]

        debug.installed.until(lambda: recorded("early") == [("alice", image, "main", 403)])
        debug.installed.until(lambda: recorded(container["name"]) == [("alice", container["image"], "main", 200)])
        path = f"/api/v1/namespaces/{PROD}/events"

        def events() -> set[tuple[str, str]]:
            query = {"fieldSelector": "involvedObject.name=recorded,reason=DebugContainer"}
            return {(each["type"], each["message"]) for each in debug.installed.admin.get(path, **query)["items"]}

        name = container["name"]
        added = f"alice adds a debug container: image {container['image']}, target main, container {name}; admitted"
        debug.installed.until(lambda: ("Normal", added) in events())
        refused = f"alice wants a debug container: image {image}, target main; refused by image-scanned: "
        debug.installed.until(lambda: any(kind == "Normal" and text.startswith(refused) for kind, text in events()))


class TestAttacked:
    """Every other way to that subresource, by whoever may use it."""

    PATH = f"/api/v1/namespaces/{PROD}/pods/attacked"

    @pytest.fixture
    def first(self, debug: Debugging) -> dict[str, Any]:
        """An ephemeral container that is there."""
        there = debug.added(PROD, "attacked")
        return next(iter(there.values())) if there else debug.until_added(PROD, "attacked", debug.image("attacked-first"))

    @pytest.mark.parametrize(
        "way", ["strategic", "merge", "json", "put", "apply", "dry-run", "same-name", "other-container", "through-pod"]
    )
    def test_an_unscanned_image_comes_in_by_no_kind_of_request(self, debug: Debugging, first: dict[str, Any], way: str) -> None:
        alice, evil = debug.cluster.api("alice"), debug.image(f"way-{way}", images.vulnerable)
        listed = debug.installed.get(PROD, "attacked")["spec"]["ephemeralContainers"]
        new = {"name": f"evil-{way}", "image": evil, "securityContext": SECURITY}
        sub = f"{self.PATH}/ephemeralcontainers"
        append = [{"op": "add", "path": "/spec/ephemeralContainers/-", "value": new}]
        stored = debug.installed.get(PROD, "attacked")
        stored["spec"]["ephemeralContainers"].append(new)
        stored["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"  # nothing starts from what is being deleted: not so
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attacked"}, "spec": {"ephemeralContainers": [new]}}
        renamed = {"spec": {"ephemeralContainers": [{**new, "name": first["name"]}]}}
        other = [{"op": "replace", "path": "/spec/containers/0/image", "value": evil}]
        ways = {
            "strategic": lambda: alice.patch(sub, {"spec": {"ephemeralContainers": [new]}}, content_type=STRATEGIC_PATCH),
            "merge": lambda: alice.patch(sub, {"spec": {"ephemeralContainers": [*listed, new]}}, content_type=MERGE_PATCH),
            "json": lambda: alice.patch(sub, append, content_type=JSON_PATCH),
            "put": lambda: alice.request("PUT", sub, stored),
            "apply": lambda: alice.apply(sub, whole),
            "dry-run": lambda: alice.patch(sub, append, content_type=JSON_PATCH, dryRun="All"),
            "same-name": lambda: alice.patch(sub, renamed, content_type=STRATEGIC_PATCH),
            "other-container": lambda: alice.patch(sub, other, content_type=JSON_PATCH),
            "through-pod": lambda: alice.patch(self.PATH, append, content_type=JSON_PATCH),
        }
        with pytest.raises(ApiError) as error:
            ways[way]()
        assert error.value.code in {403, 422}
        assert debug.installed.get(PROD, "attacked")["spec"]["ephemeralContainers"] == listed
        if way == "dry-run":
            assert not debug.known(evil)

    @pytest.mark.parametrize(
        "image", ["", "  ", "{evil}@SHA256:{hex}", "{evil}@sha256:{HEX}", "{evil}@sha512:{hex}{hex}", "{evil}@sha256:{hex}\n"]
    )
    def test_a_reference_of_another_spelling_is_refused(self, debug: Debugging, first: dict[str, Any], image: str) -> None:
        digits = images.vulnerable(debug.registry, "debug/spelled:1").removeprefix("sha256:")
        written = image.format(evil=f"{debug.registry}/debug/spelled", hex=digits, HEX=digits.upper())
        before = debug.added(PROD, "attacked")
        change = [
            {"op": "add", "path": "/spec/ephemeralContainers/-", "value": {"name": "x", "image": written, "securityContext": SECURITY}}
        ]
        with pytest.raises(ApiError) as error:
            debug.cluster.api("alice").patch(f"{self.PATH}/ephemeralcontainers", change, content_type=JSON_PATCH)
        assert error.value.code in {403, 422}
        assert debug.added(PROD, "attacked") == before
        assert first["name"] in before

    def test_a_tag_that_moves_brings_in_what_was_scanned_and_nothing_else(self, debug: Debugging) -> None:
        good = images.clean(debug.registry, "debug/moving:1")
        image = f"{debug.registry}/debug/moving:1"
        debug.until_added(PROD, "attacked", image)
        images.vulnerable(debug.registry, "debug/moving:1")
        for _ in range(3):
            debug(PROD, "attacked", image)
        assert {each["image"] for each in debug.added(PROD, "attacked").values() if "/moving" in each["image"]} == {f"{image}@{good}"}

    def test_two_at_once_are_each_judged(self, debug: Debugging) -> None:
        good, evil = debug.scanned(debug.image("at-once")), debug.image("at-once-evil", images.vulnerable)
        names = [f"once-{number}" for number in range(6)]
        with ThreadPoolExecutor(max_workers=6) as pool:
            pick = [good, evil]
            list(pool.map(lambda each: debug(PROD, "attacked", pick[each[0] % 2], f"--container={each[1]}"), enumerate(names)))
        assert not [each["image"] for each in debug.added(PROD, "attacked").values() if "evil" in each["image"]]

    def test_reordering_them_changes_nothing(self, debug: Debugging, first: dict[str, Any]) -> None:
        debug.until_added(PROD, "attacked", debug.image("second"))
        before = debug.added(PROD, "attacked")
        change = {"spec": {"ephemeralContainers": [*before.values()][::-1]}}
        debug.cluster.api("alice").patch(f"{self.PATH}/ephemeralcontainers", change, content_type=MERGE_PATCH)
        assert debug.added(PROD, "attacked") == before
        assert first["name"] in before

    def test_while_nobody_answers_it_is_refused_where_pods_are_held_and_the_dangerous_everywhere(self, debug: Debugging) -> None:
        image = debug.scanned(debug.image("dark"))
        debug.installed.kubelet.kill_all()
        try:
            assert "failed calling webhook" in debug(PROD, "fresh", image)
            said = debug(BASE, "fresh", image, profile="sysadmin")
            assert "ValidatingAdmissionPolicy 'mlwarden-policy-privileged-containers'" in said
            assert "denied" not in debug(BASE, "fresh", image, "--container=in-the-dark")
        finally:
            debug.installed.kubelet.resume()
        assert "in-the-dark" in debug.added(BASE, "fresh")
        debug.until_added(PROD, "fresh", image)
