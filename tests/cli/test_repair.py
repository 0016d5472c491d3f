"""`check --fix` and `--diff`: what is written, what is not, and what the exit code says then."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwarden.cli import fixing, judging, manifests, repair, rules
from mlwarden.cli.manifests import Manifest, Origin
from mlwarden.embedded.build import binary
from mlwarden.model.finding import Decision
from mlwarden.model.policy import Settings

Run = Callable[..., Any]
Attack = Callable[[str, str, str], None]
EXAMPLES = Path(__file__).parents[2] / "examples"
BAD = """\
# the trainer
apiVersion: v1
kind: Pod
metadata: {name: trainer}
spec:
  hostPID: true    # for the profiler
  # what runs
  containers:
    - name: main
      image: 'registry.example/a:1'
      securityContext: {privileged:   true}
"""
TEXTUAL = """\
apiVersion: v1
kind: Pod
metadata: {name: mounts}
spec:
  volumes: [{name: host, hostPath: {path: /}}]
  containers: [{name: main, image: 'registry.example/a:1'}]
"""
GOOD = "kind:   Pod\napiVersion: v1\nmetadata:   {name: good}   # ours\nspec: {containers: [{name: c,   image: 'a:1'}]}\n"


def write(text: str | bytes, name: str = "pod.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_examples_that_can_be_fixed_are_refused_before_and_not_after(run: Run) -> None:
    shutil.copytree(EXAMPLES, "examples")

    def denied(*arguments: str) -> set[str]:
        report = run("examples", "--output", "json", *arguments).report
        return {each["file"] for each in report["objects"] if each["verdict"] == "Deny"}

    before, after = denied(), denied("--fix")
    assert before - after == {
        "examples/research/sweep.yaml",
        "examples/sandbox/quick-gpu-test.yaml",
        "examples/serving/privileged-in-the-dark.yaml",
    }
    # what is left needs a decision: no fix of it can be written
    assert "--fix writes" not in run("examples").out
    for path in EXAMPLES.rglob("*.yaml"):
        comments = [line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]
        assert [
            line for line in Path("examples", path.relative_to(EXAMPLES)).read_text().splitlines() if line.lstrip().startswith("#")
        ] == comments


def test_the_exit_code_is_of_the_state_after(run: Run) -> None:
    write(BAD)
    assert run("pod.yaml").code == 1
    done = run("pod.yaml", "--fix")
    assert (done.code, "fixed: pod.yaml: 2 fixes written" in done.err) == (0, True)
    assert "1 object: 0 denied" in done.out
    assert run("pod.yaml").code == 0


def test_what_needs_a_decision_is_left_and_the_exit_code_says_so(run: Run) -> None:
    path = write(f"{TEXTUAL}---\n{BAD}")
    done = run("pod.yaml", "--fix")
    assert done.code == 1
    assert "2 objects: 1 denied" in done.out
    assert path.read_text().startswith(f"{TEXTUAL}---\n# the trainer\n")


def test_a_second_run_writes_nothing(run: Run) -> None:
    path = write(f"{BAD}---\n{TEXTUAL}---\n{GOOD}")
    assert "fixed" in run("pod.yaml", "--fix", "--profile", "production").err
    before = (path.stat().st_ino, path.read_bytes())
    done = run("pod.yaml", "--fix", "--profile", "production")
    assert "fixed: " not in done.err
    assert (path.stat().st_ino, path.read_bytes()) == before


def test_the_rest_of_the_file_stays_to_the_byte(run: Run) -> None:
    path = write(f"\ufeff# head\n---\n{GOOD}---\n{BAD}---\n{GOOD}# tail".replace("\n", "\r\n"))
    path.chmod(0o640)
    assert run("pod.yaml", "--fix").code == 0
    expected = BAD.replace("hostPID: true ", "hostPID: false").replace("{privileged:   true}", "{privileged: false}")
    assert path.read_bytes().decode() == f"\ufeff# head\n---\n{GOOD}---\n{expected}---\n{GOOD}# tail".replace("\n", "\r\n")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(Path().iterdir()) == [path]


def test_only_the_lines_of_the_fix_change_however_the_rest_is_written(run: Run) -> None:
    odd = BAD.replace("  containers:\n", "  nodeSelector: {a:   b,\n      c: d}   # two lines\n\n  containers:\n").replace(
        "      securityContext: {privileged:   true}\n",
        "      args:   [\"a\",\n        'b']\n      env:\n      -   name: A\n          value: |\n            # no comment\n            x\n"
        "      securityContext:\n        privileged: true\n    # the next\n    - {name: two, image: 'a:1'}\n",
    )
    path = write(odd)
    assert run("pod.yaml", "--fix").code == 0
    changed = [line for line in fixing.diff("x", odd, path.read_text()).splitlines() if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
    assert changed == [
        "-  hostPID: true    # for the profiler",
        "+  hostPID: false   # for the profiler",
        "-        privileged: true",
        "+        privileged: false",
    ]


def test_what_is_new_stands_before_the_comment_of_what_follows(run: Run) -> None:
    path = write(
        GOOD.replace("{containers: [{name: c,   image: 'a:1'}]}", "\n  containers:\n    - name: c\n      image: 'a:1'\n  # the end")
    )
    run("pod.yaml", "--fix", "--profile", "experiment")
    assert path.read_text().endswith("\n  # the end\n")
    assert "allowPrivilegeEscalation: false" in path.read_text()


def test_a_diff_is_printed_alone_and_applies(run: Run) -> None:
    path = write(f"{BAD}---\n{GOOD}".replace("\n", "\r\n"))
    before = path.read_bytes()
    done = run("pod.yaml", "--diff")
    assert done.code == 1
    assert path.read_bytes() == before
    assert "1 denied" in done.err
    subprocess.run(["patch", "-p1", "--binary", "--quiet"], input=done.out.encode(), check=True)
    assert run("pod.yaml").code == 0
    patched = path.read_bytes()
    path.write_bytes(before)
    run("pod.yaml", "--fix")
    assert path.read_bytes() == patched


def test_a_symbolic_link_is_neither_followed_nor_replaced(run: Run, tmp_path: Path, attack: Attack) -> None:
    (tmp_path / "outside.yaml").write_text(BAD)
    Path("all").mkdir()
    Path("all/link.yaml").symlink_to(tmp_path / "outside.yaml")
    for named in ("all", "all/link.yaml"):
        done = run(named, "--fix")
        assert done.code == 1
        assert "not fixed: all/link.yaml: " in done.err
        assert Path("all/link.yaml").is_symlink()
        assert (tmp_path / "outside.yaml").read_text() == BAD
    attack("check --fix: a link in the repository leads to a file elsewhere", "no --fix", "not written, and said; exit 1")


@pytest.mark.parametrize("name", ["pod.json", "pod.yaml"])
def test_what_is_written_as_json_is_left(run: Run, name: str) -> None:
    text = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},\n "spec": {"hostPID": true, "containers": [{"name": "c"}]}}\n'
    path = write(text, name)
    done = run(name, "--fix")
    assert (done.code, path.read_text()) == (1, text)
    assert f"not fixed: {name}: " in done.err


def test_what_was_rendered_is_left(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("kubectl", "helm"):
        (tmp_path / "bin" / tool).symlink_to(binary(tool))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write("apiVersion: v2\nname: x\nversion: 1.0.0\n", "all/chart/Chart.yaml")
    write("resources: [pod.yaml]\n", "all/base/kustomization.yaml")
    sources = [write(BAD, "all/chart/templates/pod.yaml"), write(BAD, "all/base/pod.yaml")]
    done = run("all", "--fix")
    assert done.code == 1
    assert "2 denied" in done.out
    assert "not fixed: all/chart/templates/pod.yaml: rendered by helm: change its source" in done.err
    assert "not fixed: all/base/kustomization.yaml: rendered by kustomize: change its source" in done.err
    assert [path.read_text() for path in sources] == [BAD, BAD]


def test_what_is_rendered_says_why_it_is_left() -> None:
    origin = Origin(file="base/kustomization.yaml", label="x", rendered=manifests.Tool.KUSTOMIZE)
    assert repair.reason(origin) == "rendered by kustomize: change its source"
    assert repair.reason(Origin(file="standard input", label="x", named="-")) == "standard input"
    assert repair.reason(Origin(file="a.yml", label="x")) == ""


def test_standard_input_cannot_be_fixed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("-", "--fix")
    assert stopped.value.code == 2
    assert "standard input is none" in capsys.readouterr().err


def test_a_file_that_leaves_the_paths_on_its_way_is_left(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/pod.yaml").write_text(BAD)
    Path("all").mkdir()
    Path("all/sub").symlink_to(tmp_path / "elsewhere")
    origin = Origin(file="all/sub/pod.yaml", label="x", named="all")
    judged = next(judging.judge([_of(BAD, origin)], rules.shipped(), Settings(), profile="baseline", now=datetime.now(UTC)))
    (done,) = repair.repaired([judged], lambda _: None)
    assert done.left == ("outside of the paths that were given",)
    assert run("all/sub", "--fix").code == 0  # named by itself it is what was meant
    assert (tmp_path / "elsewhere/pod.yaml").read_text() != BAD


def test_one_bad_document_does_not_keep_the_others_from_being_fixed(run: Run) -> None:
    path = write(f"{BAD}---\na: [\n---\n{BAD.replace('trainer', 'two')}")
    done = run("pod.yaml", "--fix")
    assert done.code == 2
    assert "2 objects: 0 denied" in done.out
    assert "---\na: [\n---\n" in path.read_text()


def test_json_and_sarif_are_of_the_state_after_and_alone_on_standard_output(run: Run) -> None:
    write(BAD)
    done = run("pod.yaml", "--fix", "--output", "json")
    assert (done.code, done.report["verdict"]) == (0, "Admit")


def test_a_file_of_a_hostile_name_is_fixed_and_its_name_is_printed_safely(run: Run) -> None:
    path = write(BAD, "\x1b[2J\nx.yaml")
    shown = run(str(path), "--diff")
    done = run(str(path), "--fix")
    assert done.code == 0
    assert "\x1b" not in shown.out + shown.err + done.out + done.err
    assert "\nx.yaml" not in shown.out + done.err


def test_a_document_that_is_too_large_is_left_and_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixing, "LARGEST_DOCUMENT", 4096)
    path = write(f"{BAD}# {'x' * 5000}\n---\n{BAD}")
    done = run("pod.yaml", "--fix")
    assert done.code == 1
    assert "not fixed: pod.yaml: document 1: longer than 4 KiB" in done.err
    assert "1 denied" in done.out
    assert path.read_text().startswith(f"{BAD}# xxx")


@pytest.mark.parametrize(
    "shared",
    [
        "x: &same {hostPID: true}\nspec:\n  <<: *same\n  containers: [{name: c, image: 'a:1'}]\n",
        "x: &same true\nspec:\n  hostPID: *same\n  containers: [{name: c, image: 'a:1'}]\n",
    ],
)
def test_what_an_anchor_shares_is_never_changed_in_both_places(run: Run, shared: str) -> None:
    path = write(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\n{shared}")
    run("pod.yaml", "--fix")
    assert fixing.yaml_loads(path.read_text())[0]["x"] in ({"hostPID": True}, True)


def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    path = tmp_path / "all/pod.yaml"
    path.write_text(BAD)
    tmp_path.chmod(0o755)
    (tmp_path / "all").chmod(0o555)
    code = (
        "import os, sys\nfrom mlwarden import policy\nfrom mlwarden.cli import check, fixing\npolicy.shipped()\n"
        "if os.geteuid() == 0:\n    os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "sys.exit(check.main(['all', '--fix']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not fixed: all/pod.yaml: cannot be written: " in done.stderr
    assert path.read_text() == BAD


_BLANK = st.sampled_from(["", "\n", "  # a comment\n", "# at the margin\n"])
_TAIL = st.sampled_from(["", "  # said", "   "])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    gaps=st.lists(_BLANK, min_size=9, max_size=9),
    tails=st.lists(_TAIL, min_size=9, max_size=9),
    dash=st.sampled_from(["    - ", "  - ", "  -   "]),
    flow=st.booleans(),
    profile=st.sampled_from(["baseline", "production"]),
)
def test_however_it_is_written_comments_and_everything_else_stay(
    *, gaps: list[str], tails: list[str], dash: str, flow: bool, profile: str
) -> None:
    inner = " " * len(dash)
    security = ["securityContext: {privileged: true}"] if flow else ["securityContext:", "  privileged: true"]
    lines = ["apiVersion: v1", "kind: Pod", "metadata: {name: x}", "spec:", "  hostNetwork: true", "  containers:", f"{dash}name: c"]
    lines += [f"{inner}image: registry.example/a:1", *(f"{inner}{line}" for line in security)]
    text = "".join(f"{gap}{line}{tail}\n" for gap, line, tail in zip([*gaps, ""], lines, [*tails, ""], strict=False))
    _is_fixed(text, profile)


def _is_fixed(text: str, profile: str) -> None:
    def judge(body: Any) -> Any:
        item = Manifest(origin=Origin(file="x", label="x"), object=dict(body))
        return next(judging.judge([item], _RULES, Settings(), profile=profile, now=datetime.now(UTC))).verdict

    done = fixing.fixed(text, judge)
    assert not done.left
    assert done.applied
    (before,), (after,) = fixing.yaml_loads(text), fixing.yaml_loads(done.text)
    assert not judge(after).edits
    assert (judge(after).decision is Decision.DENY) <= (profile == "production")
    assert _commented(done.text) == _commented(text)
    assert done.text.count("#") == text.count("#")
    assert before["spec"]["containers"][0]["image"] == after["spec"]["containers"][0]["image"]
    assert fixing.fixed(done.text, judge).text == done.text


def _commented(text: str) -> list[str]:
    """Lines with comments, but for those that are fixed."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return [line for line in lines if "#" in line and "hostNetwork" not in line and "privileged" not in line]


_RULES = rules.shipped(("registry.example",))


def _of(text: str, origin: Origin) -> Manifest:
    (body,) = fixing.yaml_loads(text)
    return Manifest(origin=origin, object=body)
