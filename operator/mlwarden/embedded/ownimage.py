"""mlwarden's own image, built from the `Dockerfile` on a machine without a container engine and without a registry to pull from.

Debian's packages are enough for a base (debootstrap), and buildah builds on it as root, each step in a chroot. The finished image is kept
as an OCI layout under a name that changes with anything that could change what is in it; it is pushed from there, by anybody. The
intermediate layers are kept too, so that a changed line of Python costs seconds.

Everything runs in mount and process namespaces of its own, below directories of a `Keeper`: nothing stays mounted and nothing keeps
running, however it ends. What of the machine is needed to reach packages (mirror, package index, module proxy, certificate authorities,
Go's caches) is mounted for as long as a step runs; none of it gets into a layer.

Rejected: a daemon (docker, podman's service), which has to be installed and trusted; and writing the layers with a program of our own,
because then the `Dockerfile` that everybody else uses would never have been built.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlwarden.embedded import build
from mlwarden.embedded.processes import Keeper, Process, wait_until
from mlwarden.embedded.signer import KeyPair, Signer

RELEASE = "bookworm"
TIMESTAMP = 1767225600
"""Every file of the image and the image itself were made at this time (2026-01-01), as in the `Dockerfile`."""

_INPUTS = (
    "Dockerfile",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "operator",
    "policies",
    "pyproject.toml",
    "requirements/build.txt",
    "requirements/go.txt",
    "requirements/runtime.txt",
    "tools/cosign",
    "tools/trivy",
)
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_PROGRAMS = {"debootstrap": "debootstrap", "buildah": "buildah", "unshare": "util-linux", "apt-get": "apt"}
_SUITES = (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security")
_PUBLIC_MIRROR = "http://deb.debian.org/debian"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_GO = {"GOENV": "/go/env", "GOCACHE": "/go/build", "GOMODCACHE": "/go/pkg/mod"}
"""Where the `Dockerfile` has Go's settings and caches."""
_FREE_BYTES = 8 << 30
_STORAGE_BYTES = 8 << 30
_KEPT = 4
_LONGEST_SECONDS = 3600.0
_NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Image:
    """A finished image.

    Attributes:
        layout: the OCI layout that it is in.
        digest: of its manifest, `sha256:…`.
        size: bytes that a node pulls: manifest, configuration and packed layers.
    """

    layout: Path
    digest: str
    size: int


def obstacle() -> str:
    """Returns why no image can be built on this machine, in a sentence; empty where it can."""
    if sys.platform != "linux":
        return f"an image is built on Linux only, and this is {sys.platform}"
    if os.environ.get("MLWARDEN_NODE") == "skip":
        return "no image is wanted here: MLWARDEN_NODE=skip"
    if os.geteuid() != 0:
        return "building an image needs root (debootstrap and buildah mount and chroot), and this process has none"
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        packages = " ".join(sorted({_PROGRAMS[program] for program in missing}))
        return f"building an image needs {', '.join(missing)}, not on PATH: apt-get install {packages}"
    if subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False).returncode != 0:
        return "building an image needs a mount namespace of its own, and the kernel gives this process none (without CAP_SYS_ADMIN?)"
    build.cache().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(build.cache()).free
    if free < _FREE_BYTES:
        return f"building an image needs {_FREE_BYTES >> 30} GiB free in {build.cache()}, and there are {free / (1 << 30):.1f}"
    return ""


def image(*, say: Say = lambda _line: None) -> Image:
    """Returns the image of this source tree, from the cache or built.

    Args:
        say: gets a line per step that takes long.

    Raises:
        BuildError: it is not in the cache and cannot be built here, or the build failed.
    """
    layout = _home() / f"image-{_key()}"
    if not layout.exists():
        with _lock():
            if not layout.exists():
                _build(layout, fresh=False, say=say)
                for old in sorted(_home().glob("image-*"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
                    shutil.rmtree(old)
    return _read(layout)


def build_image(layout: Path, *, fresh: bool = False, say: Say = lambda _line: None) -> Image:
    """Builds the image, whether it is in the cache or not.

    Args:
        layout: the folder that becomes its OCI layout; what was there before is replaced.
        fresh: use no layer of an earlier build, so that Debian's packages are the newest.
        say: gets a line per step that takes long.

    Raises:
        BuildError: it cannot be built here, or the build failed.
    """
    with _lock():
        _build(layout, fresh=fresh, say=say)
    return _read(layout)


def _build(layout: Path, *, fresh: bool, say: Say) -> None:
    if reason := obstacle():
        raise build.BuildError(reason, hint="everything but the image works without; on a machine with a container engine: docker build .")
    keeper = Keeper("mlwarden-image-")
    try:
        builder = _Builder(keeper, say, fresh=fresh)
        builder.image(builder.base(), keeper.directory / "layout")
        _place(keeper.directory / "layout", layout)
    finally:
        keeper.close()


def push(image: Image, registry: str, name: str = "mlwarden:latest") -> str:
    """Pushes the image, byte for byte as it is in its layout, and returns `registry/repository@sha256:…`.

    Args:
        image: what `image` or `build_image` returned.
        registry: `host:port`; on loopback plain HTTP is spoken.
        name: `repository:tag`.

    Raises:
        BuildError: the registry refused it.
    """
    command = [str(build.binary("crane")), "push", "--insecure", str(image.layout), f"{registry}/{name}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise build.BuildError(f"the image could not be pushed to {registry}: {answer.stderr.strip()[-600:]}")
    return f"{registry}/{name.partition(':')[0]}@{image.digest}"


def publish(image: Image, registry: str, signer: Signer, key: KeyPair, *, name: str = "mlwarden:latest") -> str:
    """Pushes the image, signs it and attests its bill of materials (CycloneDX); returns `registry/repository@sha256:…`.

    Raises:
        BuildError: the registry refused it, or it could not be read.
        ClusterError: it could not be signed.
    """
    reference = push(image, registry, name)
    signer.sign(reference, key)
    signer.attest(reference, key, type="cyclonedx", predicate=bill_of_materials(image))
    return reference


def bill_of_materials(image: Image) -> dict[str, Any]:
    """Returns what is in the image, as CycloneDX: Debian's packages, Python's, and the modules that trivy and cosign were built from.

    Raises:
        BuildError: trivy could not read it.
    """
    command = [str(build.binary("trivy")), "image", "--input", str(image.layout), "--format", "cyclonedx", "--quiet", "--offline-scan"]
    with tempfile.TemporaryDirectory(prefix="mlwarden-trivy-") as home:
        alone = ["--skip-version-check", "--disable-telemetry", "--cache-backend", "memory", "--cache-dir", home]
        environment = {"HOME": home, "TMPDIR": home, "PATH": os.defpath}
        answer = subprocess.run([*command, *alone], env=environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise build.BuildError(f"trivy could not read the image in {image.layout}: {answer.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


class _Builder:
    """Runs debootstrap and buildah, on a storage that is kept for its layers."""

    def __init__(self, keeper: Keeper, say: Say, *, fresh: bool) -> None:
        self._keeper = keeper
        self._say = say
        self._log = keeper.directory / "log"
        for half in _home().glob(".*"):  # of a build that was killed while it moved what it had made
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        self._driver = _driver()
        storage = _home() / f"storage-{self._driver}"
        if storage.exists() and (fresh or _disk(storage) > _STORAGE_BYTES):
            shutil.rmtree(storage)
        self._buildah = ("buildah", "--root", str(storage), "--runroot", str(keeper.directory / "run"), "--storage-driver", self._driver)
        self._run("buildah rm", *self._buildah, "rm", "--all")

    def base(self) -> str:
        """Returns the name of the base in the storage. It comes from the cache, or is made with debootstrap."""
        sources = _sources()
        key = hashlib.sha256(repr((RELEASE, _BASE_PACKAGES, sources, platform.machine())).encode()).hexdigest()[:16]
        name = f"localhost/mlwarden-base:{key}"
        archive = _home() / f"base-{key}.tar"
        if not archive.exists():
            self._bootstrap(sources, name, archive)
        if self._run("buildah inspect", *self._buildah, "inspect", "--type", "image", name, check=False) != 0:
            self._run("buildah pull", *self._buildah, "pull", f"docker-archive:{archive}")
        return name

    def _bootstrap(self, sources: Sequence[str], name: str, archive: Path) -> None:
        self._say(f"base: Debian {RELEASE} with {', '.join(_BASE_PACKAGES)}, usually about a minute the first time")
        tree, packed, image = (self._keeper.directory / part for part in ("base", "base.tar", "base-image.tar"))
        include = f"--include={','.join(_BASE_PACKAGES)}"
        self._run("debootstrap", "debootstrap", "--variant=minbase", include, RELEASE, str(tree), sources[0].split()[1])
        (tree / "etc" / "apt" / "sources.list").write_text("\n".join(sources) + "\n", encoding="utf-8")
        for leftover in (*(tree / "var/cache/apt/archives").glob("*.deb"), *(tree / "var/lib/apt/lists").glob("*_*")):
            leftover.unlink()
        with tarfile.open(packed, "w") as tar:
            tar.add(tree, arcname=".")
        append = (str(build.binary("crane")), "append", "--oci-empty-base", "--new_layer", str(packed), "--new_tag", name)
        self._run("crane append", *append, "--output", str(image))
        _place(image, archive)

    def image(self, base: str, layout: Path) -> None:
        """Builds the `Dockerfile` and writes the image to an OCI layout."""
        self._say("image: usually less than a minute, about 10 the first time on two cores, in which trivy and cosign are compiled")
        options = ["--isolation", "chroot", "--format", "oci", "--jobs", "3", "--pull=false", "--identity-label=false"]
        options += ["--skip-unused-stages", "--timestamp", str(TIMESTAMP), "--build-arg", f"BASE={base}"]
        options.append(f"--layers={str(self._driver != 'vfs').lower()}")  # by copies, thirty layers would take 15 GB
        for mount in self._mounts():
            options += ["--volume", mount]
        tree = build.source_tree()
        self._run(
            "buildah build", *self._buildah, "build", *options, "--tag", "localhost/mlwarden", "--file", str(tree / "Dockerfile"), str(tree)
        )
        self._run("buildah push", *self._buildah, "push", "localhost/mlwarden", f"oci:{layout}:mlwarden")

    def _mounts(self) -> list[str]:
        """What of the machine a step sees: how packages are reached, read-only, and Go's caches."""
        told = json.loads(_told(str(build.compiler(build.source_tree() / "tools" / "trivy" / "go.mod")), "env", "-json"))
        settings = self._keeper.directory / "go.env"
        names = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE")
        settings.write_text("".join(f"{name}={told[name]}\n" for name in names if told.get(name)), encoding="utf-8")
        mounts = [f"{settings}:{_GO['GOENV']}:ro", f"{self._pip()}:/etc/pip.conf:ro"]
        for name in ("GOCACHE", "GOMODCACHE"):
            Path(told[name]).mkdir(parents=True, exist_ok=True)
            mounts.append(f"{told[name]}:{_GO[name]}")
        if _AUTHORITIES.exists():
            mounts.append(f"{_AUTHORITIES}:{_AUTHORITIES}:ro")
        return mounts

    def _pip(self) -> Path:
        """A pip.conf that says where this machine gets Python packages, from its own files and environment."""
        answer = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
        found = re.findall(
            r"^(?:global|install|:env:)\.(index-url|extra-index-url|trusted-host|timeout)='(.*)'$", answer.stdout, re.MULTILINE
        )
        lines = [f"{name} = {value}" for name, value in dict(found).items()]
        if _AUTHORITIES.exists():
            lines.append(f"cert = {_AUTHORITIES}")
        path = self._keeper.directory / "pip.conf"
        path.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
        path.chmod(0o600)
        return path

    def _run(self, name: str, *command: str, check: bool = True) -> int:
        directory = self._keeper.directory
        environment = {**os.environ, "TMPDIR": str(directory)}
        process = Process(name, [*_NAMESPACES, *command], log=self._log, keeper=self._keeper, environment=environment, cwd=directory)
        try:
            wait_until(lambda: not process.alive, seconds=_LONGEST_SECONDS)
            code = process.returncode
        finally:
            process.kill()
        if check and code != 0:
            outcome = f"did not end within {_LONGEST_SECONDS:.0f} s" if code is None else f"exited with {code}"
            hint = f"the last lines of its output say why; if the storage is what is broken, remove {_home()}"
            raise build.BuildError(f"{name} {outcome}:\n{process.tail(15)}", hint=hint)
        return -1 if code is None else code


def _place(made: Path, path: Path) -> None:
    """Moves a file or folder to its name, beside which it first arrives whole: a half-copied one is never found there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.move(made, temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def _read(layout: Path) -> Image:
    manifest = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    algorithm, _, encoded = manifest["digest"].partition(":")
    content = json.loads((layout / "blobs" / algorithm / encoded).read_bytes())
    size = manifest["size"] + content["config"]["size"] + sum(layer["size"] for layer in content["layers"])
    return Image(layout=layout, digest=manifest["digest"], size=size)


def _key() -> str:
    """Changes with anything that could change what is in the image, except what Debian's packages are today."""
    tree = build.source_tree()
    digest = hashlib.sha256(repr((platform.machine(), TIMESTAMP)).encode())
    for path in _files(tree):
        digest.update(f"{path.relative_to(tree)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(tree: Path) -> Iterator[Path]:
    for name in _INPUTS:
        found = sorted((tree / name).rglob("*")) if (tree / name).is_dir() else [tree / name]
        yield from (path for path in found if (path.is_file() or path.is_symlink()) and "__pycache__" not in path.parts)


@functools.cache
def _sources() -> tuple[str, ...]:
    """Lines of a sources.list: where this machine's apt gets Debian from, else Debian's public mirror. The first is the release itself."""
    found = dict.fromkeys(_SUITES, "")
    if apt := shutil.which("apt-get"):
        form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
        answer = subprocess.run(
            [apt, "indextargets", "--format", form, "Created-By: Packages"], capture_output=True, text=True, check=False
        )
        for line in answer.stdout.splitlines():
            uri, suite, component, origin = [*line.split(" ", 3), "", "", ""][:4]
            if suite in found and component == "main" and origin in {"Debian", "$(ORIGIN)"} and uri.startswith(("http://", "https://")):
                found[suite] = found[suite] or uri.rstrip("/")
    if not found[RELEASE]:
        found = {suite: f"{_PUBLIC_MIRROR}-security" if suite.endswith("-security") else _PUBLIC_MIRROR for suite in _SUITES}
    return tuple(f"deb {uri} {suite} main" for suite, uri in found.items() if uri)


def _driver() -> str:
    """`overlay` where the kernel can stack it on the cache's file system; else `vfs`, which copies every layer whole."""
    return "vfs" if "overlay" in _told("stat", "--file-system", "--format=%T", str(build.cache())) else "overlay"


def _disk(directory: Path) -> int:
    """Bytes on disk, of what is below it on the same file system."""
    return int(_told("du", "--summarize", "--one-file-system", "--block-size=1", str(directory)).split()[0])


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _home() -> Path:
    home = build.cache() / "image"
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One build at a time: buildah counts mounts per storage, and ours are in namespaces that another one does not see."""
    with (_home() / "lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Builds the image, or finds it, and says what it is; with an argument `host:port`, pushes it there. Returns the exit code."""
    try:
        say: Say = functools.partial(print, file=sys.stderr, flush=True)
        fresh = "--fresh" in sys.argv[1:]
        made = build_image(_home() / f"image-{_key()}", fresh=True, say=say) if fresh else image(say=say)
        registries = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
        for registry in registries:
            print(push(made, registry))
        print(f"{made.layout}\nmlwarden@{made.digest}, {made.size / 1e6:.0f} MB to pull")
    except build.BuildError as error:
        print(error.diagnostics(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
