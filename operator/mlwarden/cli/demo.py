"""`mlwarden demo`: the main job, end to end, on a real API server, as the people who meet it see it.

The workloads of `examples/` are applied as a data scientist; for each it says what happened, whether that is what should happen, and
whether `mlwarden check` had said the same. Then every mlwarden process is killed, three more are applied, and it comes back. Exit 1 if
anything was not as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from mlwarden import policy
from mlwarden.cli import judging, printing, rules
from mlwarden.cli.manifests import Manifest, Origin
from mlwarden.embedded import build, ground, ownimage
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.incluster import PodsOnNode
from mlwarden.embedded.installed import NAMESPACE, Installation, install_ml_kinds, push_demo_images
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.processes import wait_until
from mlwarden.embedded.ways import RUNS, SPACE, STATES, Ways
from mlwarden.model.finding import Decision
from mlwarden.model.policy import Settings

_PLACEHOLDER = "registry.example.com"
_SECONDS = 30.0
_DENIED = " denied the request: "
Say = Callable[[str], None]


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload of `demo_workloads.yaml` and what should come of it.

    Attributes:
        title: for a person.
        file: below `examples/`.
        expect: refused, held, runs or admitted.
        says: what the refusal, the Event or the warning must contain.
        never: what must not be printed.
        phase: `` or `outage`: applied while every mlwarden process is dead.
    """

    title: str
    file: str
    expect: str
    says: str = ""
    never: str = ""
    phase: str = ""


class Seen(msgspec.Struct, kw_only=True):
    """What happened: what kubectl printed, what became of it, and whether that is right."""

    case: Case
    manifest: dict[str, Any]
    printed: str
    refused: bool
    outcome: str = ""
    detail: str = ""
    right: bool = False
    wrong: str = ""

    @property
    def namespace(self) -> str:
        """Where it was applied."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.manifest["metadata"]["name"])


def examples() -> Path:
    """Returns the folder of the examples."""
    return build.source_tree() / "examples"


def cases() -> list[Case]:
    """Returns what is applied, in order."""
    text = resources.files("mlwarden.cli").joinpath("demo_workloads.yaml").read_text(encoding="utf-8")
    return msgspec.convert(policy.yaml_loads(text)[0], list[Case])


def manifests(file: str, registry: str) -> list[dict[str, Any]]:
    """Returns the objects of one of the examples, with their images in the embedded registry."""
    text = (examples() / file).read_text(encoding="utf-8")
    return policy.yaml_loads(text.replace(_PLACEHOLDER, registry))


def main(argv: list[str]) -> int:
    """Runs the demo; returns 0 if everything happened as it should, else 1."""
    parser = argparse.ArgumentParser(
        prog="mlwarden demo",
        description="Start an embedded Kubernetes cluster, install mlwarden, apply a dozen workloads, and say what happened.",
        epilog="example: mlwarden demo --keep",
    )
    parser.add_argument(
        "--pretend", action="store_true", help="no real node, even where this machine can run one: pods are only said to run"
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster running until interrupted, and say how to use it")
    options = parser.parse_args(argv)
    console = Console(highlight=False)
    started = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  {escape(line)}", soft_wrap=True)

    reason = "as asked for" if options.pretend else ground.obstacle() or ownimage.obstacle()
    if reason:
        say(f"no real node, pods are only said to run: {reason}")
    else:
        ownimage.image(say=say)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(EmbeddedCluster(nodes=3 if reason else 0, real_node=not reason, say=say))
        pods = stack.enter_context(HostKubelet(cluster)) if reason else PodsOnNode(cluster)
        install_ml_kinds(cluster)
        push_demo_images(cluster)
        say(f"helm install mlwarden charts/mlwarden --set 'trustedRegistries={{{cluster.registry}}}'")
        Installation(cluster, pods, trustedRegistries=[cluster.registry]).install()
        namespaces = manifests("namespaces.yaml", cluster.registry)
        for namespace in namespaces:
            metadata = namespace["metadata"]
            cluster.create_namespace(metadata["name"], labels=metadata.get("labels", {}))
            cluster.grant("alice", "edit", metadata["name"])
        say("ready; applying workloads as alice, a data scientist")
        results = _run(cluster, pods, say)
        _compare(results, namespaces, cluster.registry)
        wrong = _report(console, results)
        if isinstance(pods, PodsOnNode):
            pods.await_ready()
        _show(console, cluster)
        wrong += _ways(console, cluster, say)
        console.print(f"\n{len(results) - wrong} of {len(results)} as they should be, in {time.monotonic() - started:.0f} s")
        console.print(f"mlwarden check examples/ says the same of {sum(not seen.wrong for seen in results)} of {len(results)}")
        if options.keep:
            _keep(console, cluster)
    return 1 if wrong else 0


def _run(cluster: EmbeddedCluster, pods: HostKubelet | PodsOnNode, say: Say) -> list[Seen]:
    everything = cases()
    results = [_apply(cluster, case) for case in everything if not case.phase]
    for seen in results:
        _observe(cluster, seen)
    say("kill -9 of every mlwarden process; applying three more")
    pods.kill_all()
    dark = [_apply(cluster, case) for case in everything if case.phase == "outage"]
    for seen in dark:
        _stays_held(cluster, seen)
    say("mlwarden comes back")
    pods.resume()
    for seen in dark:
        if seen.right:
            _observe(cluster, seen)
    return results + dark


def _apply(cluster: EmbeddedCluster, case: Case) -> Seen:
    (manifest,) = manifests(case.file, cluster.registry)
    printed = cluster.kubectl("apply", "--filename", "-", user="alice", input=json.dumps(manifest), check=False)
    created = f"{manifest['metadata']['name']} created" in printed
    return Seen(case=case, manifest=manifest, printed=printed.strip(), refused=not created)


def _compare(results: list[Seen], namespaces: list[dict[str, Any]], registry: str) -> None:
    """`mlwarden check` of the same manifests, against what the cluster did: refused or not, and in the very words where they are long."""
    found = [Manifest(origin=_origin("namespaces.yaml"), object=namespace) for namespace in namespaces]
    found += [Manifest(origin=_origin(seen.case.file), object=seen.manifest) for seen in results]
    judged = list(judging.judge(found, rules.shipped([registry]), Settings(), profile=Settings().default_profile, now=datetime.now(UTC)))
    for seen, item in zip(results, judged[len(namespaces) :], strict=True):
        decision = item.verdict.decision if item.verdict else None
        if (decision is Decision.DENY) != seen.refused:
            seen.wrong = f"mlwarden check says {decision}"
        elif _DENIED in seen.printed and "admission webhook" in seen.printed:
            theirs, ours = _first_finding(seen.printed.partition(_DENIED)[2]), _first_finding(printing.text(item))
            if theirs != ours:
                seen.wrong = f"mlwarden check has other words: {ours}"
        if seen.wrong:
            seen.right = False


def _origin(file: str) -> Origin:
    return Origin(file=file, label=file)


def _first_finding(text: str) -> str:
    """All but what a laptop cannot know: how many others there are, of which evidence answers some, and how busy the scanner is."""
    return "\n".join(line for line in text.strip().splitlines() if not line.startswith(("and ", "  try again: ")))


def _pods(cluster: EmbeddedCluster, seen: Seen) -> list[dict[str, Any]]:
    """The pods of a case: itself, or those whose names begin with its name."""
    listed = cluster.api().get(f"/api/v1/namespaces/{seen.namespace}/pods")["items"]
    if seen.manifest["kind"] == "Pod":
        return [pod for pod in listed if pod["metadata"]["name"] == seen.name]
    return [pod for pod in listed if pod["metadata"]["name"].startswith(f"{seen.name}-") and pod["metadata"].get("ownerReferences")]


def _phases(cluster: EmbeddedCluster, seen: Seen) -> set[str]:
    return {"Held" if pod["spec"].get("schedulingGates") else pod["status"].get("phase", "") for pod in _pods(cluster, seen)}


def _events(cluster: EmbeddedCluster, seen: Seen) -> list[str]:
    listed = cluster.api().get(f"/api/v1/namespaces/{seen.namespace}/events")["items"]
    return [event.get("message", "") for event in listed if event["involvedObject"].get("name", "") == seen.name]


def _stays_held(cluster: EmbeddedCluster, seen: Seen) -> None:
    """In the dark: refused by a compiled policy, or there and held. Anything that started would be wrong."""
    phases = _phases(cluster, seen)
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
        wait_until(lambda: _phases(cluster, seen) == {"Running"}, seconds=_SECONDS)
        phases = _phases(cluster, seen)
        seen.right = phases == {"Running"} and case.says in seen.printed
        seen.outcome = " → ".join(filter(None, [before, "runs" if phases == {"Running"} else ", ".join(phases)]))
    else:
        said = wait_until(lambda: [text for text in _events(cluster, seen) if case.says in text], seconds=_SECONDS)
        phases = _phases(cluster, seen)
        seen.right = bool(said) and phases == {"Held"}
        seen.outcome = " → ".join(filter(None, [before, "stays held" if phases == {"Held"} else ", ".join(phases)]))
        seen.detail = said[-1] if said else "; ".join(_events(cluster, seen))
    if case.never and case.never in seen.printed + seen.detail:
        seen.right, seen.outcome = False, "printed a secret"


def _report(console: Console, results: list[Seen]) -> int:
    for seen in results:
        mark = "[green]✓[/green]" if seen.right else "[red]✗[/red]"
        title = f"[bold]{escape(seen.case.title)}[/bold] [dim](examples/{escape(seen.case.file)})[/dim]"
        console.print(f"\n{mark} {title}: {escape(seen.outcome)}", soft_wrap=True)
        if not seen.right:
            reason = seen.wrong or f"expected: {seen.case.expect}, with {seen.case.says!r}"
            console.print(f"  {reason}", style="red", markup=False, soft_wrap=True)
        for line in seen.printed.splitlines():
            console.print(f"    {line}", style="dim", markup=False, soft_wrap=True)
        if seen.detail:
            console.print(f"    Event: {seen.detail}", style="dim", markup=False, soft_wrap=True)
    return sum(not seen.right for seen in results)


def _show(console: Console, cluster: EmbeddedCluster) -> None:
    """What alice sees when she looks."""
    _said(console, "kubectl get pods -n serving", cluster.kubectl("get", "pods", "-n", "serving", user="alice"))
    if cluster.node is not None:
        _said(
            console,
            "kubectl logs fraud-predictor-0 -n serving",
            cluster.kubectl("logs", "fraud-predictor-0", "-n", "serving", user="alice"),
        )
        _said(console, f"kubectl get pods -n {NAMESPACE}", cluster.kubectl("get", "pods", "-n", NAMESPACE))
    command = [sys.executable, "-m", "mlwarden.cli.main", "why", "old-requests", "-n", "serving"]
    answer = subprocess.run(command, env=cluster.environment("alice"), capture_output=True, text=True, check=False)
    _said(console, "kubectl mlwarden why old-requests -n serving", answer.stdout + answer.stderr)


def _ways(console: Console, cluster: EmbeddedCluster, say: Say) -> int:
    """Every way in which an image gets into a pod, with every kind of image; returns how many cells are wrong."""
    console.print(
        "\n[bold]Every way in which an image gets into a pod[/bold]; only what is scanned, signed and good may start\n", soft_wrap=True
    )
    ways = Ways(cluster, say)
    cells = ways.run()
    width = max(map(len, STATES)) + 1
    names = list(dict.fromkeys(cell.way for cell in cells))
    first = max(map(len, names)) + 2
    console.print("".join(["".ljust(first), *(state.ljust(width) for state in STATES)]), soft_wrap=True)
    for way in names:
        row = [cell for cell in cells if cell.way == way]
        shown = [f"[{'green' if cell.right else 'bold red'}]{cell.outcome.ljust(width)}[/]" for cell in row]
        console.print("".join([escape(way.ljust(first)), *shown]), soft_wrap=True)
    console.print("admitted: a template runs nothing by itself; its pods are held when they come", style="dim")
    wrong = [cell for cell in cells if not cell.right]
    for cell in wrong:
        console.print(f"✗ {cell.way}, {cell.state}: {cell.outcome} {cell.said}", style="red", markup=False, soft_wrap=True)
    (refused,) = [cell for cell in cells if (cell.way, cell.state) == ("kubectl debug", "unscanned")]
    image = ways.images["unscanned"].rpartition("@")[0]
    _said(console, f"kubectl debug target -n {SPACE} --image={image}@…", refused.said)
    held = ways.come_back()
    for each in held:
        console.print(f"✗ {each}: still held with the scanner back", style="red", markup=False)
    again = ways.debug_again("unscanned")
    _said(console, f"kubectl debug target -n {SPACE} --image={image}@…", again.said or "(admitted, and pinned to its digest)")
    _evidence(console, cluster, ways.images["vulnerable"])
    return len(wrong) + len(held) + (again.outcome != RUNS)


def _evidence(console: Console, cluster: EmbeddedCluster, image: str) -> None:
    command = [sys.executable, "-m", "mlwarden.cli.main", "evidence", image]
    answer = subprocess.run(command, env=cluster.environment(), capture_output=True, text=True, check=False)
    _said(console, f"kubectl mlwarden evidence {image}", answer.stdout + answer.stderr)


def _said(console: Console, command: str, text: str) -> None:
    console.print(f"\n$ {command}", markup=False, soft_wrap=True)
    console.print(text.rstrip(), style="dim", markup=False, soft_wrap=True)


def _keep(console: Console, cluster: EmbeddedCluster) -> None:
    console.print("\nThe cluster stays until you press Ctrl-C. In another terminal:")
    console.print(f"  export KUBECONFIG={cluster.kubeconfig('alice')}   # or {cluster.kubeconfig('admin')}", markup=False, soft_wrap=True)
    console.print(f"  export PATH={cluster.environment()['PATH'].split(':')[0]}:$PATH", markup=False, soft_wrap=True)
    console.print(
        f"  kubectl -n serving get pods; kubectl mlwarden why old-requests -n serving; kubectl -n {NAMESPACE} get pods", markup=False
    )
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
