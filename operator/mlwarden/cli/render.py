"""kustomize and Helm, by their own binaries, offline.

Remote bases are refused by reading the kustomization before kustomize does: every file or folder it names must exist here and must not look
like something that kustomize would fetch (it tries git first, then HTTP, then the disk). As a second lock the child finds no git on its
PATH and a proxy that is not there.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlwarden.errors import Error, InputError
from mlwarden.policy import yaml_loads

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
TIMEOUT = 60
"""Seconds either tool may take."""

# Fields of a kustomization that name files or folders: of resources first, then of everything else that is loaded (kustomize/api/types).
_FOLDERS = ("resources", "bases", "components")
_FILES = ("crds", "configurations", "generators", "transformers", "validators", "patchesStrategicMerge")
_WITH_PATH = ("patches", "patchesJson6902", "replacements")
_GENERATORS = ("configMapGenerator", "secretGenerator")
# What kustomize/api/internal/git/repospec.go takes for a repository, and more: better refuse a local folder with an odd name.
_REMOTE = re.compile(r"://|::|@|^gh:|(^|/)(github|gitlab|bitbucket)\.[a-z]+[:/]|\.git(/|$|\?)|_git/|[?&](ref|version|timeout|submodules)=")


def kustomization(folder: Path) -> Path | None:
    """Returns the folder's kustomization file, None where it has none."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def kustomize(folder: Path) -> str:
    """Returns what kustomize makes of a folder.

    Raises:
        InputError: a remote base, something that does not exist, no binary, or what kustomize complained about.
    """
    for where, entry in _remote(folder.resolve(), frozenset()):
        raise InputError(
            f"{where} refers to {entry!r}, which is not a file or folder here: remote bases are not fetched",
            hint="vendor it into the repository, or check what kustomize renders: kubectl kustomize FOLDER | mlwarden check -",
        )
    if binary := shutil.which("kubectl"):
        return _run([binary, "kustomize", str(folder)], offline=True)
    if binary := shutil.which("kustomize"):
        return _run([binary, "build", str(folder)], offline=True)
    raise InputError("a kustomize folder needs kubectl or kustomize on PATH", hint="or render it elsewhere: … | mlwarden check -")


def helm(chart: Path, values: Sequence[str]) -> str:
    """Returns what Helm renders from a chart, as `helm install` into a fresh namespace would.

    Raises:
        InputError: no binary, or what Helm complained about.
    """
    binary = shutil.which("helm")
    if binary is None:
        raise InputError("a Helm chart needs helm on PATH", hint="or render it elsewhere: helm template CHART | mlwarden check -")
    arguments = [argument for file in values for argument in ("--values", file)]
    return _run([binary, "template", "release-name", str(chart), *arguments], offline=False)


def _run(command: list[str], *, offline: bool) -> str:
    with TemporaryDirectory() as home:
        nowhere = "http://127.0.0.1:9"  # the discard port
        environment = {"HOME": home, "PATH": home, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "TMPDIR": home}
        if not offline:
            environment |= {"HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{Path(command[0]).name} took more than {TIMEOUT} s") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{Path(command[0]).name} cannot be run: {error}") from error
    if done.returncode:
        raise InputError(f"{Path(command[0]).name} refuses it: {done.stderr.strip()[-2000:] or f'exit code {done.returncode}'}")
    return done.stdout


def _remote(folder: Path, seen: frozenset[Path]) -> Iterator[tuple[str, str]]:
    """Yields what a kustomization, or one below it, would fetch or does not find: the file and the entry."""
    file = kustomization(folder)
    if file is None or folder in seen:
        return
    try:
        parsed = yaml_loads(file.read_text(encoding="utf-8"))
    except (Error, OSError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, Error) else str(error)
        raise InputError(f"{file} cannot be read: {reason}") from error
    for document in parsed:
        if not isinstance(document, Mapping):
            continue
        for entry in _entries(document):
            place = folder / entry
            if _REMOTE.search(entry) or Path(entry).is_absolute() or not place.exists():
                yield str(file), entry
            elif place.is_dir():
                yield from _remote(place.resolve(), seen | {folder})


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
