"""A held pod that could never be released: made anew where its controller makes another, and said to be so where none does."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.cluster import POD, Client
from mlwarden.cluster.errors import ConflictError
from mlwarden.cluster.kinds import Kind
from mlwarden.controllers import conditions
from mlwarden.controllers.conditions import Conditions
from mlwarden.controllers.recreation import MAKERS, Recreation, kept
from mlwarden.controllers.refusals import Refusals, refused
from mlwarden.embedded.api import ApiError
from mlwarden.model.policy import HELD_CONDITION
from mlwarden.workloads import is_gated

from .conftest import account_policies, admission_path  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from .conftest import FailHeld  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster

DIGEST = "sha256:" + "d" * 64
REPLICA_SET = Kind(group="apps", version="v1", plural="replicasets")


def owned_by(api_version: str = "apps/v1", kind: str = "ReplicaSet", *, controller: bool = True) -> dict[str, Any]:
    return {"ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": "w", "uid": "w-1", "controller": controller}]}


class TestWhichPods:
    @pytest.mark.parametrize(
        ("metadata", "says"),
        [
            (owned_by(), ""),
            (owned_by(kind="StatefulSet"), ""),
            (owned_by(kind="DaemonSet"), ""),
            (owned_by("v1", "ReplicationController"), ""),
            (owned_by("batch/v1", "Job"), "backoffLimit"),
            (owned_by("argoproj.io/v1alpha1", "Workflow"), "its Workflow would make another"),
            (owned_by("example.com/v1", "ReplicaSet"), "not known"),
            (owned_by(controller=False), "no controller"),
            ({}, "no controller"),
        ],
    )
    def test_only_those_whose_controller_makes_another_and_counts_nothing(self, metadata: dict[str, Any], says: str) -> None:
        found = kept({"metadata": metadata})
        assert (says in found) if says else found == ""


class TestTheBounds:
    """What the releaser's account may delete and write, as the API server has it, whatever the process is made to do."""

    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, held: "FailHeld") -> Iterator[str]:
        objects = account_policies(held.cluster, held.settings)
        for obj in objects:
            held.admin.apply(admission_path(obj), obj)
        namespace = str(held.namespace())
        held.create(namespace, {"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "main", "image": "a:1"}]}})

        def in_force() -> bool:
            try:
                held.releaser.delete(f"/api/v1/namespaces/{namespace}/pods/probe", {"dryRun": ["All"]})
            except ApiError as error:
                return "and no other" in error.message
            return False

        held.until(in_force)
        yield namespace
        for obj in reversed(objects):
            held.admin.delete(admission_path(obj))

    def test_the_policy_and_the_process_name_the_same_controllers(self, held: "FailHeld") -> None:
        rendered = json.dumps(account_policies(held.cluster, held.settings))
        assert str([f"{group}/{kind}" for group, kind in MAKERS]) in rendered

    def stuck(self, held: "FailHeld", home: str, name: str, **changes: Any) -> dict[str, Any]:
        """A held pod of a ReplicaSet, with an image volume by tag unless `changes` say otherwise; as it is once the scheduler saw it."""
        labels = {"app": name}
        template = {
            "containers": [{"name": "main", "image": f"a:1@{DIGEST}"}],
            "volumes": [{"name": "m", "image": {"reference": "m:1"}}],
            **changes,
        }
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template}}
        held.admin.create(f"/apis/apps/v1/namespaces/{home}/replicasets", {"metadata": {"name": name}, "spec": spec})

        def made() -> Any:
            pods = held.admin.get(f"/api/v1/namespaces/{home}/pods", labelSelector=f"app={name}")["items"]
            return next((pod for pod in pods if "nodeName" in pod["spec"] or pod["status"].get("conditions")), None)

        pod: dict[str, Any] = held.until(made)
        return pod

    def delete(self, held: "FailHeld", pod: dict[str, Any], *preconditions: str) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {"preconditions": {key: metadata[key] for key in preconditions}} if preconditions else None
        held.account(held.settings.releaser).delete(path, options)

    def test_a_pod_that_can_never_start_is_deleted_with_both_preconditions(self, held: "FailHeld", home: str) -> None:
        pod = self.stuck(held, home, "stuck")
        for preconditions in ((), ("uid",), ("resourceVersion",)):
            with pytest.raises(ApiError, match="with uid and resource version as preconditions"):
                self.delete(held, pod, *preconditions)
        self.delete(held, pod, "uid", "resourceVersion")
        with pytest.raises(ApiError) as caught:
            held.admin.get(f"/api/v1/namespaces/{home}/pods/{pod['metadata']['name']}")
        assert caught.value.code == 404
        held.until(lambda: held.admin.get(f"/api/v1/namespaces/{home}/pods", labelSelector="app=stuck")["items"])  # another is there

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("by-digest", {"volumes": [{"name": "m", "image": {"reference": f"m:1@{DIGEST}"}}]}),
            ("no-volume", {"volumes": []}),
            ("placed", {"nodeName": "node-0", "volumes": [{"name": "m", "image": {"reference": f"m:1@{DIGEST}"}}]}),
        ],
    )
    def test_no_other_is(self, held: "FailHeld", home: str, name: str, changes: dict[str, Any]) -> None:
        made = self.stuck(held, home, name, **changes)["metadata"]["name"]

        def refused() -> str:
            pod = held.admin.get(f"/api/v1/namespaces/{home}/pods/{made}")
            with pytest.raises(ApiError) as caught:
                self.delete(held, pod, "uid", "resourceVersion")
            return "" if caught.value.code == 409 else str(caught.value)  # its node writes its status meanwhile

        assert "and no other" in held.until(refused)

    def test_nor_a_bare_one(self, held: "FailHeld", home: str) -> None:
        volumes = [{"name": "m", "image": {"reference": "m:1"}}]
        body = {"metadata": {"name": "bare"}, "spec": {"containers": [{"name": "main", "image": "a:1"}], "volumes": volumes}}
        pod = held.create(home, body)
        with pytest.raises(ApiError, match="and no other"):
            self.delete(held, pod, "uid", "resourceVersion")

    def test_nor_one_that_was_released(self, held: "FailHeld", home: str, attack: Callable[[str, str, str], None]) -> None:
        name = self.stuck(held, home, "released", schedulingGates=[{"name": "example.com/other"}])["metadata"]["name"]
        pod = held.release(home, name)
        assert not is_gated(pod)
        with pytest.raises(ApiError, match="and no other"):
            self.delete(held, pod, "uid", "resourceVersion")
        attack("the releaser's stolen token deletes pods", "it had no such right, and stuck pods stayed", "only pods that can never start")

    def test_nor_a_whole_collection(self, held: "FailHeld", home: str) -> None:
        self.stuck(held, home, "among-others")
        with pytest.raises(ApiError, match="and no other"):
            held.account(held.settings.releaser).delete(f"/api/v1/namespaces/{home}/pods")

    def test_others_delete_as_before(self, held: "FailHeld", home: str) -> None:
        held.create(home, {"metadata": {"name": "mine"}, "spec": {"containers": [{"name": "main", "image": "a:1"}]}})
        held.alice.delete(f"/api/v1/namespaces/{home}/pods/mine")


class TestRounds:
    """The bounds in time, against a real API server; no webhook pins what is made anew."""

    @pytest.fixture
    async def clock(self) -> list[datetime]:
        return [datetime(2026, 11, 30, 3, tzinfo=UTC)]

    @pytest.fixture
    async def replica(self, client: Client, clock: list[datetime]) -> Callable[[], Recreation]:
        """A process of the releaser, which knows what is stored."""
        return lambda: Recreation(client, component="mlwarden-test", now=lambda: clock[0])

    @pytest.fixture
    async def recreation(self, replica: Callable[[], Recreation]) -> Recreation:
        return replica()

    async def pods(self, client: Client, namespace: str, owner: str = "w", number: int = 1) -> list[dict[str, Any]]:
        """The pods of a ReplicaSet as the scheduler leaves them, which do not start."""
        labels = {"app": owner}
        volumes = [{"name": "m", "image": {"reference": "m:1"}}]
        gates = [{"name": "example.com/never"}]
        template = {"containers": [{"name": "main", "image": "a:1"}], "volumes": volumes, "schedulingGates": gates}
        spec = {"replicas": number, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template}}
        with contextlib.suppress(ConflictError):
            await client.create(REPLICA_SET, {"metadata": {"name": owner}, "spec": spec}, namespace=namespace)
        async with asyncio.timeout(30):
            while True:
                listed = await client.list(POD, namespace=namespace, labelSelector=f"app={owner}")
                found = [pod for pod in listed if pod["status"].get("conditions") and "deletionTimestamp" not in pod["metadata"]]
                if len(found) == number:
                    return [{**pod, "apiVersion": "v1", "kind": "Pod"} for pod in found]
                await asyncio.sleep(0.05)

    async def pod(self, client: Client, namespace: str, owner: str = "w", template: str = "") -> dict[str, Any]:
        (pod,) = await self.pods(client, namespace, owner)
        if template:
            pod["metadata"]["labels"]["pod-template-hash"] = template
        return pod

    def counted(self, kubectl: Any, namespace: str) -> tuple[str, str]:
        path = "jsonpath={.items[?(@.reason=='MadeAnew')].count} {.items[?(@.reason=='MadeAnew')].lastTimestamp}"
        count, at = kubectl("get", "events", "-n", namespace, "-o", path).split()
        return count, at

    async def give_up(self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime]) -> None:
        for _ in range(3):
            assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted
            clock[0] += timedelta(minutes=1)

    async def test_one_a_minute(self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime], kubectl: Any) -> None:
        for number in range(1, 4):
            assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted
            for seconds, left in ((0, 60), (40, 20), (19, 1)):
                clock[0] += timedelta(seconds=seconds)
                outcome = await recreation.recreate(await self.pod(client, namespace), "another reason")
                assert (outcome.deleted, outcome.again, outcome.reason) == (False, left, "")
            assert self.counted(kubectl, namespace)[0] == str(number)
            clock[0] += timedelta(seconds=1)

    async def test_three_for_one_template_and_then_it_is_said_what_to_do(
        self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime], attack: Callable[..., None]
    ) -> None:
        await self.give_up(client, namespace, recreation, clock)
        outcome = await recreation.recreate(await self.pod(client, namespace), "why")
        assert (outcome.deleted, outcome.again) == (False, 0)
        assert "made anew 3 times already and came back by its tag" in outcome.reason
        assert "fix: name the image by its digest in the template of ReplicaSet w" in outcome.reason
        assert (await recreation.recreate(await self.pod(client, namespace, owner="other"), "why")).deleted
        assert (await recreation.recreate(await self.pod(client, namespace, template="next"), "why")).deleted
        seen = "3 deletions, a minute apart; then an Event says it, and what to do"
        attack("no webhook pins what takes a stuck pod's place", "deleted as often as it was made, for 15 s, three times", seen)

    async def test_one_a_minute_whatever_the_template(
        self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime]
    ) -> None:
        assert (await recreation.recreate(await self.pod(client, namespace, template="one"), "why")).deleted
        clock[0] += timedelta(seconds=50)
        assert (await recreation.recreate(await self.pod(client, namespace, template="two"), "why")).again == 10

    async def test_what_a_webhook_adds_to_pods_makes_no_other_template_of_it(
        self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime]
    ) -> None:
        for number in range(4):
            pod = await self.pod(client, namespace)
            pod["spec"]["volumes"].append({"name": "added", "image": {"reference": f"sidecar:{number}"}})
            assert (await recreation.recreate(pod, "why")).deleted is (number < 3)
            clock[0] += timedelta(minutes=2)

    async def test_another_leader_goes_on_from_there(
        self, client: Client, namespace: str, replica: Callable[[], Recreation], clock: list[datetime]
    ) -> None:
        for _ in range(3):
            assert (await replica().recreate(await self.pod(client, namespace), "why")).deleted
            clock[0] += timedelta(seconds=30)
            assert (await replica().recreate(await self.pod(client, namespace), "why")).again == 30
            clock[0] += timedelta(seconds=30)
        assert "3 times already" in (await replica().recreate(await self.pod(client, namespace), "why")).reason

    async def test_two_that_think_they_lead_count_one(
        self, client: Client, namespace: str, replica: Callable[[], Recreation], clock: list[datetime], kubectl: Any
    ) -> None:
        one, other = replica(), replica()
        await one.recreate(await self.pod(client, namespace), "why")
        await other.recreate(await self.pod(client, namespace), "why")
        clock[0] += timedelta(minutes=1)
        assert (await one.recreate(await self.pod(client, namespace), "why")).deleted
        assert (await other.recreate(await self.pod(client, namespace), "why")).again == 1  # not as it was read
        assert (await other.recreate(await self.pod(client, namespace), "why")).again == 60
        assert self.counted(kubectl, namespace)[0] == "2"

    async def test_many_at_once_count_one(self, client: Client, namespace: str, recreation: Recreation, kubectl: Any) -> None:
        outcomes = await asyncio.gather(*(recreation.recreate(pod, "why") for pod in await self.pods(client, namespace, number=5)))
        assert sorted((each.deleted, each.again) for each in outcomes) == [(False, 60)] * 4 + [(True, 0)]
        assert self.counted(kubectl, namespace)[0] == "1"

    async def test_the_count_stands_while_a_pod_is_left_and_an_hour_longer(
        self, client: Client, namespace: str, replica: Callable[[], Recreation], clock: list[datetime], kubectl: Any
    ) -> None:
        """The API server keeps an Event for an hour after it was written last."""
        recreation = replica()
        await self.give_up(client, namespace, recreation, clock)
        for _ in range(20):
            assert "3 times already" in (await recreation.recreate(await self.pod(client, namespace), "why")).reason
            clock[0] += timedelta(minutes=9)
        count, at = self.counted(kubectl, namespace)
        assert count == "3"
        assert clock[0] - datetime.fromisoformat(at) < timedelta(minutes=30)
        assert "3 times already" in (await replica().recreate(await self.pod(client, namespace), "why")).reason
        clock[0] += timedelta(hours=1)
        assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted

    async def test_an_event_that_has_expired_is_written_anew(
        self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime], kubectl: Any
    ) -> None:
        assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted
        kubectl("delete", "events", "-n", namespace, "--all")
        clock[0] += timedelta(minutes=1)
        assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted
        assert self.counted(kubectl, namespace)[0] == "2"

    def pinned(self, pod: dict[str, Any]) -> dict[str, Any]:
        volumes = [{"name": "m", "image": {"reference": f"docker.io/library/m:1@{DIGEST}"}}]
        return {**pod, "spec": {**pod["spec"], "volumes": volumes}}

    async def test_what_came_back_pinned_counts_for_nothing(
        self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime]
    ) -> None:
        """The nightly replica of a year: each time one is deleted, and the next one starts."""
        for _ in range(6):
            assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted
            recreation.helped(self.pinned(await self.pod(client, namespace)))
            clock[0] += timedelta(minutes=2)

    async def test_all_that_waited_are_made_anew_once_one_came_back_pinned(
        self, client: Client, namespace: str, recreation: Recreation
    ) -> None:
        stuck = await self.pods(client, namespace, number=4)
        assert (await recreation.recreate(stuck[0], "why")).deleted
        for pod in stuck[1:]:
            assert not (await recreation.recreate(pod, "why")).deleted
        came_back = next(pod for pod in await self.pods(client, namespace, number=4) if pod["metadata"]["uid"] not in map(_uid, stuck))
        assert recreation.helped(came_back) == ()  # by its tag
        assert not (await recreation.recreate(stuck[1], "why")).deleted
        assert sorted(recreation.helped(self.pinned(came_back))) == sorted((namespace, pod["metadata"]["name"]) for pod in stuck[1:])
        for pod in stuck[1:]:
            assert (await recreation.recreate(pod, "why")).deleted
        for pod in await self.pods(client, namespace, number=4):  # and none of them twice
            assert (await recreation.recreate(pod, "why")).again == 60

    async def test_a_pinned_pod_from_before_counts_nothing_anew(
        self, client: Client, namespace: str, recreation: Recreation, clock: list[datetime]
    ) -> None:
        before = self.pinned(await self.pod(client, namespace))
        before["metadata"] = {**before["metadata"], "creationTimestamp": (clock[0] - timedelta(days=1)).isoformat()}
        for number in range(4):
            assert (await recreation.recreate(await self.pod(client, namespace), "why")).deleted is (number < 3)
            assert recreation.helped(before) == ()
            clock[0] += timedelta(minutes=2)

    async def test_a_pod_that_has_changed_is_left_until_it_was_judged_again(
        self, client: Client, namespace: str, recreation: Recreation
    ) -> None:
        pod = await self.pod(client, namespace)
        name = pod["metadata"]["name"]
        changed = await client.patch(POD, name, {"metadata": {"labels": {"a": "b"}}}, namespace=namespace)
        outcome = await recreation.recreate(pod, "why")
        assert (outcome.deleted, outcome.again) == (False, 1)
        assert "deletionTimestamp" not in (await client.get(POD, name, namespace=namespace))["metadata"]
        assert (await recreation.recreate({**changed, "apiVersion": "v1", "kind": "Pod"}, "why")).deleted  # counted already


def _uid(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["uid"])


class TestTheConditionOfMany:
    async def test_is_written_once_for_those_that_still_wait_and_not_at_all_for_the_others(
        self, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """2,000 pods at once; all but three are released before their turn has come."""
        monkeypatch.setattr(conditions, "PER_SECOND", 1000)
        writes: list[tuple[str, str]] = []
        patch = client.patch

        async def counted(kind: Kind, name: str, body: Any, **how: Any) -> Any:
            writes.append((name, body["status"]["conditions"][0]["status"]))
            return await patch(kind, name, body, **how)

        monkeypatch.setattr(client, "patch", counted)
        body = {"spec": {"containers": [{"name": "main", "image": "a:1"}], "schedulingGates": [{"name": "example.com/never"}]}}
        stay = [await client.create(POD, {**body, "metadata": {"name": f"p-{number}"}}, namespace=namespace) for number in range(3)]
        said = Conditions(client)
        many = [*stay, *({"metadata": {"name": f"p-{number}", "uid": str(number)}} for number in range(3, 2000))]
        for pod in many * 2:  # each is looked at more than once while it waits
            said.held((namespace, pod["metadata"]["name"]), pod, "WaitsForEvidence", "m")
        for pod in many[3:]:
            said.released((namespace, pod["metadata"]["name"]), pod)
        work = asyncio.create_task(said.run())

        async def written(status: str) -> None:
            async with asyncio.timeout(30):
                while len([each for each in await client.list(POD, namespace=namespace) if _held(each) == status]) < 3:
                    await asyncio.sleep(0.05)

        await written("True")
        for pod in stay:
            said.held((namespace, pod["metadata"]["name"]), pod, "WaitsForEvidence", "m")  # said already
            said.released((namespace, pod["metadata"]["name"]), pod)
        await written("False")
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert sorted(writes) == sorted((f"p-{number}", status) for number in range(3) for status in ("True", "False"))

    async def test_a_namespace_with_many_does_not_delay_that_of_another(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        writes: list[str] = []

        async def counted(_kind: Kind, name: str, _body: Any, **_how: Any) -> None:
            writes.append(name)

        monkeypatch.setattr(client, "patch", counted)
        monkeypatch.setattr(conditions, "PER_SECOND", 1000)
        said = Conditions(client)
        for number in range(100):
            said.held(("many", f"p-{number}"), {"metadata": {"uid": str(number)}}, "WaitsForEvidence", "m")
        said.held(("few", "other"), {"metadata": {"uid": "u"}}, "WaitsForEvidence", "m")
        work = asyncio.create_task(said.run())
        async with asyncio.timeout(30):
            while len(writes) < 101:
                await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert "other" in writes[:2]
        assert len(set(writes)) == 101


def _held(pod: dict[str, Any]) -> str:
    return next((str(each["status"]) for each in pod["status"].get("conditions", ()) if each["type"] == HELD_CONDITION), "")


class TestARefusedRelease:
    def test_is_tried_again_when_the_pod_changes_and_else_later_each_time(self) -> None:
        refusals, now = Refusals(), datetime(2026, 11, 30, tzinfo=UTC)
        pod = {"metadata": {"uid": "u", "generation": 1, "resourceVersion": "7"}}
        changed = {"metadata": {"uid": "u", "generation": 2, "resourceVersion": "8"}}
        key = ("n", "p")
        assert [refusals.note(key, pod, now) for _ in range(6)] == [5, 20, 80, 320, 600, 600]
        assert refusals.left(key, pod, now + timedelta(seconds=599)) == 1
        assert refusals.left(key, pod, now + timedelta(seconds=601)) == 0
        assert refusals.left(key, changed, now) == 0
        assert refusals.note(key, changed, now) == 5
        assert refusals.left(key, changed, now) == 5
        refusals.forget(key)
        assert refusals.left(key, changed, now) == 0

    def test_says_what_openshift_wants(self) -> None:
        said = refused('PATCH /api/v1/x: pods "p" is forbidden: unable to validate against any security context constraint: []')
        assert said.startswith("Not released: mlwarden found it good, and the API server refuses the release: pods")
        assert "oc adm policy" in said
        assert "oc adm" not in refused('PATCH /x: pods "p" is forbidden: exceeded quota')
