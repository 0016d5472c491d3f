"""`mlwarden why POD`: why a pod waits, and what would release it.

With the rights of an ordinary user: the pod, its Events (the controller writes there what it found), and the policies, which everybody may
read. Whoever may read evidence, too, gets the judgement made again here, by the same code that releases.
"""

import argparse
import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from mlwarden import engine, evidence, policy
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
    kubeconfig,
)
from mlwarden.cluster.indexes import Indexes
from mlwarden.errors import Error, InputError
from mlwarden.model.finding import Decision
from mlwarden.model.policy import GATE, PROFILE_LABEL, Settings
from mlwarden.workloads import extract

_COMPONENT = "mlwarden-controller"
_JUDGED = "mlwarden.io/judged"


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
    held, lines = asyncio.run(_why(options, options.pod.removeprefix("pod/"), namespace))
    print("\n".join(lines))
    return 1 if held else 0


async def _why(options: argparse.Namespace, name: str, namespace: str) -> tuple[bool, list[str]]:
    async with await Client.from_kubeconfig(options.kubeconfig, options.context) as client:
        try:
            pod = await client.get(POD, name, namespace=namespace)
        except NotFoundError as error:
            raise InputError(f"there is no pod {namespace}/{name}", hint=f"kubectl get pods -n {namespace}") from error
        gates = [gate.get("name") for gate in pod["spec"].get("schedulingGates") or ()]
        if GATE not in gates:
            return False, _not_held(pod, gates)
        since = pod["metadata"].get("creationTimestamp", "?")
        lines = [f"Pod {namespace}/{name} is held by mlwarden since {since}; it exists and has not started."]
        judged = await _judged(client, pod, namespace)
        said = judged or await _said(client, pod, namespace)
        silence = "mlwarden has not said anything about it yet: is its controller running? kubectl -n mlwarden-system get pods"
        lines += said or [silence]
        others = [gate for gate in gates if gate != GATE]
        if others:
            lines.append(f"It also waits for {', '.join(others)}, which are not mlwarden's.")
        return True, lines


def _not_held(pod: dict[str, Any], gates: list[Any]) -> list[str]:
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    lines = [f"Pod {name} is not held by mlwarden; its phase is {(pod.get('status') or {}).get('phase', 'unknown')}."]
    seal = (pod["metadata"].get("annotations") or {}).get(_JUDGED)
    if seal:
        with contextlib.suppress(ValueError):
            decoded = json.loads(seal)
            because = f": {decoded['because']}" if decoded.get("because") else ""
            lines.append(f"It was released at {decoded.get('at')}{because}.")
    if gates:
        lines.append(f"It waits for {', '.join(map(str, gates))}, which are not mlwarden's.")
    return lines


async def _judged(client: Client, pod: dict[str, Any], namespace: str) -> list[str]:
    """The judgement, made again; empty where the user may not read what it rests on."""
    try:
        policies, space, known, revocations = await asyncio.gather(
            client.list(WARDEN_POLICY), client.get(NAMESPACE, namespace), client.list(IMAGE_EVIDENCE), client.list(REVOKED_ARTIFACT)
        )
    except (ForbiddenError, NotFoundError):
        return []
    settings = await _settings(client)
    if settings is None:
        if PROFILE_LABEL not in (space["metadata"].get("labels") or {}):
            return []  # its profile is the installation's default, which this user may not read
        settings = Settings()
    compiled, broken = [], {}
    for each in policies:
        try:
            compiled.append(policy.compile_policy(policy.parse(each)))
        except Error as error:
            broken[each["metadata"]["name"]] = error.message
    found = evidence.collect(known)
    indexes = Indexes()
    for each in found.images.values():
        indexes.note(each.digest, each)
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
        workload, snapshot.policies, snapshot.facts(namespace, datetime.now(UTC)), snapshot.settings, holdable=True, broken=broken
    )
    if verdict.decision is Decision.ADMIT:
        return ["By what is known now it is good: it should be released within seconds."]
    return [engine.refusal(verdict, workload) if verdict.decision is Decision.DENY else engine.held(verdict)]


async def _settings(client: Client) -> Settings | None:
    """The installation's; None where the user may not read them, or they are not where the documentation has them."""
    try:
        stored = await client.get(CONFIG_MAP, "mlwarden-settings", namespace=Settings().namespace)
        return msgspec.convert(policy.yaml_loads(stored["data"]["settings.yaml"])[0], Settings)
    except (ApiError, Error, KeyError, IndexError, TypeError, msgspec.ValidationError):
        return None


async def _said(client: Client, pod: dict[str, Any], namespace: str) -> list[str]:
    """What the controller wrote into the pod's Events, newest last, and the teaching text of the policies it names."""
    uid = pod["metadata"]["uid"]
    events = await client.list(EVENT, namespace=namespace, fieldSelector=f"involvedObject.uid={uid}")
    ours = [each for each in events if (each.get("source") or {}).get("component") == _COMPONENT and each.get("message")]
    ours.sort(key=lambda each: str(each.get("lastTimestamp") or ""))
    if not ours:
        return []
    newest = str(ours[-1]["message"])
    lines = [f"{ours[-1].get('lastTimestamp')}: {newest}"]
    with contextlib.suppress(ForbiddenError, NotFoundError):
        for each in await client.list(WARDEN_POLICY):
            if f" by {each['metadata']['name']}:" in newest:
                lines.append(f"  why:       {each['spec'].get('why', '')}")
                lines.append(f"  fix:       {(each['spec'].get('fix') or {}).get('text', '')}")
    return lines
