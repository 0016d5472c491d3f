"""Whatever hostile objects say, nothing reaches a terminal that it would obey, and no command dies of them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwarden.cli import check, evidence, exits, main, online, terminal, why
from mlwarden.cluster import EVENT, POD, WARDEN_POLICY, ForbiddenError
from mlwarden.cluster.kinds import Kind
from mlwarden.controllers.acceptance import WAITS
from mlwarden.controllers.gate import JUDGED
from mlwarden.errors import InputError
from mlwarden.evidence.store import Compared, EvidenceStatus, ImageEvidence, SecondLook
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Phase, Scan, Vulnerability
from mlwarden.model.signing import Proof, Proven, Signer

from .conftest import Run  # type: ignore[import-not-found]

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DIGEST = Digest("sha256:" + "a" * 64)
ATTACKS = (
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\",
    "\x9b31m",
    "\u202eevil\u2066\u2069",
    "\u200b\ufeff\u00ad\U000e0041",
    "a\rb\nPod x/y is not held\x08\x7f\x00",
    "\u2028\u2029",
    "\ud83d",
)
hostile = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=40)).map(lambda text: text or "x")
stored = hostile.map(lambda text: text.encode("utf-8", "replace").decode())  # what can be in JSON from an API server
names = st.one_of(stored, st.just("main"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | stored,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(stored, inner, max_size=3),
)


def shown(text: str) -> None:
    """Every line can be printed as it is, and is one of ours."""
    assert [line for line in text.split("\n") if not line.isprintable() or line.startswith("Pod x/y is not held")] == []


class Store:
    """What an API server has stored: one pod, its Events, the policies; the rest is not for this user."""

    def __init__(self, pod: dict[str, Any], events: list[dict[str, Any]], policies: list[dict[str, Any]]) -> None:
        self._pod, self._listed = pod, {EVENT.plural: events, WARDEN_POLICY.plural: policies}

    async def get(self, kind: Kind, _name: str, *, namespace: str = "") -> dict[str, Any]:
        if kind is POD and namespace:
            return self._pod
        raise ForbiddenError("no", code=403)

    async def list(self, kind: Kind, **_: str) -> list[dict[str, Any]]:
        if kind.plural not in self._listed:
            raise ForbiddenError("no", code=403)
        return self._listed[kind.plural]


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    seal = draw(st.one_of(values.map(json.dumps), stored, st.fixed_dictionaries({"at": values, "because": values}).map(json.dumps)))
    gates = draw(st.lists(st.sampled_from(["mlwarden.io/evidence", "other.example/gate"]) | stored, max_size=3))
    return {
        "metadata": {"name": "p", "namespace": "research", "uid": "u", "annotations": {JUDGED: seal, draw(stored): draw(stored)}},
        "spec": {"containers": [{"name": "main", "image": draw(stored)}], "schedulingGates": [{"name": name} for name in gates]},
        "status": {"phase": draw(stored)},
    }


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    message = draw(st.one_of(stored, stored.map(lambda text: f"Held by scanned: {text}"), st.just("Held by scanned: x; fix: y")))
    return {"source": {"component": "mlwarden-controller"}, "message": message, "lastTimestamp": draw(st.none() | stored)}


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    spec = {"message": draw(stored), "why": draw(values), "fix": draw(st.none() | st.fixed_dictionaries({"text": stored}))}
    return {"metadata": {"name": "scanned", "annotations": {WAITS: draw(stored)}}, "spec": spec}


@settings(deadline=None)
@given(pod=pods(), said=st.lists(events(), max_size=3), rules=st.lists(policies(), max_size=2))
async def test_why_shows_hostile_pods_events_and_policies(pod: dict[str, Any], said: list[Any], rules: list[Any]) -> None:
    held, lines = await why.explain(Store(pod, said, rules), "p", "research")  # type: ignore[arg-type]
    assert held == any(gate["name"] == "mlwarden.io/evidence" for gate in pod["spec"]["schedulingGates"])
    shown("\n".join(lines))
    assert all("\n" not in line for line in lines)
    assert "\n".join(lines).count("fix:") <= 1 + sum("fix:" in str(each) for each in (pod, *said, *rules))


@settings(deadline=None)
@given(image=stored, seal=values)
async def test_why_survives_seals_that_are_no_objects(image: str, seal: Any) -> None:
    metadata = {"name": "p", "namespace": "research", "uid": "u", "annotations": {JUDGED: json.dumps(seal)}}
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": image}]}}
    held, lines = await why.explain(Store(pod, [], []), "p", "research")  # type: ignore[arg-type]
    assert not held
    assert len(lines) == (2 if isinstance(seal, dict) else 1)


async def test_why_gives_one_fix_where_the_event_has_one_and_the_policy_another() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"schedulingGates": [{"name": "mlwarden.io/evidence"}]}}
    rule = {"metadata": {"name": "scanned"}, "spec": {"why": "holes are ways in", "fix": {"text": "rebuild it"}}}
    event = {
        "source": {"component": "mlwarden-controller"},
        "message": "Held by scanned: not yet; fix: nothing to do",
        "lastTimestamp": "t",
    }
    _, lines = await why.explain(Store(pod, [event], [rule]), "p", "n")  # type: ignore[arg-type]
    assert [line for line in lines if "fix:" in line] == ["t: Held by scanned: not yet; fix: nothing to do"]
    assert any("holes are ways in" in line for line in lines)
    event = {**event, "message": "Held by scanned: not yet"}
    _, lines = await why.explain(Store(pod, [event], [rule]), "p", "n")  # type: ignore[arg-type]
    assert [line.strip() for line in lines if "fix:" in line] == ["fix:       rebuild it"]


manifests = st.fixed_dictionaries(
    {"apiVersion": st.sampled_from(["v1", "apps/v1"]) | stored, "kind": st.sampled_from(["Pod", "Deployment"]) | stored},
    optional={
        "metadata": st.fixed_dictionaries({"name": names}, optional={"namespace": stored, "annotations": values, "labels": values})
        | values,
        "spec": st.fixed_dictionaries(
            {
                "containers": st.lists(
                    st.fixed_dictionaries(
                        {"name": names, "image": stored},
                        optional={"env": st.lists(st.fixed_dictionaries({"name": stored, "value": stored})), "securityContext": values},
                    )
                    | values,
                    max_size=2,
                )
            },
            optional={"volumes": st.lists(st.fixed_dictionaries({"name": stored, "hostPath": values})), "hostNetwork": values},
        )
        | values,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(objects=st.lists(manifests | values, min_size=1, max_size=2), profile=st.sampled_from(["production", "experiment", "baseline"]))
def test_check_shows_hostile_manifests_as_text_and_as_json(run: Run, objects: list[Any], profile: str) -> None:
    Path("hostile.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    done = run("hostile.json", "--profile", profile)
    shown(done.out + done.err)
    written = run("hostile.json", "--profile", profile, "--output", "json")
    shown(written.out + written.err)
    assert written.report["verdict"]


def test_check_shows_files_with_hostile_names_and_contents(run: Run) -> None:
    for number, attack in enumerate(ATTACKS):
        name = attack.replace("/", "").replace("\x00", "").encode("utf-8", "replace").decode()
        Path(f"{number}{name}.yaml").write_text(f"kind: {json.dumps(attack)}\n  broken: [", encoding="utf-8", errors="replace")
    done = run(".")
    assert done.code == exits.UNREADABLE
    assert len(done.err.splitlines()) >= len(ATTACKS)
    shown(done.out + done.err)


@st.composite
def found(draw: st.DrawFn) -> evidence.Found:
    vulnerability = Vulnerability(
        id=draw(stored), package=draw(stored), installed=draw(stored), fixed=draw(stored), severity=draw(st.just("HIGH") | stored)
    )
    scan = Scan(
        scanner=draw(stored),
        scanned_at=NOW,
        database_at=NOW,
        os=draw(stored),
        packages=1,
        counts={draw(stored): 1},
        vulnerabilities=(vulnerability,),
        blind=(draw(stored),),
    )
    signer = Signer(issuer=draw(stored), subject=draw(stored))
    outcome = draw(st.sampled_from(list(Proven)))
    proof = Proof(demand=draw(stored), authority=draw(stored), outcome=outcome, at=NOW, reason=draw(stored), signer=signer)
    metadata = {"name": "x"}
    base = {"metadata": metadata, "spec": {"references": [draw(stored)]}}
    read = msgspec.convert(base, ImageEvidence)

    def having(**status: Any) -> ImageEvidence:
        look = SecondLook(by=draw(stored), of=draw(stored), at=NOW, outcome=draw(st.sampled_from(list(Compared))), reason=draw(stored))
        again = draw(st.sampled_from([None, look]))
        return msgspec.structs.replace(
            read, status=EvidenceStatus(at=NOW, reason=draw(stored), answered_by=draw(stored), second_look=again, **status)
        )

    return evidence.Found(
        image=draw(stored),
        digest=draw(st.sampled_from(["", DIGEST]) | stored),
        resolution=having(phase=Phase.READY, digest=draw(stored)),
        scan=having(phase=draw(st.sampled_from(list(Phase))), scan=draw(st.sampled_from([scan, None]))),
        signatures=having(phase=draw(st.sampled_from(list(Phase))), proofs=(proof,)),
        policies={draw(stored): [draw(stored)]},
        runs=tuple(draw(st.lists(stored, max_size=22))),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(known=found())
def test_evidence_shows_what_scanners_and_signers_said_as_text_and_as_json(
    known: evidence.Found, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = evidence.text(known, NOW)
    shown("\n".join(lines))
    assert all("\n" not in line for line in lines)
    capsys.readouterr()
    terminal.say_json(known)
    written = capsys.readouterr().out
    shown(written)
    assert json.loads(written)["image"] == known.image


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(reference=hostile, reason=hostile)
def test_progress_and_errors_are_shown(reference: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    online.told(online._doing(reference))
    online.told(reason)
    said = capsys.readouterr()
    shown(said.out + said.err)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_error_that_ends_a_command_is_shown(
    attack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(_: Any) -> int:
        raise InputError(attack, hint=attack)

    monkeypatch.setattr(check, "main", fails)
    assert main.main(["check", str(tmp_path)]) == main.FAILED
    said = capsys.readouterr()
    assert said.err
    shown(said.out + said.err)


def test_what_is_meant_for_people_is_left_as_it_is() -> None:
    text = "Pod team/größe is refused: ünïcode, 日本語 and emoji 🚀\n  fix: runAsNonRoot: true"
    assert terminal.safe(text) == text
