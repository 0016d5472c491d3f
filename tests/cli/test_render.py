"""kustomize and Helm by their own binaries, never over the network."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlwarden.cli import render
from mlwarden.embedded.build import binary
from mlwarden.errors import InputError

Run = Callable[..., Any]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: trainer}
spec: {containers: [{name: main, image: a, securityContext: {privileged: true}}]}
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned kubectl and helm, and nothing else, on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("kubectl", "helm"):
        (folder / name).symlink_to(binary(name))
    monkeypatch.setenv("PATH", str(folder))


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/").replace("_y", ".yaml"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.usefixtures("tools")
def test_a_kustomize_folder_is_what_kustomize_makes_of_it(run: Run) -> None:
    write(base__kustomization_y="resources: [pod.yaml]\nnamePrefix: ml-\n", base__pod_y=POD)
    write(prod__kustomization_y="resources: [../base]\nnamespace: prod\n")
    done = run("prod")
    assert done.code == 1
    assert "Pod prod/ml-trainer is refused" in done.out


@pytest.mark.usefixtures("tools")
def test_a_base_is_judged_through_the_overlays_that_use_it(run: Run) -> None:
    write(all__base__kustomization_y="resources: [pod.yaml]\n", all__base__pod_y=POD)
    write(all__prod__kustomization_y="resources: [../base]\nnamespace: prod\n")
    write(all__test__kustomization_y="resources: [../base]\nnamespace: test\n")
    done = run("all")
    assert "2 objects: 2 denied" in done.out
    assert "Pod prod/trainer is refused" in done.out
    assert "Pod test/trainer is refused" in done.out
    assert "1 object: 1 denied" in run("all/base").out


REMOTE = [
    "https://github.com/example/repo//deploy?ref=main",
    "github.com/example/repo",
    "git@github.com:example/repo.git",
    "git::https://example.org/repo",
    "ssh://example.org/repo",
    "https://example.org/pod.yaml",
    "http://127.0.0.1:1/pod.yaml",
    "gh:example/repo",
    "example.org/repo.git",
    "/etc/passwd",
    "not-here.yaml",
]


@pytest.mark.parametrize("entry", REMOTE)
@pytest.mark.parametrize("field", ["resources", "bases", "components", "crds", "transformers", "generators", "patchesStrategicMerge"])
def test_a_remote_base_is_refused_before_kustomize_is_called(
    entry: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "_run", lambda *_, **__: pytest.fail("kustomize was called"))
    (tmp_path / "kustomization.yaml").write_text(f"{field}: ['{entry}']\n")
    with pytest.raises(InputError, match="remote bases are not fetched"):
        render.kustomize(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "patches: [{path: 'https://example.org/x.yaml'}]",
        "replacements: [{path: 'https://example.org/x.yaml'}]",
        "configMapGenerator: [{name: a, files: ['key=https://example.org/x']}]",
        "secretGenerator: [{name: a, envs: ['https://example.org/x']}]",
        "openapi: {path: 'https://example.org/x'}",
        "resources: [base]",
    ],
)
def test_nothing_else_is_fetched_either(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_run", lambda *_, **__: pytest.fail("kustomize was called"))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "Kustomization").write_text("resources: ['github.com/example/repo']")
    (tmp_path / "kustomization.yml").write_text(text)
    with pytest.raises(InputError, match="remote bases are not fetched"):
        render.kustomize(tmp_path)


def test_a_local_folder_that_git_would_be_asked_for_first_is_refused(tmp_path: Path) -> None:
    (tmp_path / "github.com" / "example" / "repo").mkdir(parents=True)
    (tmp_path / "kustomization.yaml").write_text("resources: [github.com/example/repo]")
    with pytest.raises(InputError, match="remote bases are not fetched"):
        render.kustomize(tmp_path)


@pytest.mark.usefixtures("tools")
def test_a_helm_chart_is_what_helm_renders(run: Run) -> None:
    write(chart__Chart_y="apiVersion: v2\nname: chart\nversion: 0.1.0\n", chart__values_y="privileged: false\n")
    write(chart__templates__pod_y=POD.replace("privileged: true", "privileged: {{ .Values.privileged }}"))
    write(bad_y="privileged: true\n")
    assert run("chart").code == 0
    assert run("chart", "--values", "bad.yaml").code == 1


@pytest.mark.usefixtures("tools")
def test_what_a_tool_complains_about_exits_2(run: Run) -> None:
    write(chart__Chart_y="apiVersion: v2\nname: chart\nversion: 0.1.0\n", chart__templates__pod_y="{{ fail `no way` }}")
    done = run("chart")
    assert done.code == 2
    assert "no way" in done.err


def test_without_the_binaries_it_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("kubectl") is None
    write(k__kustomization_y="resources: [pod.yaml]\n", k__pod_y=POD, c__Chart_y="name: c\n")
    done = run("k", "c")
    assert done.code == 2
    assert "needs kubectl or kustomize on PATH" in done.err
    assert "needs helm on PATH" in done.err
