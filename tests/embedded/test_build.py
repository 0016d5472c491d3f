"""Tools are built once, whole or not at all, and what is missing is said in a sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlwarden.embedded import build

COMPILER = """#!/bin/sh
if [ "$1" = env ]; then echo {version}; exit 0; fi
if [ "$1" = list ]; then echo {module}; exit 0; fi
echo "$@" >> {log}
while [ "$1" != -o ]; do shift; done
printf partial > "$2"
[ {code} = 0 ] || {{ echo "no such module" >&2; exit {code}; }}
printf '#!/bin/sh\\necho built\\n' > "$2"; chmod +x "$2"
"""


class Place:
    """An empty cache, and a `go` on PATH that only pretends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.environment = {**os.environ, "MLWARDEN_CACHE": str(directory / "cache"), "PATH": f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def install(self, *, version: str = "go1.26.99", code: int = 0, module: Path | str = "") -> None:
        go = self.directory / "go"
        go.write_text(COMPILER.format(version=version, log=self.log, code=code, module=module), encoding="utf-8")
        go.chmod(0o755)

    def start(self, *names: str) -> "subprocess.Popen[str]":
        code = f"from mlwarden.embedded import build\nfor name in {names}: print(build.binary(name))"
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def calls(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_two_builds_at_once_build_once(place: Place) -> None:
    place.install()
    processes = [place.start("crane", "helm") for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert outputs[0] == outputs[1]
    assert len(place.calls()) == 2
    assert subprocess.run([outputs[0].splitlines()[0]], capture_output=True, text=True, check=True).stdout == "built\n"


def test_the_version_is_stamped_from_go_mod(place: Place) -> None:
    place.install()
    place.start("kubectl", "trivy").communicate()
    assert f"-X k8s.io/component-base/version.gitVersion={build.version('kubectl')}" in place.calls()[0]
    assert f"app.ver={build.version('trivy').removeprefix('v')} " in place.calls()[1]


def test_a_failed_build_says_why_and_leaves_nothing(place: Place) -> None:
    place.install(code=1)
    with place.start("crane") as process:
        _, errors = process.communicate()
    assert process.returncode != 0
    assert "crane could not be built" in errors
    assert "no such module" in errors
    assert [path.name for path in (place.directory / "cache" / "tools").rglob("*") if path.is_file()] == [
        path.name for path in (place.directory / "cache" / "tools").glob("*.lock")
    ]


def test_everything_built_is_one_line(place: Place) -> None:
    place.install()
    command = [sys.executable, "-m", "mlwarden.embedded.build"]
    first = subprocess.run(command, env=place.environment, capture_output=True, text=True, check=True)
    again = subprocess.run(command, env=place.environment, capture_output=True, text=True, check=True)
    told = re.match(r"building (\d+) of \1 tools, usually about", first.stderr)
    assert told, first.stderr
    wanted = int(told[1])
    assert wanted in {len(build.TOOLS), sum(not tool.node for tool in build.TOOLS.values())}  # what a node needs, where one can run
    assert len(again.stderr.splitlines()) == 1
    assert again.stdout == ""
    assert len(place.calls()) == wanted


def test_operators_are_built_where_they_are_asked_for_alone_with_what_their_modules_carry(place: Place) -> None:
    module = place.directory / "module"
    (module / "config/components/crd/bases").mkdir(parents=True)
    (module / "config/components/crd/bases/jobsets.yaml").write_text("kind: CustomResourceDefinition\n", encoding="utf-8")
    for file in ("rbac/role.yaml", "webhook/manifests.yaml"):
        (module / "config/components" / file).parent.mkdir()
        (module / "config/components" / file).write_text("kind: Any\n", encoding="utf-8")
    place.install(module=module)
    command = [sys.executable, "-m", "mlwarden.embedded.build"]
    subprocess.run(command, env=place.environment, capture_output=True, text=True, check=True)
    assert not any("jobset" in call for call in place.calls())
    said = subprocess.run([*command, "jobset"], env=place.environment, capture_output=True, text=True, check=True)
    assert "building 1 of 1 tools" in said.stderr
    (beside,) = (place.directory / "cache" / "tools").glob("jobset-*/jobset.module")
    assert (beside / "config/components/crd/bases/jobsets.yaml").read_text(encoding="utf-8") == "kind: CustomResourceDefinition\n"
    assert (beside / "config/components/rbac/role.yaml").exists()


def test_an_unknown_tool_is_named() -> None:
    with pytest.raises(build.BuildError, match="no tool 'docker'"):
        build.binary("docker")


def test_without_a_source_tree_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "__file__", str(tmp_path / "lib/python/site-packages/mlwarden/embedded/build.py"))
    build.source_tree.cache_clear()
    try:
        with pytest.raises(build.BuildError) as caught:
            build.source_tree()
    finally:
        build.source_tree.cache_clear()
    assert "--context" in caught.value.diagnostics()


def test_every_tool_has_a_version_and_one_kubernetes_serves_all_its_parts() -> None:
    assert all(
        re.fullmatch(r"v\d+\.\d+\.\d+", build.version(name)) for name, tool in {**build.TOOLS, **build.OPERATORS}.items() if tool.source
    )
    parts = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy")
    assert len({build.version(name) for name in parts}) == 1


@pytest.mark.parametrize(
    ("found", "taken"),
    [("go1.26.8", True), ("go1.26.3", True), ("go1.26", False), ("go1.9.9", False), ("devel", False), ("go1.27.1", False)],
)
def test_a_go_on_path_is_taken_where_the_module_compiles_with_it(
    found: str,
    taken: bool,  # noqa: FBT001 -- a parameter of a table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(build, "_fetched_compiler", lambda: Path("fetched"))
    (tmp_path / "go").write_text(COMPILER.format(version=found, log=tmp_path / "log", code=0, module=""), encoding="utf-8")
    (tmp_path / "go").chmod(0o755)
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.26.3\n", encoding="utf-8")
    assert build.compiler(tmp_path / "go.mod") == (tmp_path / "go" if taken else Path("fetched"))
