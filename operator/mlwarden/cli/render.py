"""kustomize and Helm, by their own binaries, offline.

Remote bases are refused by reading the kustomization before kustomize does: every file or folder it names must exist here and must not look
like something that kustomize would fetch (it tries git first, then HTTP, then the disk). As a second lock the child finds no git on its
PATH and a proxy that is not there.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from mlwarden.cli.texts import LARGEST, reason
from mlwarden.errors import Error, InputError
from mlwarden.policy import yaml_loads

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
TIMEOUT = 60
"""Seconds either tool may take."""
KUBE_VERSION = re.compile(r"v?[0-9]+\.[0-9]+(\.[0-9]+)?([-+][0-9A-Za-z.+-]+)?")
_LOOKS = 0.05
_LARGEST_FILE = 16 * 1024 * 1024

# Fields of a kustomization that name files or folders: of resources first, then of everything else that is loaded (kustomize/api/types).
_RESOURCES = ("resources", "bases")
_FOLDERS = (*_RESOURCES, "components")
_FILES = ("crds", "configurations", "generators", "transformers", "validators", "patchesStrategicMerge")
_WITH_PATH = ("patches", "patchesJson6902", "replacements")
_CHARTS = ("helmCharts", "helmChartInflationGenerator")
_GENERATORS = ("configMapGenerator", "secretGenerator")
# What kustomize/api/internal/git/repospec.go takes for a repository, and more: better refuse a local folder with an odd name.
_REMOTE = re.compile(r"://|::|@|^gh:|(^|/)(github|gitlab|bitbucket)\.[a-z]+[:/]|\.git(/|$|\?)|_git/|[?&](ref|version|timeout|submodules)=")


def kustomization(folder: Path) -> Path | None:
    """Returns the folder's kustomization file, None where it has none."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def is_component(folder: Path) -> bool:
    """Whether a kustomization is a Component, which is no deployment by itself but a part of those that use it."""
    return any(document.get("kind") == "Component" for document in _documents(folder))


def uses(folder: Path) -> Iterator[Path]:
    """Yields the files and folders that a kustomization uses, as absolute paths without links; nothing where it cannot be read."""
    yield from _places(folder, (entry for document in _documents(folder) for entry in _entries(document)))


def resources(folder: Path) -> Iterator[Path]:
    """Yields those of them that hold manifests: its resources."""
    named = (entry for document in _documents(folder) for field in _RESOURCES for entry in _list(document.get(field)))
    yield from _places(folder, (entry for entry in named if isinstance(entry, str)))


def _places(folder: Path, entries: Iterator[str]) -> Iterator[Path]:
    for entry in entries:
        try:
            yield (folder / entry).resolve()
        except (OSError, ValueError, RuntimeError):
            continue  # told when it is built


def is_library(chart: Path) -> bool:
    """Whether a Helm chart is a library, which renders nothing by itself but helps those that use it."""
    try:
        found = yaml_loads(_read(chart / "Chart.yaml"))
    except (Error, OSError, ValueError):
        return False
    return any(isinstance(each, Mapping) and each.get("type") == "library" for each in found)


def kustomize(folder: Path) -> IO[bytes]:
    """Returns what kustomize makes of a folder.

    Raises:
        InputError: a remote base, a chart, something that does not exist, no binary, or what kustomize complained about.
    """
    if is_component(folder):
        raise InputError("a Component, which is no deployment by itself", hint="name an overlay that uses it")
    for where, entry in _remote(folder.resolve(), frozenset()):
        named = f"{_as_called(where)} refers to {entry!r}"
        if not _is_remote(entry):
            raise InputError(f"{named}, which is not here")
        raise InputError(
            f"{named}, which is not a file or folder here: remote bases are not fetched",
            hint="vendor it into the repository, or check what kustomize renders: kubectl kustomize FOLDER | mlwarden check -",
        )
    if binary := shutil.which("kubectl"):
        return _run([binary, "kustomize", str(folder.absolute())], offline=True)
    if binary := shutil.which("kustomize"):
        return _run([binary, "build", str(folder.absolute())], offline=True)
    raise InputError("a kustomize folder needs kubectl or kustomize on PATH", hint="or render it elsewhere: … | mlwarden check -")


def helm(chart: Path, values: Sequence[str], kube_version: str = "") -> IO[bytes]:
    """Returns what Helm renders from a chart, as `helm install` into a fresh namespace would.

    Raises:
        InputError: a library, no binary, or what Helm complained about.
    """
    if is_library(chart):
        raise InputError("a library chart, which renders nothing by itself", hint="name a chart that uses it")
    binary = shutil.which("helm")
    if binary is None:
        raise InputError("a Helm chart needs helm on PATH", hint="or render it elsewhere: helm template CHART | mlwarden check -")
    arguments = [argument for file in values for argument in ("--values", file)]
    if kube_version:
        arguments += ["--kube-version", kube_version]
    # What lies in crds/ is installed, whatever it is.
    return _run([binary, "template", "release-name", str(chart.absolute()), "--include-crds", *arguments], offline=False)


def _run(command: list[str], *, offline: bool) -> IO[bytes]:
    """Returns the output as a file that goes when it is closed: memory need not hold it."""
    out = TemporaryFile(prefix="mlwarden-")  # noqa: SIM115 -- the caller's, unless this fails
    try:
        _run_into(out, command, offline=offline)
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def _run_into(out: IO[bytes], command: list[str], *, offline: bool) -> None:
    name = Path(command[0]).name
    with TemporaryDirectory() as home, TemporaryFile() as err:
        nowhere = "http://127.0.0.1:9"  # the discard port
        environment = {"HOME": home, "PATH": home, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "TMPDIR": home}
        if not offline:
            environment |= {"HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except (OSError, ValueError) as error:
            raise InputError(f"{name} cannot be run: {error}") from error
        try:
            _wait(process, name, (out, err))
        finally:
            process.kill()
            code = process.wait()
        if code:
            err.seek(max(err.seek(0, 2) - 2000, 0))
            said = err.read().decode(errors="replace").strip()
            raise InputError(f"{name} refuses it: {said or f'exit code {code}'}")


def _wait(process: "subprocess.Popen[bytes]", name: str, files: Sequence[IO[bytes]]) -> None:
    """Waits for a tool that has little time and little room."""
    ends = time.monotonic() + TIMEOUT
    while True:
        try:
            process.wait(_LOOKS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > ends:
                raise InputError(f"{name} took more than {TIMEOUT} s") from None
            if any(os.fstat(file.fileno()).st_size > LARGEST for file in files):
                raise InputError(f"{name} wrote more than {LARGEST // 1024 // 1024} MiB") from None
        else:
            return


def _is_remote(entry: str) -> bool:
    return bool(_REMOTE.search(entry)) or Path(entry).is_absolute()


def _as_called(file: Path) -> str:
    """A path from the current folder, where it is below it."""
    here = Path.cwd().resolve()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _remote(folder: Path, seen: frozenset[Path]) -> Iterator[tuple[Path, str]]:
    """Yields what a kustomization, or one below it, would fetch or does not find: the file and the entry."""
    file = kustomization(folder)
    if file is None or folder in seen:
        return
    try:
        parsed = yaml_loads(_read(file))
    except (Error, OSError, ValueError) as error:
        why = error.message if isinstance(error, Error) else reason(error)
        raise InputError(f"{_as_called(file)} cannot be read: {why}") from error
    for document in parsed:
        if not isinstance(document, Mapping):
            continue
        for field in _CHARTS:
            if document.get(field):
                raise InputError(
                    f"{_as_called(file)} has {field}, for which kustomize fetches Helm charts: that is not done here",
                    hint="render it with helm (kustomize build --enable-helm FOLDER | mlwarden check -), or name the rendered file",
                )
        for entry in _entries(document):
            place = folder / entry
            if _is_remote(entry) or not place.exists():
                yield file, entry
            elif place.is_dir():
                yield from _remote(place.resolve(), seen | {folder})


def _documents(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The mappings of a folder's kustomization, nothing where it has none that can be read."""
    file = kustomization(folder)
    if file is None:
        return
    try:
        parsed = yaml_loads(_read(file))
    except (Error, OSError, ValueError):
        return  # told when it is built
    yield from (document for document in parsed if isinstance(document, Mapping))


def _read(path: Path) -> str:
    """The text of a file that describes a folder. A pipe, a device and a file without end are none."""
    if not path.is_file():
        raise InputError("not a file")
    with path.open("rb") as file:
        raw = file.read(_LARGEST_FILE + 1)
    if len(raw) > _LARGEST_FILE:
        raise InputError(f"larger than {_LARGEST_FILE // 1024 // 1024} MiB")
    return raw.decode("utf-8")


def _entries(document: Mapping[str, Any]) -> Iterator[str]:
    """Every file or folder that a kustomization names; inline patches are not files."""
    for field in (*_FOLDERS, *_FILES):
        yield from (entry for entry in _list(document.get(field)) if isinstance(entry, str) and "\n" not in entry)
    for field in _WITH_PATH:
        for entry in _list(document.get(field)):
            if isinstance(entry, Mapping) and isinstance(entry.get("path"), str):
                yield entry["path"]
    for field in _GENERATORS:
        for entry in _list(document.get(field)):
            if isinstance(entry, Mapping):
                yield from _generated(entry)
    openapi = document.get("openapi")
    if isinstance(openapi, Mapping) and isinstance(openapi.get("path"), str):
        yield openapi["path"]


def _generated(generator: Mapping[str, Any]) -> Iterator[str]:
    for name in ("files", "envs", "env"):
        named = generator.get(name)
        for value in [named] if isinstance(named, str) else _list(named):
            if isinstance(value, str):
                yield value.rpartition("=")[2] if name == "files" else value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
