"""The life of one pod on the host node: volumes, init containers, containers, probes, restarts, status, end.

One thread for each pod, asking its processes ten times a second how they are: a host node has a dozen pods, and a loop that reads from top
to bottom is easier to trust than callbacks.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import mlwarden
from mlwarden.embedded import build
from mlwarden.embedded.api import STRATEGIC_PATCH, Api, ApiError
from mlwarden.embedded.container import Container, now
from mlwarden.embedded.processes import Keeper, Process, free_port
from mlwarden.embedded.volumes import SERVICE_ACCOUNT_MOUNT, VolumeError, Volumes
from mlwarden.embedded.volumes import field as downward
from mlwarden.errors import ClusterError

_TICK = 0.1
_REFRESH_SECONDS = 30.0


class NotOursError(ClusterError):
    """A container that is not mlwarden's: the host kubelet runs nothing else."""


class Host(Protocol):
    """What a worker needs from its kubelet."""

    api: Api
    keeper: Keeper
    directory: Path
    logs_directory: Path
    server_host: str
    server_port: int
    webhook_port: int
    program: tuple[str, ...]
    running: threading.Event
    stopped: threading.Event
    starting: threading.Lock


class PodWorker:
    """Runs one pod until it is deleted or complete.

    Attributes:
        pod: the newest state of the object; the kubelet sets it.
        gone: set when the object is no more.
    """

    def __init__(self, *, host: Host, pod: dict[str, Any]) -> None:
        self.host = host
        self.pod = pod
        self.gone = threading.Event()
        metadata, spec = pod["metadata"], pod["spec"]
        self.uid: str = metadata["uid"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self._directory = self.host.directory / self.uid[:8]
        self._volumes = Volumes(self.host.api, self.pod, self._directory, fixed=(self.host.directory.parent,))
        logs = self.host.logs_directory / f"{self.namespace}_{self.name}_{self.uid[:8]}"
        self._init = [Container(spec=each, log=logs / f"{each['name']}.log") for each in spec.get("initContainers") or []]
        self._containers = [Container(spec=each, log=logs / f"{each['name']}.log") for each in spec["containers"]]
        self._published: dict[str, Any] = {}
        self._publish_at = 0.0
        self._initialised = not self._init
        self._failed = ""
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.name}", daemon=True)

    def start(self) -> None:
        """Starts the pod's thread."""
        logs = self._containers[0].log.parent
        logs.mkdir(parents=True, exist_ok=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def join(self) -> None:
        """Waits until the pod's processes are gone."""
        self._thread.join()

    def pids(self) -> dict[str, int]:
        """Returns the process ids by container name."""
        return {each.spec["name"]: process.pid for each in self._all() if (process := each.process) is not None and process.alive}

    def kill(self) -> None:
        """SIGKILL to everything; whether and when it starts again is the loop's business."""
        for each in self._all():
            process = each.process
            if process is not None:
                process.kill()

    def logs(self) -> str:
        """Returns what the containers wrote, each under a heading when there are several."""
        texts = [(each.spec["name"], each.log.read_text(encoding="utf-8", errors="replace")) for each in self._all() if each.log.exists()]
        return texts[0][1] if len(texts) == 1 else "".join(f"=== {name}\n{text}" for name, text in texts)

    def _all(self) -> list[Container]:
        return [*self._init, *self._containers]

    # The loop.

    def _run(self) -> None:
        refreshed = 0.0
        mounted = False
        while not self.gone.is_set() and not self.host.stopped.is_set():
            if self.pod["metadata"].get("deletionTimestamp"):
                self._terminate()
                return
            if self._phase() not in {"Succeeded", "Failed"}:
                if time.monotonic() > refreshed + (_REFRESH_SECONDS if mounted else 0.5):
                    refreshed = time.monotonic()
                    mounted = self._mount() or mounted
                if mounted:
                    self._supervise()
            self._publish()
            self.gone.wait(_TICK)
        for each in self._all():
            if each.process is not None:
                each.process.kill()

    def _mount(self) -> bool:
        try:
            self._volumes.materialise()
        except (ApiError, VolumeError) as error:
            for each in self._all():
                each.message = str(error)
            return False
        return True

    def _supervise(self) -> None:
        if not self._initialised:
            self._supervise_init()
            return
        policy = self.pod["spec"].get("restartPolicy", "Always")
        for each in self._containers:
            each.reap(back_off=self.host.running.is_set())
            if each.process is None and (each.exit_code is None or policy == "Always" or (policy == "OnFailure" and each.exit_code != 0)):
                self._begin(each)
            each.probe(self.host.webhook_port)

    def _supervise_init(self) -> None:
        for each in self._init:
            each.reap(back_off=self.host.running.is_set())
            if each.process is not None:
                return
            if each.exit_code != 0:
                if each.exit_code is not None and self.pod["spec"].get("restartPolicy") == "Never":
                    self._failed = f"init container {each.spec['name']} exited with {each.exit_code}"
                    return
                self._begin(each)
                return
            each.ready = True
        self._initialised = True

    def _begin(self, container: Container) -> None:
        if not self.host.running.is_set() or time.monotonic() < container.next_start:
            return
        if container.probe_port == 0:
            container.probe_port = free_port()
        try:
            command = self._command(container)
            environment = self._environment(container)
        except (NotOursError, VolumeError) as error:
            container.waiting, container.message = "CreateContainerError", str(error)
            if self.pod["spec"].get("restartPolicy") == "Never":
                self._failed = str(error)
            return
        with self.host.starting:
            if not self.host.running.is_set():
                return
            container.started, container.started_at = now(), time.monotonic()
            container.restarts += 1
            container.exit_code = None
            container.probe_at = 0.0
            container.process = Process(
                f"{self.name}/{container.spec['name']}",
                command,
                log=container.log,
                keeper=self.host.keeper,
                environment=environment,
                cwd=self._directory,
            )

    # What a container's image would have said.

    def _command(self, container: Container) -> list[str]:
        spec = container.spec
        entrypoint = list(spec.get("command") or ["mlwarden"])
        repository = str(spec["image"]).split("@", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]
        if entrypoint[0].rsplit("/", maxsplit=1)[-1] != "mlwarden" or not repository.startswith("mlwarden"):
            raise NotOursError(f"the host node runs mlwarden only; this is {entrypoint[0]} of image {spec['image']}")
        variables = self._variables(container)
        arguments = [_expanded(each, variables) for each in [*entrypoint[1:], *(spec.get("args") or [])]]
        return [*self.host.program, *(self._volumes.rewrite(spec, each) for each in arguments)]

    def _environment(self, container: Container) -> dict[str, str]:
        temporary = self._directory / f"t-{container.spec['name']}"
        temporary.mkdir(exist_ok=True)
        nothing = self._directory / "empty"
        nothing.mkdir(exist_ok=True)
        own = {name: self._volumes.rewrite(container.spec, value) for name, value in self._variables(container).items()}
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), build.tools_path(), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(Path(mlwarden.__file__).parents[1]),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "HOSTNAME": self.name,
            "KUBERNETES_SERVICE_HOST": self.host.server_host,
            "KUBERNETES_SERVICE_PORT": str(self.host.server_port),
            "MLWARDEN_SERVICE_ACCOUNT_DIR": str(self._volumes.directory(container.spec, SERVICE_ACCOUNT_MOUNT) or nothing),
            "MLWARDEN_HOST": "127.0.0.1",
            "MLWARDEN_PORT": str(self.host.webhook_port),
            "MLWARDEN_PROBE_PORT": str(container.probe_port),
            **own,
        }

    def _variables(self, container: Container) -> dict[str, str]:
        variables: dict[str, str] = {}
        for each in container.spec.get("env") or []:
            source = each.get("valueFrom")
            if source is None:
                variables[each["name"]] = _expanded(each.get("value", ""), variables)
            elif "fieldRef" in source:
                variables[each["name"]] = downward(self.pod, source["fieldRef"]["fieldPath"])
            else:
                raise VolumeError(f"environment variable {each['name']}: the host kubelet knows values and fieldRef only")
        return variables

    # Status.

    def _phase(self) -> str:
        if self._failed:
            return "Failed"
        codes = [each.exit_code for each in self._containers if each.process is None]
        if len(codes) == len(self._containers) and None not in codes:
            policy = self.pod["spec"].get("restartPolicy", "Always")
            if all(code == 0 for code in codes) and policy != "Always":
                return "Succeeded"
            if policy == "Never":
                return "Failed"
        return "Running" if any(each.restarts >= 0 for each in self._containers) else "Pending"

    def _status(self) -> dict[str, Any]:
        phase = self._phase()
        ready = phase == "Running" and all(each.ready for each in self._containers)
        facts = {"PodReadyToStartContainers": True, "Initialized": self._initialised, "ContainersReady": ready, "Ready": ready}
        status: dict[str, Any] = {
            "phase": phase,
            "conditions": [{"type": kind, "status": str(value)} for kind, value in facts.items()],
            "containerStatuses": [each.status() for each in self._containers],
            "hostIP": "127.0.0.1",
        }
        if self._init:
            status["initContainerStatuses"] = [each.status() for each in self._init]
        if self._failed:
            status |= {"reason": "NotRun", "message": self._failed}
        return status

    def _publish(self) -> None:
        status = self._status()
        if status == self._published or time.monotonic() < self._publish_at:
            return
        previous = {each["type"]: each for each in self._published.get("conditions", [])}
        conditions = [
            {**each, **({} if previous.get(each["type"], {}).get("status") == each["status"] else {"lastTransitionTime": now()})}
            for each in status["conditions"]
        ]
        body = {"metadata": {"uid": self.uid}, "status": {**status, "conditions": conditions}}
        if not self._published:
            body["status"]["startTime"] = now()
        try:
            self.host.api.patch(self._path("/status"), body, content_type=STRATEGIC_PATCH)
            self._published = status
        except ApiError:
            self._publish_at = time.monotonic() + 0.5

    def _terminate(self) -> None:
        """SIGTERM, the pod's grace, SIGKILL, and the object goes."""
        metadata = self.pod["metadata"]
        grace = metadata.get("deletionGracePeriodSeconds")
        deadline = time.monotonic() + (30 if grace is None else grace)
        threads = [
            threading.Thread(target=each.process.stop, args=(deadline - time.monotonic(),))
            for each in self._all()
            if each.process is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in self._all():
            each.reap(back_off=self.host.running.is_set())
        while not self.gone.is_set() and not self.host.stopped.is_set():
            try:
                body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
                self.host.api.delete(self._path(), body)
            except ApiError as error:
                if error.code in {404, 409}:
                    return
            else:
                return
            self.gone.wait(0.5)

    def _path(self, subresource: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}{subresource}"


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it; `$$(NAME)` stays as `$(NAME)`, and so does a name that is not set."""
    return re.sub(
        r"\$(\$?)\((\w+)\)", lambda found: f"$({found[2]})" if found[1] or found[2] not in variables else variables[found[2]], text
    )
