"""`mlwarden demo`: the main job, end to end, on a real API server, as the people who meet it see it.

A dozen workloads are applied as a data scientist; for each it says what happened and whether that is what should happen. Then every
mlwarden process is killed, three more are applied, and it comes back. Exit 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from importlib import resources
from typing import Any

import msgspec
import yaml
from rich.console import Console
from rich.markup import escape

from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import NAMESPACE, Installation, install_ml_kinds, push_demo_images
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.processes import wait_until

_NAMESPACES = {"sandbox": "", "research": "experiment", "serving": "production"}
_SECONDS = 30.0


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload of `demo_workloads.yaml` and what should come of it.

    Attributes:
        title: for a person.
        namespace: where alice applies it.
        expect: refused, held, runs or admitted.
        says: what the refusal, the Event or the warning must contain.
        never: what must not be printed.
        phase: `` or `outage`: applied while every mlwarden process is dead.
        manifest: the object.
    """

    title: str
    namespace: str
    expect: str
    manifest: dict[str, Any]
    says: str = ""
    never: str = ""
    phase: str = ""


class Seen(msgspec.Struct, kw_only=True):
    """What happened: what kubectl printed, what became of it, and whether that is right."""

    case: Case
    printed: str
    refused: bool
    outcome: str = ""
    detail: str = ""
    right: bool = False


def cases(registry: str) -> list[Case]:
    """Returns the workloads with `REGISTRY` replaced."""
    text = resources.files("mlwarden.cli").joinpath("demo_workloads.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.safe_load(text.replace("REGISTRY", registry)), list[Case])


def main(argv: list[str]) -> int:
    """Runs the demo; returns 0 if everything happened as it should, else 1."""
    parser = argparse.ArgumentParser(
        prog="mlwarden demo",
        description="Start an embedded Kubernetes cluster, install mlwarden, apply a dozen workloads, and say what happened.",
        epilog="example: mlwarden demo --keep",
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster running until interrupted, and say how to use it")
    options = parser.parse_args(argv)
    console = Console(highlight=False)
    started = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  {escape(line)}", soft_wrap=True)

    with EmbeddedCluster(say=say) as cluster, HostKubelet(cluster) as kubelet:
        install_ml_kinds(cluster)
        push_demo_images(cluster)
        say("helm install mlwarden charts/mlwarden")
        Installation(cluster, kubelet).install()
        for name, profile in _NAMESPACES.items():
            cluster.create_namespace(name, labels={"mlwarden.io/profile": profile} if profile else {})
            cluster.grant("alice", "edit", name)
        say("ready; applying workloads as alice, a data scientist")
        results = _run(cluster, kubelet, say)
        wrong = _report(console, results)
        console.print(f"\n{len(results) - wrong} of {len(results)} as they should be, in {time.monotonic() - started:.0f} s")
        if options.keep:
            _keep(console, cluster)
    return 1 if wrong else 0


def _run(cluster: EmbeddedCluster, kubelet: HostKubelet, say: Any) -> list[Seen]:
    everything = cases(cluster.registry)
    results = [_apply(cluster, case) for case in everything if not case.phase]
    for seen in results:
        _observe(cluster, seen)
    say("kill -9 of every mlwarden process; applying three more")
    kubelet.kill_all()
    dark = [_apply(cluster, case) for case in everything if case.phase == "outage"]
    for seen in dark:
        _stays_held(cluster, seen)
    say("mlwarden comes back")
    kubelet.resume()
    for seen in dark:
        if seen.right:
            _observe(cluster, seen)
    return results + dark


def _apply(cluster: EmbeddedCluster, case: Case) -> Seen:
    manifest = json.dumps(case.manifest)
    printed = cluster.kubectl("apply", "--namespace", case.namespace, "--filename", "-", user="alice", input=manifest, check=False)
    created = f"{case.manifest['metadata']['name']} created" in printed
    return Seen(case=case, printed=printed.strip(), refused=not created)


def _pods(cluster: EmbeddedCluster, case: Case) -> list[dict[str, Any]]:
    """The pods of a case: itself, or those whose names begin with its name."""
    listed = cluster.api().get(f"/api/v1/namespaces/{case.namespace}/pods")["items"]
    name = case.manifest["metadata"]["name"]
    if case.manifest["kind"] == "Pod":
        return [pod for pod in listed if pod["metadata"]["name"] == name]
    return [pod for pod in listed if pod["metadata"]["name"].startswith(f"{name}-") and pod["metadata"].get("ownerReferences")]


def _phases(cluster: EmbeddedCluster, case: Case) -> set[str]:
    return {"Held" if pod["spec"].get("schedulingGates") else pod["status"].get("phase", "") for pod in _pods(cluster, case)}


def _events(cluster: EmbeddedCluster, case: Case) -> list[str]:
    name = case.manifest["metadata"]["name"]
    listed = cluster.api().get(f"/api/v1/namespaces/{case.namespace}/events")["items"]
    return [event.get("message", "") for event in listed if event["involvedObject"].get("name", "") == name]


def _stays_held(cluster: EmbeddedCluster, seen: Seen) -> None:
    """In the dark: refused by a compiled policy, or there and held. Anything that started would be wrong."""
    phases = _phases(cluster, seen.case)
    if seen.case.expect == "refused":
        seen.right = seen.refused and seen.case.says in seen.printed
        seen.outcome = "refused by the API server itself"
    else:
        seen.right = not seen.refused and phases == {"Held"}
        seen.outcome = "created and held" if seen.right else f"refused: {seen.refused}, {', '.join(phases)}"


def _observe(cluster: EmbeddedCluster, seen: Seen) -> None:
    """Waits for what should happen, and writes down what did."""
    case, before = seen.case, seen.outcome
    if case.expect == "refused":
        seen.right = seen.refused and case.says in seen.printed
        seen.outcome = before or ("refused" if seen.refused else "admitted")
    elif seen.refused:
        seen.right, seen.outcome = False, "refused"
    elif case.expect == "admitted":
        seen.right, seen.outcome = case.says in seen.printed, "admitted"
    elif case.expect == "runs":
        wait_until(lambda: _phases(cluster, case) == {"Running"}, seconds=_SECONDS)
        phases = _phases(cluster, case)
        seen.right = phases == {"Running"} and case.says in seen.printed
        seen.outcome = " → ".join(filter(None, [before, "runs" if phases == {"Running"} else ", ".join(phases)]))
    else:
        said = wait_until(lambda: [text for text in _events(cluster, case) if case.says in text], seconds=_SECONDS)
        phases = _phases(cluster, case)
        seen.right = bool(said) and phases == {"Held"}
        seen.outcome = " → ".join(filter(None, [before, "stays held" if phases == {"Held"} else ", ".join(phases)]))
        seen.detail = said[-1] if said else "; ".join(_events(cluster, case))
    if case.never and case.never in seen.printed + seen.detail:
        seen.right, seen.outcome = False, "printed a secret"


def _report(console: Console, results: list[Seen]) -> int:
    for seen in results:
        mark = "[green]✓[/green]" if seen.right else "[red]✗[/red]"
        title = f"[bold]{escape(seen.case.title)}[/bold] [dim]({seen.case.namespace})[/dim]"
        console.print(f"\n{mark} {title}: {escape(seen.outcome)}", soft_wrap=True)
        if not seen.right:
            console.print(f"  expected: {seen.case.expect}, with {seen.case.says!r}", style="red", markup=False)
        for line in seen.printed.splitlines():
            console.print(f"    {line}", style="dim", markup=False, soft_wrap=True)
        if seen.detail:
            console.print(f"    Event: {seen.detail}", style="dim", markup=False, soft_wrap=True)
    return sum(not seen.right for seen in results)


def _keep(console: Console, cluster: EmbeddedCluster) -> None:
    console.print("\nThe cluster stays until you press Ctrl-C. In another terminal:")
    console.print(f"  export KUBECONFIG={cluster.kubeconfig('alice')}   # or {cluster.kubeconfig('admin')}", markup=False, soft_wrap=True)
    console.print(f"  export PATH={cluster.environment()['PATH'].split(':')[0]}:$PATH", markup=False, soft_wrap=True)
    console.print(
        f"  kubectl -n serving get pods; kubectl mlwarden why old-requests -n serving; kubectl -n {NAMESPACE} get pods", markup=False
    )
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
