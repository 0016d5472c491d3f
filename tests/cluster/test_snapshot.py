import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import evidence, policy
from mlwarden.cluster import IMAGE_EVIDENCE, NAMESPACE, POLICIES, REVOKED, SIGNERS, WARDEN_POLICY, Client, Snapshot, SnapshotSource
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Phase
from mlwarden.model.policy import PROFILE_LABEL, Settings
from mlwarden.model.revocation import Revoked

from .conftest import Scripted, until  # type: ignore[import-not-found]

NOW = datetime(2026, 11, 24, tzinfo=UTC)
D = "sha256:" + "a" * 64


def manifest(name: str, expression: str = "true", **fix: Any) -> dict[str, Any]:
    return {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": name},
        "spec": {
            "profiles": {"*": "Deny"},
            "requirement": {"expression": {"expression": expression}},
            "message": "m",
            "why": "w",
            "fix": {"text": "f", **fix},
        },
    }


@contextlib.asynccontextmanager
async def running(source: SnapshotSource) -> AsyncIterator[SnapshotSource]:
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def policies(crds: None, client: Client) -> AsyncIterator[list[str]]:
    """Names of policies to delete afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        await client.delete(WARDEN_POLICY, name)


@pytest.mark.cluster
async def test_it_follows_policies_namespaces_and_evidence(client: Client, namespace: str, policies: list[str]) -> None:
    policies += ["snapshot-good", "snapshot-broken", "snapshot-deep"]
    await client.create(WARDEN_POLICY, manifest("snapshot-good"))
    await client.create(WARDEN_POLICY, manifest("snapshot-broken", "object.spec.((("))
    body = manifest("snapshot-deep", patch={"PATCH": 1})
    text = str(body).replace("'", '"').replace('"PATCH": 1', '"PATCH": ' + '{"a":' * 1500 + "1" + "}" * 1500)
    await client.request("POST", WARDEN_POLICY.path(), text.encode())  # its answer cannot be decoded either
    async with running(SnapshotSource(client, Settings(), convert=evidence.to_facts)) as source:
        await until(source.ready.is_set)
        assert {"snapshot-good"} <= {each.name for each in source.current.policies}
        assert {"snapshot-broken", "snapshot-deep"} <= set(source.current.broken)
        assert "too deeply" in source.current.broken["snapshot-deep"]
        assert source.current.profile(namespace) == "baseline"

        await client.patch(NAMESPACE, namespace, {"metadata": {"labels": {PROFILE_LABEL: "production"}}})
        await until(lambda: source.current.profile(namespace) == "production")
        assert source.current.facts(namespace, NOW).namespace["metadata"]["name"] == namespace  # type: ignore[index]

        reference = f"registry.example/{namespace}@{D}"
        made = await client.create(IMAGE_EVIDENCE, evidence.pending(reference))
        try:
            await until(lambda: digest(D) in source.current.images)
            assert source.current.images[digest(D)].phase is Phase.PENDING
        finally:
            await client.delete(IMAGE_EVIDENCE, made["metadata"]["name"])
        await until(lambda: digest(D) not in source.current.images)

        await client.patch(WARDEN_POLICY, "snapshot-broken", {"spec": manifest("x", "object.spec != null")["spec"]})
        await until(lambda: "snapshot-broken" not in source.current.broken)
        await client.patch(WARDEN_POLICY, "snapshot-good", {"spec": manifest("x", "(")["spec"]})
        await until(lambda: "snapshot-good" in source.current.broken)
        assert "snapshot-good" not in {each.name for each in source.current.policies}


async def test_without_all_of_it_there_is_nothing_to_judge_by(scripted: Scripted, scripted_client: Client) -> None:
    missing = (404, {"kind": "Status", "code": 404, "message": "the server could not find the requested resource"})
    scripted.lists = [(200, {"metadata": {"resourceVersion": "1"}, "items": []})] * 2 + [missing]
    scripted.watches = [(200, ["hang"])]
    async with running(SnapshotSource(scripted_client, Settings(), convert=evidence.to_facts)) as source:
        await until(lambda: len(scripted.asked) > 5)
        assert not source.ready.is_set()
        assert source.current.revision == 0


@pytest.fixture
async def source(scripted: Scripted, scripted_client: Client) -> AsyncIterator[SnapshotSource]:
    """One that is told what changed by the test."""
    scripted.lists = [(200, {"metadata": {"resourceVersion": "1"}, "items": []})]
    scripted.watches = [(200, ["hang"])]
    async with running(SnapshotSource(scripted_client, Settings(), convert=evidence.to_facts)) as made:
        await until(made.ready.is_set)
        yield made


async def test_policies_that_come_with_mlwarden_are_missing_until_they_are_known(source: SnapshotSource) -> None:
    assert "image-scanned" in source.current.missing
    source._policy(("", "image-scanned"), manifest("image-scanned", "("))
    await until(lambda: "image-scanned" not in source.current.missing)
    assert "privileged-containers" in source.current.missing
    source._policy(("", "image-scanned"), None)
    await until(lambda: "image-scanned" in source.current.missing)


async def test_a_burst_of_changes_makes_one_snapshot(source: SnapshotSource) -> None:
    told: list[frozenset[str]] = []
    source.subscribe(lambda _, changes: told.append(changes))
    before = source.current
    for number in range(1000):
        source._namespace(("", f"n{number}"), {"metadata": {"name": f"n{number}"}})
    assert source.current is before
    await until(lambda: source.current is not before)
    assert source.current.revision == before.revision + 1
    assert len(source.current.namespaces) == 1000
    assert [len(changes) for changes in told] == [1000]
    assert not before.namespaces  # whoever still judges by it sees what it always saw


async def test_a_policy_is_compiled_when_it_changes_and_only_then(source: SnapshotSource, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    real = policy.compile_policy
    monkeypatch.setattr(policy, "compile_policy", lambda parsed: (compiled.append(parsed.name), real(parsed))[1])
    source._policy(("", "p"), manifest("p"))
    source._policy(("", "p"), {**manifest("p"), "metadata": {"name": "p", "labels": {"new": "label"}}, "status": {}})
    await until(lambda: source.current.policies)
    assert compiled == ["p"]
    revision = source.current.revision
    source._policy(("", "p"), {**manifest("p"), "status": {"conditions": []}})
    source._policy(("", "p"), manifest("p", "1 == 1"))
    await until(lambda: source.current.revision > revision)
    assert compiled == ["p", "p"]


async def test_a_policy_is_never_skipped_whatever_is_wrong_with_it(source: SnapshotSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(policy, "parse", defect)
    source._policy(("", "p"), manifest("p"))
    await until(lambda: source.current.broken)
    assert source.current.broken == {"p": "KeyError: 'ours'"}
    source._policy(("", "p"), None)
    await until(lambda: not source.current.broken)


@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"metadata": {"name": "tag-x"}},
        {"metadata": {"name": "sha256-" + "a" * 64}, "spec": {"references": ["other@sha256:" + "b" * 64]}},
        {"metadata": None, "spec": 7},
    ],
)
async def test_what_is_no_evidence_is_none_and_harms_nothing(source: SnapshotSource, obj: dict[str, Any]) -> None:
    source._evidence(("", "bad"), obj)
    source._evidence(("", "good"), {**evidence.pending(f"registry.example/app@{D}")})
    await until(lambda: source.current.images)
    assert set(source.current.images) == {D}


async def test_what_is_revoked_is_told_by_what_it_names(source: SnapshotSource) -> None:
    told: list[frozenset[str]] = []
    source.subscribe(lambda _, changes: told.append(changes))

    def revocation(name: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"reason": "r", **spec}}

    source._revocation(("", "d"), revocation("d", digest=D))
    source._revocation(("", "k"), revocation("k", key=D))
    await until(lambda: told)
    assert (set(source.current.revoked.digests), set(source.current.revoked.keys)) == ({D}, {D})
    assert told.pop() == {REVOKED, SIGNERS, D}
    source._revocation(("", "d"), {**revocation("d", digest=D), "status": {"runningPods": 3}})  # our own writing
    source._revocation(("", "k"), {"metadata": {"name": "k"}, "spec": {}})
    await until(lambda: told)
    assert told.pop() == {REVOKED, SIGNERS}
    assert "k" in source.current.revoked.unreadable
    source._revocation(("", "d"), None)
    source._revocation(("", "k"), None)
    await until(lambda: told)
    assert told.pop() == {REVOKED, D}
    assert source.current.facts("n", NOW).revoked == Revoked()


def scanned(index: str, *manifests: str) -> dict[str, Any]:
    scan = {"scanner": "trivy 0.72.0", "scannedAt": "2026-11-24T00:00:00Z", "manifests": list(manifests)}
    return {**evidence.pending(f"registry.example/app@{index}"), "status": {"phase": "Ready", "at": "2026-11-24T00:00:00Z", "scan": scan}}


@pytest.mark.parametrize("known_before", [True, False])
async def test_an_index_and_its_manifests_are_revoked_together_whichever_is_heard_of_first(
    source: SnapshotSource, *, known_before: bool
) -> None:
    told: set[str] = set()
    source.subscribe(lambda _, changes: told.update(changes))
    index, ours, arm, sibling = (f"sha256:{letter * 64}" for letter in "abcd")
    named = {"index": index, "manifest": sibling}
    known = {"one": scanned(index, ours, arm), "two": scanned(f"sha256:{'e' * 64}", sibling, ours)}

    def revoke() -> None:
        for name, of in named.items():
            source._revocation(("", name), {"metadata": {"name": name}, "spec": {"reason": "r", "digest": of}})

    if not known_before:
        revoke()
    for obj in known.values():
        source._evidence(("", obj["metadata"]["name"]), obj)
    if known_before:
        revoke()
    # The manifest stops the index it is in, and that says nothing of the others in it.
    expected = {index: "index", ours: "index", arm: "index", sibling: "manifest", f"sha256:{'e' * 64}": "manifest"}
    await until(lambda: {of: each.name for of, each in source.current.revoked.digests.items()} == expected)
    assert told >= expected.keys()
    told.clear()
    source._evidence(("", known["one"]["metadata"]["name"]), None)
    await until(lambda: set(source.current.revoked.digests) == {index, sibling, f"sha256:{'e' * 64}"})
    assert told >= {ours, arm}


def test_who_is_governed_and_by_what() -> None:
    spaces = {"none": {}, "labelled": {"labels": {PROFILE_LABEL: "production"}}, "empty": {"labels": {PROFILE_LABEL: ""}}}
    snapshot = Snapshot(revision=1, settings=Settings(), namespaces=spaces)
    assert [snapshot.profile(name) for name in ("none", "labelled", "unheard-of")] == ["baseline", "production", "baseline"]
    assert snapshot.profile("empty") == ""  # the gate's selectors hold such a namespace's pods: no such profile exists
    assert snapshot.settings.holds("")
    assert [snapshot.governed(name) for name in ("none", "kube-system", "mlwarden-system")] == [True, False, False]
    assert POLICIES == "policies"
