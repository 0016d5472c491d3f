"""One container of a pod on the host node: its process, its restarts, its readiness, its status."""

from __future__ import annotations

import datetime as dt
import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlwarden.embedded.processes import Process

_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 20.0
_PROBE_UNTIL_READY_SECONDS = 0.3
_PROBE_PORT = 8081
_WEBHOOK_PORT = 8443


@dataclass(kw_only=True)
class Container:
    """One container and the process that stands for it now."""

    spec: Mapping[str, Any]
    log: Path
    probe_port: int = 0
    process: Process | None = None
    started: str = ""
    started_at: float = 0.0
    restarts: int = -1
    next_start: float = 0.0
    failures_in_a_row: int = 0
    exit_code: int | None = None
    finished: str = ""
    ready: bool = False
    probe_at: float = 0.0
    probe_failures: int = 0
    waiting: str = "ContainerCreating"
    message: str = ""

    def status(self) -> dict[str, Any]:
        """Returns the container's entry in the pod's status."""
        state: dict[str, Any]
        if self.process is not None:
            state = {"running": {"startedAt": self.started}}
        elif self.exit_code is not None:
            reason = "Completed" if self.exit_code == 0 else "Error"
            state = {"terminated": {"exitCode": self.exit_code, "reason": reason, "startedAt": self.started, "finishedAt": self.finished}}
        else:
            state = {"waiting": {"reason": self.waiting, **({"message": self.message} if self.message else {})}}
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.ready,
            "started": self.process is not None,
            "restartCount": max(self.restarts, 0),
            "state": state,
        }

    def reap(self, *, back_off: bool) -> None:
        """Notes the end of the process, if it ended; what is left of its group ends too."""
        if self.process is None or self.process.alive:
            return
        process, self.process = self.process, None
        process.kill()
        code = process.returncode or 0
        self.exit_code = code if code >= 0 else 128 - code
        self.finished = now()
        self.ready = False
        if time.monotonic() - self.started_at > _STEADY_SECONDS:
            self.failures_in_a_row = 0
        pause = _BACK_OFF[min(self.failures_in_a_row, len(_BACK_OFF) - 1)]
        self.failures_in_a_row += 1
        self.next_start = time.monotonic() + (pause if back_off else 0)

    def probe(self, webhook_port: int) -> None:
        """Asks whether it is ready, when it is time to ask. Without a readiness probe it is ready while it runs."""
        if self.process is None or time.monotonic() < self.probe_at:
            return
        probe = self.spec.get("readinessProbe")
        if not probe:
            self.ready = True
            return
        passed = self._passes(probe.get("httpGet") or {}, webhook_port)
        self.probe_failures = 0 if passed else self.probe_failures + 1
        if passed or not self.ready or self.probe_failures >= probe.get("failureThreshold", 3):
            self.ready = passed
        self.probe_at = time.monotonic() + (probe.get("periodSeconds", 10) if self.ready else _PROBE_UNTIL_READY_SECONDS)

    def _passes(self, check: Mapping[str, Any], webhook_port: int) -> bool:
        number = check.get("port")
        for port in self.spec.get("ports") or []:
            if port.get("name") == number:
                number = port["containerPort"]
        real = {_PROBE_PORT: self.probe_port, _WEBHOOK_PORT: webhook_port}.get(number if isinstance(number, int) else 0)
        if real is None:
            return False
        connection: http.client.HTTPConnection
        if check.get("scheme") == "HTTPS":
            unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a kubelet's probes verify nothing either
            unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection("127.0.0.1", real, timeout=1, context=unverified)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", real, timeout=1)
        try:
            connection.request("GET", check.get("path", "/"))
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def now() -> str:
    """Returns the time as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
