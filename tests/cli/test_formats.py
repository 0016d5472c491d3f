"""The summary, JSON, SARIF and JUnit of what `check` found; the schemas themselves are in no package that is pinned here."""

import json
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from mlwarden.cli import jsonstream, judging, manifests, rules
from mlwarden.cli.folders import Problem, Tool
from mlwarden.cli.judging import Judged
from mlwarden.cli.junit import junit
from mlwarden.cli.manifests import Origin
from mlwarden.cli.sarif import sarif
from mlwarden.cli.spill import Spill
from mlwarden.cli.summary import OBJECTS, Summary
from mlwarden.errors import InputError
from mlwarden.model.finding import Decision
from mlwarden.model.policy import Settings

Run = Callable[..., Any]
RULES = rules.shipped(("registry.example",))
SAFE = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "main",
            "image": "registry.example/a:1",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        }
    ],
}
BAD = {"hostNetwork": True, "containers": [{"name": "main", "image": "registry.example/a:1", "securityContext": {"privileged": True}}]}
SEVERAL = ("sarif", "junit", "json")


def judged(
    spec: object,
    *,
    file: str = "pod.yaml",
    line: int = 3,
    profile: str = "experiment",
    name: str = "x",
    space: str = "team",
    tool: Tool = Tool.NONE,
) -> Judged:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": space}, "spec": spec}
    item = manifests.Manifest(origin=Origin(file=file, label=f"{file} (document 1)", line=line, rendered=tool), object=body)
    return next(judging.judge([item], RULES, Settings(), profile=profile, now=datetime.now(UTC)))


DENIED, HELD, GOOD = judged(BAD), judged(SAFE, line=9), judged(SAFE, profile="baseline", line=20)


def unread(file: str = "cut.yaml", reason: str = "ends in the middle of a string") -> Spill[Problem]:
    problems: Spill[Problem] = Spill()
    problems.append(Problem(source=file, error=InputError(reason)))
    return problems


def log(items: list[Judged], problems: Spill[Problem] | None = None) -> Any:
    return json.loads("".join(jsonstream.chunks(sarif(items, problems if problems is not None else Spill(), []))))["runs"][0]


def xml(items: list[Judged], problems: Spill[Problem] | None = None) -> ET.Element:
    return ET.fromstring("".join(junit(items, problems if problems is not None else Spill())).encode())


def summary(items: Iterable[Judged], *, everything: bool = False) -> list[str]:
    made = Summary(everything=everything)
    for item in items:
        made.add(item)
    return [line.text for line in made.lines()]


def write(text: str, name: str = "pods.yaml") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def pod(name: str, spec: object = BAD, **metadata: object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}) + "\n"


def test_the_three_are_what_they_are_called() -> None:
    assert [each.decision for each in (DENIED, HELD, GOOD)] == [Decision.DENY, Decision.HOLD, Decision.ADMIT]


class TestJson:
    def test_says_file_and_line_of_each_object(self, run: Run) -> None:
        write(f"# one\n{pod('a')}---\n# two\n\n{pod('b', SAFE)}")
        report = run("pods.yaml", "--output", "json").report
        assert [(each["file"], each["line"], each["resource"]["name"], each["verdict"]) for each in report["objects"]] == [
            ("pods.yaml", 2, "a", "Deny"),
            ("pods.yaml", 6, "b", "Admit"),
        ]
        assert {(each["file"], each["line"]) for each in report["findings"] if each["action"] == "Deny"} == {("pods.yaml", 2)}
        assert {name: report["totals"][name] for name in ("objects", "denied", "admitted")} == {"objects": 2, "denied": 1, "admitted": 1}

    def test_says_what_was_not_read_and_why(self, run: Run) -> None:
        write(pod("a"), "all/a.yaml")
        write("a: [\n", "all/cut.yaml")
        write("replicas: 3\n", "all/values.yaml")
        write(pod("b"), "all/.hidden/b.yaml")
        done = run("all", "--output", "json")
        assert done.code == 2
        assert [(each["file"], each["line"]) for each in done.report["unread"]] == [("all/cut.yaml", 1)]
        assert "not YAML" in done.report["unread"][0]["reason"]
        assert {each["file"]: each["reason"] for each in done.report["leftOut"]} == {
            "all/values.yaml": "no manifest",
            "all/.hidden": "hidden",
        }
        assert (done.report["totals"]["unread"], done.report["totals"]["leftOut"]) == (1, 2)

    @pytest.mark.parametrize("output", SEVERAL)
    def test_of_nothing_is_a_document_that_says_so(self, run: Run, output: str) -> None:
        Path("empty").mkdir()
        done = run("empty", "--output", output)
        assert done.code == 2
        assert "nothing to check in empty" in done.err
        assert "nothing to check in empty" in done.out
        assert json.loads(done.out) if output != "junit" else ET.fromstring(done.out).get("errors") == "1"

    def test_of_a_kind_that_is_not_understood_has_no_verdict(self, run: Run) -> None:
        write(json.dumps({"apiVersion": "example.org/v1", "kind": "Riddle", "metadata": {"name": "r"}}))
        report = run("pods.yaml", "--output", "json").report
        assert [(each["standing"], each["verdict"]) for each in report["objects"]] == [("unknown", None)]
        assert report["totals"]["notUnderstood"] == 1

    def test_is_the_same_text_as_if_it_were_written_at_once(self) -> None:
        values = [{"a": [1, {"b": "\x1b\u202e"}]}, {}, [], "x", {"é\u200b": None}]
        text = "".join(jsonstream.chunks({"head": 1, "list": iter(values), "none": iter([]), "deep": {"list": iter([1, 2])}}))
        assert json.loads(text) == {"head": 1, "list": values, "none": [], "deep": {"list": [1, 2]}}
        assert all(line.isprintable() for line in text.split("\n"))
        assert text.split("\n")[:3] == ["{", '  "head": 1,', '  "list": [']


class TestSarif:
    def test_has_what_its_schema_requires(self) -> None:
        run = log([DENIED, HELD, GOOD], unread())
        assert run["tool"]["driver"]["name"] == "mlwarden"
        names = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert len(names) == len(set(names)), "reportingDescriptors are unique"
        assert run["results"]
        for result in run["results"]:
            assert result["message"]["text"]
            assert result["level"] in {"none", "note", "warning", "error"}
            assert names[result["ruleIndex"]] == result["ruleId"]
            (location,) = result["locations"]
            assert location["physicalLocation"]["artifactLocation"]["uri"] == "pod.yaml"
            assert location["physicalLocation"]["region"]["startLine"] in {3, 9, 20}
            assert re.fullmatch("[0-9a-f]{64}", result["partialFingerprints"]["mlwarden/v1"])

    def test_says_error_of_what_is_denied_and_of_nothing_else(self) -> None:
        def levels(one: Judged) -> set[str]:
            return {result["level"] for result in log([one])["results"]}

        assert "error" in levels(DENIED)
        assert levels(HELD)
        assert "error" not in levels(HELD) | levels(GOOD)

    def test_of_a_run_that_did_not_read_everything_is_not_successful(self) -> None:
        (invocation,) = log([GOOD], unread())["invocations"]
        assert invocation["executionSuccessful"] is False
        (notification,) = invocation["toolExecutionNotifications"]
        assert notification["message"]["text"] == "ends in the middle of a string"
        assert "region" not in notification["locations"][0]["physicalLocation"]
        assert log([GOOD])["invocations"][0]["executionSuccessful"] is True

    def test_is_not_successful_where_strict_input_makes_it_2(self, run: Run) -> None:
        write(pod("a", SAFE), "all/a.yaml")
        write("replicas: 3\n", "all/values.yaml")
        for arguments, successful in (((), True), (("--strict-input",), False)):
            done = run("all", "--output", "sarif", *arguments)
            assert (done.code == 0) is successful
            assert done.report["runs"][0]["invocations"][0]["executionSuccessful"] is successful
            done = run("all", "--output", "junit", *arguments)
            assert (ET.fromstring(done.out).get("errors") == "0") is successful

    def test_fingerprints_stay_when_lines_move_and_differ_between_places(self) -> None:
        def prints(one: Judged) -> list[str]:
            return [result["partialFingerprints"]["mlwarden/v1"] for result in log([one])["results"]]

        assert prints(DENIED) == prints(judged(BAD, line=70))
        assert len(set(prints(DENIED))) == len(prints(DENIED))
        assert not set(prints(DENIED)) & set(prints(judged(BAD, name="y")))

    @pytest.mark.parametrize(
        ("file", "uri"),
        [("a b/ü.yaml", "a%20b/%C3%BC.yaml"), ("/srv/a.yaml", "file:///srv/a.yaml"), ("x:y.yaml", "x%3Ay.yaml"), ("a\udcff", "a%FF")],
    )
    def test_writes_a_file_name_as_a_uri(self, file: str, uri: str) -> None:
        assert log([judged(BAD, file=file)])["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri

    def test_names_no_line_of_a_file_for_what_was_rendered(self) -> None:
        result = log([judged(BAD, file="chart/templates/a.yaml", tool=Tool.HELM)])["results"][0]
        assert "region" not in result["locations"][0]["physicalLocation"]
        assert "(chart/templates/a.yaml (document 1))" in result["message"]["text"]


class TestJunit:
    def test_counts_what_it_contains(self) -> None:
        root = xml([DENIED, HELD, GOOD, judged(BAD, file="other.yaml")], unread())
        assert root.tag == "testsuites"
        assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {"tests": "5", "failures": "2", "errors": "1"}
        assert len(list(root.iter("skipped"))) == 1
        for tag, name in (("testcase", "tests"), ("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert tag == "skipped" or len(list(root.iter(tag))) == int(root.get(name) or ""), tag
            for suite in root.iter("testsuite"):
                assert len(list(suite.iter(tag))) == int(suite.get(name) or "0"), tag

    def test_survives_what_other_people_write(self) -> None:
        odd = judged(BAD, file='a"<&>\x1b\ufffe\udcff.yaml', name="]]>\x00<")
        text = "".join(junit([odd], unread("b.yaml", "<\x1b&\uffff")))
        root = ET.fromstring(text.encode())
        assert [case.tag for case in root.iter("testsuite")] == ["testsuite", "testsuite"]
        assert "\x1b" not in text

    def test_skips_an_object_that_is_never_governed(self) -> None:
        root = xml([judged(BAD, space="kube-system")])
        assert [each.get("message") for each in root.iter("skipped")] == ["its namespace is never governed"]


class TestSummary:
    def test_has_one_line_for_each_policy_and_object(self) -> None:
        texts = summary([GOOD, HELD, DENIED])
        objects = texts[texts.index("by object:") + 1 :]
        assert objects[0].startswith("  denied   pod.yaml:3: Pod team/x: ")
        assert objects[1].startswith("  held     pod.yaml:9: Pod team/x: ")
        policies = texts[1 : texts.index("by object:")]
        names = {finding.policy for one in (GOOD, HELD, DENIED) for finding in one.told}
        assert sorted(line.split(":")[0].strip() for line in policies) == sorted(names)
        assert all("\n" not in text for text in texts)

    def test_is_empty_where_there_is_nothing_to_tell(self) -> None:
        assert summary([]) == []

    def test_names_a_hundred_objects_the_worst_of_them_and_counts_the_rest(self) -> None:
        texts = summary([DENIED] * OBJECTS)
        assert not texts[-1].startswith("  and")
        texts = summary([HELD, *[DENIED] * (OBJECTS + 3)])
        assert texts[-1] == "  and 4 more: --verbose shows all of them"
        assert sum(text.startswith("  denied  ") for text in texts) == OBJECTS
        assert sum(text.startswith("  denied  ") for text in summary([DENIED] * (OBJECTS + 3), everything=True)) == OBJECTS + 3

    def test_comes_first_and_verbose_shows_the_rest_with_each_finding_once(self, run: Run) -> None:
        write(f"{pod('a')}---\n{pod('b')}---\n{pod('c', SAFE)}")
        short, long = run("pods.yaml", "--profile", "production"), run("pods.yaml", "--profile", "production", "--verbose")
        assert "Pod a is refused" not in short.out
        assert "--verbose says of each where" in short.out
        assert (
            long.out.index("by policy:") < long.out.index("by object:") < long.out.index("Pod a is refused") < long.out.index("3 objects:")
        )
        findings = run("pods.yaml", "--profile", "production", "--output", "json").report["findings"]
        details = long.out.partition("pods.yaml (document 1): Pod a")[2].partition("pods.yaml (document 2)")[0]
        for finding in findings:
            if finding["resource"]["name"] == "a" and finding["path"]:
                assert details.count(finding["message"]) == 1, finding["message"]

    def test_shows_all_about_an_object_that_is_the_only_one_to_talk_about(self, run: Run) -> None:
        write(f"{pod('a')}---\n{json.dumps({'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'c'}})}")
        out = run("pods.yaml").out
        assert out.index("by object:") < out.index("Pod a is refused by")

    def test_obeys_no_hostile_name(self, run: Run) -> None:
        write(f"{pod(chr(27) + '[2Jx')}---\n{pod('b' + chr(0x202E))}", "\u202ex.yaml")
        out = run("\u202ex.yaml", "--verbose").out
        assert all(line.isprintable() for line in out.split("\n"))


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_there_are_colours_on_a_terminal_that_wants_them_alone(tmp_path: Path, variables: dict[str, str], *, coloured: bool) -> None:
    (tmp_path / "pod.yaml").write_text(pod("a"))
    command = [sys.executable, "-m", "mlwarden.cli.main", "check", str(tmp_path / "pod.yaml")]
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "PYTHONPATH": str(Path(judging.__file__).parents[2]), **variables}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        said = b""
        with open(ours, "rb", buffering=0, closefd=True) as terminal, open(theirs, "wb", closefd=True):  # noqa: PTH123 -- descriptors
            while b"1 object:" not in said:
                said += terminal.read(1000)
        process.wait(60)
    assert (b"\x1b[31m" in said) is coloured


def test_there_are_no_colours_in_a_pipe(run: Run) -> None:
    write(pod("a"))
    assert "\x1b" not in run("pods.yaml", "--verbose").out
