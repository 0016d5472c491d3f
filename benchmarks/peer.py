"""Kyverno, beside mlwarden on the same API server: built from its pinned Go module, installed from the chart in it, run on the host.

Only what a host process forces is left out: its pods (it runs here, `--serverIP` is its own switch for that), and the charts it depends on
that are not in its module. Arguments and environment of the process are those of the rendered Deployment. It speaks to the API server as an
administrator.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from mlwarden.embedded import build
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.processes import Process, free_port, wait_until
from mlwarden.errors import ClusterError

_MODULE = Path(__file__).parent / "kyverno"
_PACKAGE = "github.com/kyverno/kyverno"
_SPACE = "kyverno"
_PODS = frozenset({"Pod", "Job", "CronJob"})
_POLICIES = "/apis/policies.kyverno.io/v1/imagevalidatingpolicies"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
_ENVIRONMENT = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
_ANSWERS_SECONDS = 90.0


def binary() -> Path:
    """Returns the program, built first where the cache has none (about four minutes on two cores)."""
    digest = hashlib.sha256(b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()[:16]
    path = build.cache() / "tools" / f"kyverno-{digest}" / "kyverno"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print("kyverno: building, usually about four minutes the first time", flush=True)
        temporary = path.with_name(f".kyverno.{os.getpid()}")
        command = ("build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", str(temporary), f"{_PACKAGE}/cmd/kyverno")
        subprocess.run([build.compiler(_MODULE / "go.mod"), *command], cwd=_MODULE, env=_ENVIRONMENT, check=True)
        temporary.rename(path)
    return path


def _source() -> Path:
    """The folder of its module, with its chart and its definitions."""
    command = [build.compiler(_MODULE / "go.mod"), "list", "-m", "-f", "{{.Dir}}", _PACKAGE]
    return Path(subprocess.run(command, cwd=_MODULE, env=_ENVIRONMENT, check=True, capture_output=True, text=True).stdout.strip())


class Kyverno:
    """One replica of its admission controller. Use as a context manager; the webhooks go with it, the definitions stay.

    Args:
        cluster: where.
    """

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._cluster = cluster
        self._process: Process | None = None

    def __enter__(self) -> Self:
        program, source = binary(), _source()
        for path in sorted((source / "config" / "crds").rglob("*.yaml")):
            self._cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(path))
        self._cluster.create_namespace(_SPACE)
        documents = [each for each in yaml.safe_load_all(self._rendered(source)) if each and each["kind"] not in _PODS]
        (controller,) = (each for each in documents if each["kind"] == "Deployment" and "admission" in each["metadata"]["name"])
        for each in documents:
            if each["kind"] == "Deployment":
                each["spec"]["replicas"] = 0
        self._cluster.kubectl("apply", "--server-side", "--filename", "-", input=yaml.safe_dump_all(documents))
        self._start(program, controller)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        if self._process is None:
            raise ClusterError("kyverno does not run")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs; without its own kubelet nobody starts it again."""
        return self._process is not None and self._process.alive

    def close(self) -> None:
        """Ends the process and takes its webhooks away, which would otherwise refuse everything."""
        if self._process is not None:
            self._process.kill()
        for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
            for item in self._cluster.api().get(f"{_WEBHOOKS}/{kind}")["items"]:
                if item["metadata"]["name"].startswith("kyverno"):
                    self._cluster.api().delete(f"{_WEBHOOKS}/{kind}/{item['metadata']['name']}")

    def apply(self, policy: dict[str, Any], *, refused: tuple[str, dict[str, Any]]) -> None:
        """Puts a policy in force, and returns when it is.

        Args:
            policy: an ImageValidatingPolicy.
            refused: path and body of something that is created until this policy refuses it, with `dryRun=All`.
        """
        said = [""]

        def works() -> bool:
            try:
                self._cluster.api().apply(f"{_POLICIES}/{policy['metadata']['name']}", policy)
                self._cluster.api().request("POST", refused[0], refused[1], query={"dryRun": "All"})
            except ApiError as error:
                said.append(str(error))
                return "denied the request" in said[-1] and policy["metadata"]["name"] in said[-1]
            return False

        if not wait_until(works, seconds=_ANSWERS_SECONDS, interval=0.5):
            raise ClusterError(f"kyverno does not enforce {policy['metadata']['name']}; last: {said[-1]}\n{self.tail()}")

    def remove(self, name: str) -> None:
        """Takes a policy out of force."""
        self._cluster.api().delete(f"{_POLICIES}/{name}")

    def tail(self) -> str:
        """The last lines of its log."""
        return self._process.tail(30) if self._process is not None else ""

    def _rendered(self, source: Path) -> str:
        with tempfile.TemporaryDirectory() as folder:
            chart = Path(folder) / "kyverno"
            unwanted = shutil.ignore_patterns("charts", "Chart.lock")
            shutil.copytree(source / "charts" / "kyverno", chart, ignore=unwanted, copy_function=_copy)
            chart.chmod(0o755)
            about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
            (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "dependencies": []}), encoding="utf-8")
            return self._cluster.helm("template", "kyverno", str(chart), "--namespace", _SPACE)

    def _start(self, program: Path, controller: dict[str, Any]) -> None:
        (container,) = controller["spec"]["template"]["spec"]["containers"]
        port = free_port()
        own = {
            "--kubeconfig": str(self._cluster.kubeconfig()),
            "--serverIP": f"127.0.0.1:{port}",
            "--webhookServerHost": "127.0.0.1",
            "--webhookServerPort": str(port),
            "--metricsHost": "127.0.0.1",
            "--metricsPort": str(free_port()),
            "--controllerRuntimeMetricsAddress": "0",
        }
        arguments = [each for each in container["args"] if each.partition("=")[0] not in own]
        environment = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        environment |= {"KYVERNO_NAMESPACE": _SPACE, "KYVERNO_POD_NAME": "kyverno-0", "HOME": str(self._cluster.directory)}
        environment["TUF_ROOT"] = str(self._cluster.directory / "kyverno-sigstore")
        self._process = Process(
            "kyverno",
            [program, *arguments, *(f"{name}={value}" for name, value in own.items())],
            log=self._cluster.directory / "logs" / "kyverno.log",
            keeper=self._cluster.keeper,
            environment={"PATH": os.defpath, **environment},
        )
        if not wait_until(self._answers, seconds=_ANSWERS_SECONDS, interval=0.3):
            raise ClusterError(f"kyverno does not answer:\n{self.tail()}")

    def _answers(self) -> bool:
        """Whether it has registered its webhooks."""
        if self._process is None or not self._process.alive:
            raise ClusterError(f"kyverno ended:\n{self.tail()}")
        with contextlib.suppress(ApiError):
            items = self._cluster.api().get(f"{_WEBHOOKS}/validatingwebhookconfigurations")["items"]
            return any(item["metadata"]["name"].startswith("kyverno-policy") for item in items)
        return False


def _copy(source: str, target: str) -> None:
    """A module's files are read-only; their copies are not."""
    Path(target).write_bytes(Path(source).read_bytes())


def policy(key: str, registry: str, *, every_list: bool = False) -> dict[str, Any]:
    """Returns its ImageValidatingPolicy with a cosign public key.

    Args:
        key: PEM.
        registry: whose images it is about.
        every_list: not as in its documentation, but also for `pods/ephemeralcontainers` and with every list of containers named.
    """
    lists = ("containers", "initContainers", "ephemeralContainers") if every_list else ("containers",)
    verified = "images.{}.map(image, verifyImageSignatures(image, [attestors.cosign])).all(e, e > 0)"
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["pods", "pods/ephemeralcontainers"] if every_list else ["pods"],
    }
    return {
        "apiVersion": "policies.kyverno.io/v1",
        "kind": "ImageValidatingPolicy",
        "metadata": {"name": "check-images-every-list" if every_list else "check-images"},
        "spec": {
            "validationActions": ["Deny"],
            "webhookConfiguration": {"timeoutSeconds": 15},
            "matchConstraints": {"resourceRules": [rule]},
            "matchImageReferences": [{"glob": f"{registry}/*"}],
            "credentials": {"allowInsecureRegistry": True},
            "attestors": [{"name": "cosign", "cosign": {"key": {"data": key}, "ctlog": {"insecureIgnoreTlog": True}}}],
            "validations": [
                {"expression": " && ".join(verified.format(each) for each in lists), "message": "failed to verify the image's signature"}
            ],
        },
    }


def shown(error: ApiError) -> str:
    """Returns the message of a refusal."""
    text = str(error)
    with contextlib.suppress(ValueError):
        text = str(json.loads(text)["message"])
    return text
