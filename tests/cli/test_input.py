"""What is read, what is not, and what the exit code says about it: nothing that was not read ever passes."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlwarden.cli import check, manifests, texts
from mlwarden.cli.folders import Aside, Problem, Why
from mlwarden.cli.manifests import Manifest, Options

Run = Callable[..., Any]
Attack = Callable[[str, str, str], None]

GOOD = """apiVersion: v1
kind: Pod
metadata: {name: good}
spec: {containers: [{name: c, image: "a:1"}]}
"""
BAD = GOOD.replace("good", "bad").replace('"a:1"', '"a:1", securityContext: {privileged: true}')
TWICE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: third, labels: {app: x, app: x}}\n"


def write(**files: str | bytes) -> None:
    for name, content in files.items():
        path = Path(name.replace("__", "/").replace("DOT", ".") + ("" if "." in name else ".yaml"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def read(*paths: str, **options: Any) -> list[Any]:
    return list(manifests.read(paths, stdin=None, options=Options(**options)))


def asides(found: list[Any]) -> dict[str, Why]:
    return {each.source: each.why for each in found if isinstance(each, Aside)}


def sources(found: list[Any]) -> list[str]:
    return [each.source for each in found if isinstance(each, Manifest)]


def piped(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


class TestOneBadDocument:
    def test_does_not_lose_the_rest_of_its_text(self, run: Run, attack: Attack) -> None:
        write(pods=f"{BAD}---\n{GOOD}---\n{TWICE}---\n{BAD}")
        done = run("pods.yaml")
        assert done.code == 2
        assert "pods.yaml (document 3): the key 'app' stands twice in one mapping in line 13, column 47" in done.err
        assert "3 objects: 2 denied" in done.out
        attack("check: a key that stands twice hides the privileged pods beside it", "nothing was judged", "both are found, exit 2")

    def test_is_named_with_the_line_of_the_whole_file(self) -> None:
        write(pods=f"{GOOD}---\n{GOOD}---\na: [\n")
        *good, bad = read("pods.yaml")
        assert [each.origin.line for each in good] == [1, 6]
        assert isinstance(bad, Problem)
        assert bad.line == 10
        assert "in line 12" in bad.error.message

    def test_in_json_costs_its_own_document(self, run: Run) -> None:
        Path("pods.json").write_text(f"{json.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'x'}})}\n---\n{{broken\n")
        done = run("pods.json")
        assert done.code == 2
        assert "1 object: " in done.out


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        ("raw", "says"),
        [
            (b"a: \xe9\n", "not UTF-8 text: byte 3 (line 1) is 0xe9"),
            (b"", "nothing to check in -"),
            (b"# only a comment\n", "nothing to check in -"),
            (b"just text", "not a Kubernetes object but a str"),
            (b"replicas: 3\n", "apiVersion or kind is missing"),
            (b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"na', "not YAML"),
            (b"apiVersion: v1\nkind: Pod\nmetadata: {name: cut, lab", "not YAML"),
            (b"apiVersion: v1\nkind: List\nitems: 3\n", "items of a List is not a list"),
            (b"apiVersion: v1\nkind: List\nitems: [3]\n", "not a Kubernetes object but a int"),
        ],
    )
    def test_on_standard_input_is_a_sentence_and_2(self, run: Run, monkeypatch: pytest.MonkeyPatch, raw: bytes, says: str) -> None:
        piped(monkeypatch, raw)
        done = run("-")
        assert done.code == 2
        assert says in done.err
        if raw:
            piped(monkeypatch, f"{BAD}---\n".encode() + raw)
            assert "1 object: 1 denied" in run("-").out

    def test_a_closed_standard_input(self, tmp_path: Path, attack: Attack) -> None:
        command = f"exec {sys.executable} -m mlwarden.cli.main check - <&-"
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, "standard input: is closed" in done.stderr) == (2, True)
        attack("check: standard input is closed", "a traceback, exit 1", "a sentence, exit 2")

    def test_more_than_there_is_room_for(self, run: Run, monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
        monkeypatch.setattr(texts, "LARGEST", 2000)
        piped(monkeypatch, f"{BAD}---\n{'#' * 3000}\n---\n{BAD}".encode())
        done = run("-")
        assert done.code == 2
        assert "what comes after is not read" in done.err
        assert "1 object: 1 denied" in done.out
        attack("check: a privileged pod behind 64 MiB of comments", "exit 0", "what is not read is said, exit 2")

    @pytest.mark.parametrize("name", ["x" * 5000, "x\x00y", "nothing-here", "pod.yaml/below"])
    def test_a_name_that_leads_nowhere(self, run: Run, name: str) -> None:
        write(pod=GOOD)
        done = run(name, "pod.yaml")
        assert done.code == 2
        assert "cannot be read" in done.err
        assert "1 object: " in done.out

    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
    def test_a_device(self, run: Run, name: str) -> None:
        done = run(name)
        assert (done.code, done.err) == (2, f"{name}: not a file but a device\n")

    def test_what_only_looks_like_a_file(self, run: Run) -> None:
        write(all__pod=GOOD)
        os.mkfifo("all/pipe.yaml")
        Path("all/loop.yaml").symlink_to("loop.yaml")
        Path("all/gone.yaml").symlink_to("nowhere")
        done = run("all")
        assert done.code == 2
        for text in ("pipe.yaml: not a file but a pipe", "loop.yaml: cannot be read", "gone.yaml: cannot be read"):
            assert text in done.err
        assert "1 object: " in done.out

    def test_a_folder_that_may_not_be_entered_costs_itself_alone(self, tmp_path: Path, attack: Attack) -> None:
        tmp_path.chmod(0o755)
        write(all__pod=BAD, all__locked__pod=BAD, all__open__pod=GOOD, all__closed__pod=GOOD)
        Path("all/locked").chmod(0o444)
        Path("all/closed").chmod(0o000)
        code = (
            "import os, sys\nfrom mlwarden import policy\nfrom mlwarden.cli import check\npolicy.shipped()\n"
            "if os.geteuid() == 0:\n    os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
            "sys.exit(check.main(['all']))\n"
        )
        try:
            done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        finally:
            Path("all/locked").chmod(0o755)
            Path("all/closed").chmod(0o755)
        assert done.returncode == 2, done.stderr
        for folder in ("all/locked", "all/closed"):
            assert re.search(f"^{folder}[^:]*: cannot be read: Permission denied$", done.stderr, re.MULTILINE)
        assert "2 objects: 1 denied" in done.stdout
        attack("check: a folder that may not be entered", "a traceback, everything else lost", "it is named, the rest is judged, exit 2")


class TestATemplate:
    @pytest.mark.parametrize(
        "text", ["metadata:\n  name: {{ .Values.name }}\n", "{{- if .Values.on }}\nkind: Pod\n{{- end }}\n", "{% if x %}\na: 1"]
    )
    def test_is_said_to_be_one(self, run: Run, text: str) -> None:
        write(all__pod=GOOD, all__template=f"apiVersion: v1\nkind: Pod\n{text}")
        done = run("all")
        assert done.code == 2
        assert "all/template.yaml: this is a template: render it (helm template …)" in done.err

    def test_is_not_what_a_workflow_fills_in(self, run: Run) -> None:
        write(pod=GOOD.replace("a:1", "{{inputs.image}}").replace("kind: Pod", "kind: Gadget"))
        assert "template" not in run("pod.yaml").err

    @pytest.mark.parametrize("value", ["'{{inputs.a}}'", "a-{{inputs.a}}"])
    def test_is_not_a_workflow_with_another_fault(self, run: Run, value: str) -> None:
        write(flow=f"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata:\n  name: x\n  name: {value}\n")
        done = run("flow.yaml")
        assert done.code == 2
        assert done.err.startswith("flow.yaml: the key 'name' stands twice")


class TestWhatIsNoManifest:
    def test_is_counted_and_no_error(self, run: Run) -> None:
        write(all__pod=GOOD, all__values="replicas: 3\n", all__patch="- op: remove\n", **{"all__package.json": '{"name": "x"}'})
        done = run("all")
        assert done.code == 0
        assert "not read, no manifest: all/package.json, all/patch.yaml, all/values.yaml" in done.err
        assert "1 object: " in done.out

    @pytest.mark.parametrize("text", ["site: !ENV NAME\n", "a: 1\na: 2\n", "- !Ref x\n", "a: {kind: 1, kind: 2}\n"])
    def test_is_what_says_neither_apiversion_nor_kind_whatever_else_it_says(self, run: Run, text: str) -> None:
        write(all__pod=GOOD, all__site=text)
        done = run("all")
        assert done.code == 0
        assert "not read, no manifest: all/site.yaml" in done.err
        assert run("all/site.yaml").code == 2

    @pytest.mark.parametrize(
        "key",
        ["kind", '"k\\x69nd"', "!!str kind", "? kind\n", "<<: *a\nx", "&a *b", "apiVersion", "? {kind: Pod}\n", "? [kind]\n", "*kind "],
    )
    def test_is_not_what_may_say_one_of_them(self, run: Run, key: str) -> None:
        write(all__pod=GOOD, all__hidden=f"x: !no {{}}\n{key}: Pod\n")
        assert run("all").code == 2

    @pytest.mark.parametrize(
        "half", ["kind: discovery#restDescription\n", "kind: 3\n", "apiVersion: latest\n", "kind: ''\napiVersion: ''\n"]
    )
    def test_is_what_has_a_word_of_that_name_for_something_else(self, run: Run, half: str) -> None:
        write(all__pod=GOOD, all__half=half)
        assert run("all").code == 0

    def test_is_an_error_with_strict_input(self, run: Run) -> None:
        write(all__pod=GOOD, all__values="replicas: 3\n")
        assert run("all", "--strict-input").code == 2
        assert run("all", "--strict-input", "--ignore", "values.yaml").code == 0

    def test_is_an_error_where_it_was_named(self, run: Run) -> None:
        write(values="replicas: 3\n", pod=GOOD)
        assert run("pod.yaml", "values.yaml").code == 2

    @pytest.mark.parametrize("half", ["apiVersion: v1\nmetadata: {name: x}\n", "kind: Pod\nmetadata: {name: x}\n"])
    def test_is_an_error_where_it_half_is_one(self, run: Run, half: str) -> None:
        write(all__pod=GOOD, all__half=half)
        done = run("all")
        assert done.code == 2
        assert "apiVersion or kind is missing" in done.err

    def test_alone_is_nothing_to_check(self, run: Run) -> None:
        write(all__values="replicas: 3\n")
        assert run("all").code == 2


class TestExitCodes:
    def test_two_wins_over_one_after_everything_is_printed(self, run: Run) -> None:
        write(all__pod=BAD, all__broken="a: [")
        done = run("all")
        assert (done.code, "1 object: 1 denied" in done.out) == (2, True)

    def test_a_list_of_nothing_is_nothing(self, run: Run) -> None:
        write(pods="apiVersion: v1\nkind: List\nitems: []\n", pod=GOOD)
        assert run("pods.yaml").code == 2
        assert run("pods.yaml", "pod.yaml").code == 0


class TestWhatIsLeftOut:
    def test_a_hidden_folder_is_said(self) -> None:
        write(all__pod=GOOD)
        Path("all/.hidden").mkdir()
        Path("all/.hidden/pod.yaml").write_text(BAD)
        Path("all/.gitlab-ci.yml").write_text("a: 1")
        found = read("all")
        assert asides(found) == {"all/.hidden": Why.HIDDEN, "all/.gitlab-ci.yml": Why.HIDDEN}
        assert sources(found) == ["all/pod.yaml"]
        assert sources(read("all/.hidden")) == ["all/.hidden/pod.yaml"]

    def test_a_file_of_patterns_is_about_its_folder(self) -> None:
        write(all__pod=GOOD, all__skip__pod=BAD, all__deep__skip__pod=BAD, all__deep__skip_not=GOOD)
        Path("all/.mlwardenignore").write_text("# not ours\nskip/\n")
        found = read("all")
        assert sources(found) == ["all/deep/skip_not.yaml", "all/pod.yaml"]
        assert asides(found) == {"all/deep/skip": Why.IGNORED, "all/skip": Why.IGNORED}

    def test_the_current_folder_s_patterns_count_for_folders_below(self) -> None:
        write(all__pod=GOOD, all__skip=BAD)
        Path(".mlwardenignore").write_text("/all/skip.yaml\n")
        assert sources(read("all")) == ["all/pod.yaml"]
        assert sources(read(".")) == ["all/pod.yaml"]

    def test_what_is_named_is_read(self) -> None:
        write(all__skip=BAD)
        assert sources(read("all/skip.yaml", ignore=["skip.yaml"])) == ["all/skip.yaml"]

    def test_patterns_that_cannot_be_read_are_an_error_and_leave_nothing_out(self) -> None:
        write(all__pod=GOOD)
        Path("all/.mlwardenignore").write_bytes(b"pod.yaml\n\xff\n")
        problem, pod = read("all")
        assert (problem.source, pod.source) == ("all/.mlwardenignore", "all/pod.yaml")

    def test_links_to_folders_are_read_at_their_place_or_said(self) -> None:
        write(all__a__pod=GOOD, elsewhere__pod=BAD)
        Path("all/again").symlink_to("a")
        Path("all/loop").symlink_to("..")
        Path("all/out").symlink_to("../elsewhere")
        found = read("all")
        assert sources(found) == ["all/a/pod.yaml"]
        assert asides(found) == {"all/loop": Why.LINK, "all/out": Why.LINK}


class TestWhereAnObjectStands:
    def test_each_has_its_file_line_and_document(self) -> None:
        write(pods=f"# a comment\n\n{GOOD}---\n# another\n{BAD}")
        first, second = read("pods.yaml")
        assert [(each.origin.file, each.origin.line) for each in (first, second)] == [("pods.yaml", 3), ("pods.yaml", 9)]
        raw = Path("pods.yaml").read_bytes()
        begin, end = second.origin.span
        assert raw[begin:end].startswith(b"---\n# another\napiVersion")
        assert end == len(raw)

    def test_items_of_lists_have_their_lines_and_steps(self) -> None:
        inner = {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}]}
        Path("pods.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [inner, inner]}, indent=1))
        first, second = read("pods.json")
        assert (first.origin.items, second.origin.items) == ((0, 0), (1, 0))
        assert second.origin.line > first.origin.line > 1
        assert second.source == "pods.json items[1] items[0]"


def test_many_more_objects_than_are_held_come_in_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlwarden.cli import spill

    monkeypatch.setattr(spill, "_HELD", 3)
    monkeypatch.setattr(spill, "_BLOCK", 4)
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {mlwarden.io/profile: production}}\n"
    pods = [GOOD.replace("name: good", f"name: p{number}, namespace: team") for number in range(30)]
    write(pods="---\n".join([*pods, namespace]))
    done = run("pods.yaml", "--output", "json")
    names = [finding["resource"]["name"] for finding in done.report["findings"]]
    assert list(dict.fromkeys(names)) == [f"p{number}" for number in range(30)]
    assert done.report["verdict"] == "Deny"


def test_500_000_pods_fit_into_memory_as_a_list_and_as_documents(tmp_path: Path) -> None:
    """A tenth of them, in a process that may have a tenth of what they would be: values are not kept."""
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: p%06d}, spec: {containers: [{name: c, image: a}]}}\n"
    (tmp_path / "list.yaml").write_text("apiVersion: v1\nkind: List\nitems:\n" + "".join(f"- {pod % number}" for number in range(20_000)))
    (tmp_path / "documents.yaml").write_text("---\n".join(pod % number for number in range(20_000)))
    code = (
        "import sys, tracemalloc\nfrom mlwarden.cli import manifests\nfrom mlwarden.cli.judging import Input\n"
        "given = Input()\ntracemalloc.start()\ngiven.take(manifests.read(sys.argv[1:], stdin=None))\n"
        "print(len(given.manifests), tracemalloc.get_traced_memory()[1])\ngiven.close()\n"
    )
    for name in ("list.yaml", "documents.yaml"):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True)
        count, peak = map(int, done.stdout.split())
        assert count == 20_000
        assert peak < 45_000_000, peak


def test_a_version_of_kubernetes_that_is_none_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        check.main(["--kube-version", "--set=x", "x"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        check.main(["--kube-version", "newest", "x"])
    assert "--kube-version is a version as v1.34.0, not 'newest'" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
