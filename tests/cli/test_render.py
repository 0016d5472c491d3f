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
    done = run("all", "--verbose")
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


def test_what_is_not_there_is_said_to_be_missing(run: Run) -> None:
    write(all__base__kustomization_y="resources: [gone.yaml]\n", all__prod__kustomization_y="resources: [../base]\n")
    done = run("all/prod")
    assert done.code == 2
    assert "all/prod: all/base/kustomization.yaml refers to 'gone.yaml', which is not here" in done.err


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


class TestWhoUsesWhat:
    """By kubectl itself: what is judged through others, and what that does not hide."""

    pytestmark = pytest.mark.usefixtures("tools")

    def test_a_component_is_judged_through_its_overlay(self, run: Run) -> None:
        write(all__base__kustomization_y="resources: [pod.yaml]\n", all__base__pod_y=POD.replace("true", "false"))
        patch = "{op: replace, path: /spec/containers/0/securityContext/privileged, value: true}"
        head = "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\n"
        write(all__part__kustomization_y=f"{head}patches:\n- target: {{kind: Pod}}\n  patch: |-\n    - {patch}\n")
        write(all__prod__kustomization_y="resources: [../base]\ncomponents: [../part]\n")
        done = run("all")
        assert (done.code, done.err) == (1, "")
        assert "1 object: 1 denied" in done.out

    def test_a_component_that_nothing_uses_is_said_and_named_it_is_an_error(self, run: Run) -> None:
        write(all__pod_y=POD, all__part__kustomization_y="kind: Component\n")
        done = run("all")
        assert done.code == 1
        assert "not read, a Component that nothing here uses: all/part" in done.err
        named = run("all/part")
        assert named.code == 2
        assert "all/part: a Component, which is no deployment by itself" in named.err

    def test_a_folder_below_a_kustomization_is_looked_through_too(self, run: Run) -> None:
        write(
            all__kustomization_y="resources: [used.yaml, more/used.yaml]\n",
            all__used_y=POD,
            all__more__used_y=POD.replace("trainer", "two"),
        )
        write(all__unused_y=POD.replace("trainer", "unused"), all__more__other_y=POD.replace("trainer", "other"))
        write(all__sub__kustomization_y="resources: [pod.yaml]\nnamePrefix: sub-\n", all__sub__pod_y=POD)
        done = run("all", "--verbose")
        assert "not read, beside a kustomization that does not use it: all/unused.yaml" in done.err
        for name in ("trainer", "two", "other", "sub-trainer"):
            assert f"Pod {name} is refused" in done.out
        assert "4 objects: 4 denied" in done.out

    def test_what_uses_each_other_in_a_circle_does_not_drop_out(self, run: Run) -> None:
        write(all__a__kustomization_y="resources: [../b, pod.yaml]\n", all__a__pod_y=POD)
        write(all__b__kustomization_y="resources: [../a]\n")
        write(all__self__kustomization_y="resources: [., pod.yaml]\n", all__self__pod_y=POD)
        done = run("all")
        assert done.code == 2
        assert "all/a: kubectl refuses it" in done.err
        assert "all/self: kubectl refuses it" in done.err

    def test_what_an_ignored_overlay_uses_is_judged_by_itself(self, run: Run) -> None:
        write(all__base__kustomization_y="resources: [pod.yaml]\n", all__base__pod_y=POD)
        write(all__prod__kustomization_y="resources: [../base]\n")
        assert "all/base: Pod trainer" in run("all", "--ignore", "prod/").out

    @pytest.mark.parametrize("wrong", ["noSuchField: 1", "components: ['https://example.org/x']", "helmCharts: [{name: a}]"])
    def test_what_only_a_broken_overlay_uses_is_judged_by_itself(self, run: Run, wrong: str) -> None:
        write(all__base__kustomization_y="resources: [pod.yaml]\nnamePrefix: base-\n", all__base__pod_y=POD)
        write(all__prod__kustomization_y=f"resources: [../base, own.yaml]\npatches: [{{path: patch.yaml}}]\n{wrong}\n")
        write(all__prod__own_y=POD.replace("trainer", "own"), all__prod__patch_y=POD.replace("trainer", "patch"))
        done = run("all", "--verbose")
        assert done.code == 2
        assert "read by itself, because what uses it cannot be built: all/base, all/prod/own.yaml" in done.err
        assert "Pod base-trainer is refused" in done.out
        assert "Pod own is refused" in done.out
        assert "2 objects: 2 denied" in done.out

    def test_what_another_overlay_uses_too_is_judged_through_that_one_alone(self, run: Run) -> None:
        write(all__base__kustomization_y="resources: [pod.yaml]\n", all__base__pod_y=POD)
        write(all__a__kustomization_y="resources: [../base]\nnoSuchField: 1\n", all__b__kustomization_y="resources: [../base]\n")
        done = run("all")
        assert done.code == 2
        assert "1 object: 1 denied" in done.out
        assert "by itself" not in done.err

    def test_each_folder_is_built_once(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        built = []
        real = render._run_into
        monkeypatch.setattr(render, "_run_into", lambda out, command, **how: (built.append(command[-1]), real(out, command, **how)))
        write(all__base__kustomization_y="resources: [pod.yaml]\n", all__base__pod_y=POD)
        for name in ("prod", "test"):
            write(**{f"all__{name}__kustomization_y": "resources: [../base]\n"})
        run("all")
        assert sorted(Path(each).name for each in built) == ["prod", "test"]

    def test_charts_in_a_kustomization_are_a_sentence(self, run: Run) -> None:
        write(all__kustomization_y="helmCharts: [{name: demo, repo: 'https://charts.example.com'}]\n")
        done = run("all")
        assert done.code == 2
        assert "has helmCharts, for which kustomize fetches Helm charts" in done.err
        assert "kustomize build --enable-helm FOLDER | mlwarden check -" in done.err


class TestCharts:
    pytestmark = pytest.mark.usefixtures("tools")

    def test_a_message_names_the_template_and_the_line_of_what_was_rendered(self, run: Run) -> None:
        write(chart__Chart_y="apiVersion: v2\nname: other\nversion: 0.1.0\n")
        pod = POD.strip()
        write(chart__templates__a_y=pod.replace("trainer", "a"), chart__templates__b_y=f"{{{{- if true }}}}\n{pod}\n{{{{- end }}}}\n")
        done = run("chart")
        assert "chart/templates/b.yaml (rendered, line 9): Pod trainer" in done.out

    def test_a_library_is_judged_through_the_charts_that_use_it(self, run: Run) -> None:
        write(all__pod_y=POD, all__common__Chart_y="apiVersion: v2\nname: common\nversion: 0.1.0\ntype: library\n")
        done = run("all", "--strict-input")
        assert done.code == 1
        assert "not read, a library chart: judged through the charts that use it: all/common" in done.err
        assert run("all/common").code == 2

    def test_the_version_of_kubernetes_is_passed_on(self, run: Run) -> None:
        write(chart__Chart_y="apiVersion: v2\nname: chart\nversion: 0.1.0\nkubeVersion: '>=1.99.0'\n", chart__templates__pod_y=POD)
        assert run("chart").code == 2
        assert run("chart", "--kube-version", "v1.99.1").code == 1

    def test_what_lies_among_the_definitions_is_installed_and_so_judged(self, run: Run, attack: Callable[..., None]) -> None:
        write(chart__Chart_y="apiVersion: v2\nname: chart\nversion: 0.1.0\n", chart__crds__pod_y=POD)
        assert run("chart").code == 1
        attack("check: a privileged pod in a chart's crds/, which helm install applies", "not seen", "refused")

    def test_what_a_tool_writes_has_an_end(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(render, "LARGEST", 1000)
        write(chart__Chart_y="apiVersion: v2\nname: chart\nversion: 0.1.0\n")
        write(chart__templates__pod_y="{{- range until 1000000 }}\n---\napiVersion: v1\nkind: ConfigMap\n{{- end }}\n")
        done = run("chart")
        assert done.code == 2
        assert "wrote more than" in done.err or "took more than" in done.err or "not read" in done.out
