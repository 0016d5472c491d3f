"""`mlwarden why POD`: why a pod waits, and what would release it.

With the rights of an ordinary user: the pod, its Events (the controller writes there what it found), and the policies, which everybody may
read. Whoever may read evidence, too, gets the judgement made again here, by the same code that releases.
"""

import argparse
import asyncio
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mlwarden import engine, evidence, policy
from mlwarden.checks.text import clean
from mlwarden.cli import terminal
from mlwarden.cluster import (
    CONFIG_MAP,
    EVENT,
    IMAGE_EVIDENCE,
    NAMESPACE,
    POD,
    REVOKED_ARTIFACT,
    WARDEN_POLICY,
    ApiError,
    Client,
    ForbiddenError,
    NotFoundError,
    Snapshot,
    clock,
    kubeconfig,
)
from mlwarden.cluster.indexes import Indexes
from mlwarden.controllers.acceptance import WAITS
from mlwarden.controllers.gate import JUDGED
from mlwarden.controllers.release import dead_end, meanwhile
from mlwarden.errors import Error, InputError
from mlwarden.evidence.bounds import Unanswered
from mlwarden.model.finding import Decision, Verdict
from mlwarden.model.policy import GATE, PROFILE_LABEL, Settings
from mlwarden.workloads import extract

_COMPONENTS = frozenset({"mlwarden-controller", "mlwarden-releaser"})
_EVENT_LENGTH = 1024
_GOOD = "By what is known now it is good: it should be released within seconds."
_NAMED = re.compile(r"[A-Za-z ]+ by ([a-z0-9-]{1,63}): ")
"""How `engine.held` begins: what is done, by which policy."""


def main(argv: list[str]) -> int:
    """Prints why; returns 0 if the pod is not held, 1 if it is, 2 if it cannot be read."""
    parser = argparse.ArgumentParser(
        prog="mlwarden why",
        description="Says why a pod waits, and what would release it.",
        epilog="example: kubectl mlwarden why trainer-0 -n research",
    )
    parser.add_argument("pod", help="its name")
    parser.add_argument("-n", "--namespace", default="", help="its namespace (that of the kubeconfig's context)")
    parser.add_argument("--kubeconfig", default=None, metavar="FILE")
    parser.add_argument("--context", default=None)
    options = parser.parse_args(argv)
    namespace = options.namespace or kubeconfig.namespace(options.kubeconfig, options.context)
    held, lines = asyncio.run(_run(options, options.pod.removeprefix("pod/"), namespace))
    terminal.say("\n".join(lines))
    return 1 if held else 0


async def _run(options: argparse.Namespace, name: str, namespace: str) -> tuple[bool, list[str]]:
    async with await Client.from_kubeconfig(options.kubeconfig, options.context) as client:
        return await explain(client, name, namespace)


async def explain(client: Client, name: str, namespace: str) -> tuple[bool, list[str]]:
    """Returns whether mlwarden holds the pod, and what there is to say about it, line by line.

    Raises:
        InputError: there is no such pod.
    """
    try:
        pod = await client.get(POD, name, namespace=namespace)
    except NotFoundError as error:
        raise InputError(f"there is no pod {namespace}/{name}", hint=f"kubectl get pods -n {namespace}") from error
    policies = await _policies(client)
    gates = [str(gate.get("name")) for gate in pod["spec"].get("schedulingGates") or ()]
    if GATE not in gates:
        return False, _not_held(pod, gates) + _waiting(policies or ())
    since = pod["metadata"].get("creationTimestamp", "?")
    lines = [f"Pod {clean(f'{namespace}/{name}')} is held by mlwarden since {clean(str(since), 40)}; it exists and has not started."]
    judged = await _judged(client, pod, namespace, policies)
    said = judged
    if not judged or judged[0] == _GOOD:  # then something else stands in its way
        said = judged + await _said(client, pod, namespace, policies or ())
    silence = "mlwarden has not said anything about it yet: is its controller running? kubectl -n mlwarden-system get pods"
    lines += said or [silence]
    others = [gate for gate in gates if gate != GATE]
    if others:
        lines.append(f"It also waits for {clean(', '.join(others))}, which are not mlwarden's.")
    return True, lines + _waiting(policies or ())


async def _policies(client: Client) -> list[dict[str, Any]] | None:
    try:
        return await client.list(WARDEN_POLICY)
    except (ForbiddenError, NotFoundError):
        return None


def _not_held(pod: dict[str, Any], gates: list[str]) -> list[str]:
    name = clean(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    lines = [f"Pod {name} is not held by mlwarden; its phase is {clean(str((pod.get('status') or {}).get('phase', 'unknown')), 40)}."]
    seal = _seal((pod["metadata"].get("annotations") or {}).get(JUDGED))
    if seal is not None:
        because = clean(str(seal.get("because") or ""))
        lines.append(f"It was released at {clean(str(seal.get('at') or '?'), 40)}{f': {because}' if because else ''}.")
    if gates:
        lines.append(f"It waits for {clean(', '.join(gates))}, which are not mlwarden's.")
    return lines


def _seal(text: object) -> dict[str, object] | None:
    """The seal of a release, None where there is none; where nothing is held anybody may write anything there."""
    try:
        return msgspec.json.decode(str(text or ""), type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _waiting(policies: Iterable[dict[str, Any]]) -> list[str]:
    """Which policies an upgrade brought that the administrator has not accepted yet."""
    waiting: dict[str, list[str]] = {}
    for each in policies:
        if version := (each["metadata"].get("annotations") or {}).get(WAITS):
            waiting.setdefault(str(version), []).append(each["metadata"]["name"])
    return [
        f"Of the policies these only warn until the administrator accepts version {clean(version, 40)} (packs.accept): "
        f"{clean(', '.join(sorted(names)))}."
        for version, names in sorted(waiting.items())
    ]


async def _judged(client: Client, pod: dict[str, Any], namespace: str, policies: list[dict[str, Any]] | None) -> list[str]:
    """The judgement, made again; empty where the user may not read what it rests on."""
    if policies is None:
        return []
    try:
        space, known, revocations = await asyncio.gather(
            client.get(NAMESPACE, namespace), client.list(IMAGE_EVIDENCE), client.list(REVOKED_ARTIFACT)
        )
    except (ForbiddenError, NotFoundError):
        return []
    settings, assumed = await _settings(client), ""
    if settings is None:
        if PROFILE_LABEL not in (space["metadata"].get("labels") or {}):
            return []  # its profile is the installation's default, which this user may not read
        settings = Settings()
        holding = ", ".join(sorted(name for name, holds in settings.profiles.items() if holds))
        assumed = (
            f"The installation's settings cannot be read (ConfigMap mlwarden-settings in {settings.namespace}). This assumes the chart's"
            f" own: rollout {settings.rollout}, profiles that hold: {holding}."
        )
    compiled, broken = [], {}
    for each in policies:
        try:
            compiled.append(policy.compile_policy(policy.parse(each)))
        except Error as error:
            broken[str(each["metadata"]["name"])] = error.message
    found = evidence.collect(known)
    indexes = Indexes()
    for image in found.images.values():
        indexes.note(image.digest, image)
    snapshot = Snapshot(
        revision=1,
        settings=settings,
        policies=tuple(compiled),
        broken=broken,
        namespaces={namespace: space["metadata"]},
        images=found.images,
        resolutions=found.resolutions,
        proofs=found.proofs,
        revoked=policy.revoked(revocations, indexes.related),
    )
    workload = extract(pod)
    verdict = engine.evaluate(
        workload, snapshot.policies, snapshot.facts(namespace, clock.now()), snapshot.settings, holdable=True, broken=broken
    )
    lines = _told(pod, verdict)
    bounds = Unanswered(settings.evidence_per_namespace)
    for each in known:
        bounds.changed(str(each["metadata"]["name"]), each)
    lines += [f"Besides, {clean(bounds.said(namespace))}."] if bounds.is_full(namespace) else []
    return [*lines, assumed] if assumed else lines


def _told(pod: dict[str, Any], verdict: Verdict) -> list[str]:
    stuck = dead_end(pod, verdict)
    if verdict.decision is Decision.ADMIT:
        return [stuck or _GOOD]
    if verdict.decision is Decision.DENY:
        return [engine.refusal(verdict, extract(pod).resource)]
    held = engine.held(verdict) + meanwhile(pod)
    return [held, stuck] if stuck else [held]


async def _settings(client: Client) -> Settings | None:
    """The installation's; None where the user may not read them, or they are not where the documentation has them."""
    try:
        stored = await client.get(CONFIG_MAP, "mlwarden-settings", namespace=Settings().namespace)
        return msgspec.convert(policy.yaml_loads(stored["data"]["settings.yaml"])[0], Settings)
    except (ApiError, Error, KeyError, IndexError, TypeError, msgspec.ValidationError):
        return None


async def _said(client: Client, pod: dict[str, Any], namespace: str, policies: Iterable[dict[str, Any]]) -> list[str]:
    """What mlwarden wrote into the pod's newest Event, and the teaching text of the policy it names: one fix, never two."""
    uid = pod["metadata"]["uid"]
    events = await client.list(EVENT, namespace=namespace, fieldSelector=f"involvedObject.uid={uid}")
    ours = [each for each in events if (each.get("source") or {}).get("component") in _COMPONENTS and each.get("message")]
    if not ours:
        return []
    newest = max(ours, key=lambda each: str(each.get("lastTimestamp") or ""))
    message = clean(str(newest["message"]), _EVENT_LENGTH)
    lines = [f"{clean(str(newest.get('lastTimestamp') or '?'), 40)}: {message}"]
    named = _NAMED.match(message)
    spec = next((each.get("spec") or {} for each in policies if named and each["metadata"]["name"] == named[1]), None)
    if spec is not None:
        lines.append(f"  why:       {clean(str(spec.get('why', '')))}")
        if "; fix: " not in message:
            lines.append(f"  fix:       {clean(str((spec.get('fix') or {}).get('text', '')))}")
    return lines
