"""`fixing`: fixes written into a manifest's text."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlwarden import policy, workloads
from mlwarden.cli import fixing, judging, manifests, rules
from mlwarden.errors import InputError
from mlwarden.model.finding import Decision, Verdict
from mlwarden.model.policy import Settings
from mlwarden.policy import yaml_loads

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = rules.shipped(("registry.example", "registry.example.com"))
BAD = """\
# why it is here
apiVersion: v1
kind: Pod
metadata: {name: trainer, namespace: team}  # ours
spec:
  hostNetwork: true
  containers:
    - name: main   # the trainer
      image: 'registry.example/a:1'
      securityContext:
        privileged: true  # was for the driver
      args: ["0777", 'yes', on]
"""
OTHER = "---\n# not ours\nkind:   ConfigMap\napiVersion: v1\nmetadata:   {name: x}\ndata: {a: \"1\",   b: 'yes'}\n"


def judge(profile: str = "baseline") -> Callable[[Mapping[str, Any]], Verdict | None]:
    def judged(body: Mapping[str, Any]) -> Verdict | None:
        item = manifests.Manifest(origin=manifests.Origin(file="x", label="x"), object=dict(body))
        return next(judging.judge([item], RULES, Settings(), profile=profile, now=datetime.now(UTC))).verdict

    return judged


def decision(text: str, profile: str = "baseline") -> list[Decision]:
    return [verdict.decision for body in yaml_loads(text) if (verdict := judge(profile)(body))]


def test_a_refused_pod_is_admitted_and_keeps_its_comments() -> None:
    assert decision(BAD) == [Decision.DENY]
    done = fixing.fixed(BAD, judge())
    assert decision(done.text) == [Decision.ADMIT]
    for kept in ("# why it is here", "# ours", "# the trainer", "'registry.example/a:1'", "args: [\"0777\", 'yes', on]"):
        assert kept in done.text
    assert done.applied == 2
    assert done.left == ()


def test_fixing_twice_changes_nothing() -> None:
    once = fixing.fixed(BAD, judge("production"))
    twice = fixing.fixed(once.text, judge("production"))
    assert once.applied
    assert (twice.text, twice.applied) == (once.text, 0)


def test_a_good_manifest_stays_as_it_is_to_the_byte() -> None:
    good = BAD.replace("  hostNetwork: true\n", "").replace("privileged: true", "privileged:   false")
    assert fixing.fixed(good, judge()) == fixing.Fixed(text=good, applied=0, left=())


def test_other_documents_stay_as_they_are_to_the_byte() -> None:
    done = fixing.fixed(f"{OTHER}---\n{BAD}{OTHER}", judge())
    assert done.text.startswith(OTHER)
    assert done.text.endswith(OTHER)
    assert decision(done.text)[1] is Decision.ADMIT


def test_carriage_returns_and_a_byte_order_mark_stay() -> None:
    done = fixing.fixed("\ufeff" + BAD.replace("\n", "\r\n"), judge())
    assert done.applied == 2
    assert done.text == "\ufeff" + fixing.fixed(BAD, judge()).text.replace("\n", "\r\n")


def test_lines_that_end_in_different_ways_are_left() -> None:
    text = BAD.replace("\n", "\r\n", 3)
    done = fixing.fixed(text, judge())
    assert (done.text, done.applied) == (text, 0)
    assert done.left


def test_items_of_a_list_are_fixed() -> None:
    inner = "\n".join(f"    {line}" for line in BAD.splitlines()[1:])
    text = f"apiVersion: v1\nkind: List\nitems:\n  -\n{inner}\n"
    done = fixing.fixed(text, judge())
    assert done.applied == 2
    assert [judge()(item).decision for item in yaml_loads(done.text)[0]["items"]] == [Decision.ADMIT]  # type: ignore[union-attr]


def test_an_anchor_that_something_else_uses_is_left_alone_and_said() -> None:
    text = BAD.replace(
        "      securityContext:\n        privileged: true  # was for the driver\n",
        "      securityContext: &both\n        privileged: true\n",
    )
    text = text.replace("spec:\n", "x-copy: &unused {}\nspec:\n") + "  extra: *both\n"
    done = fixing.fixed(text, judge())
    assert (done.text, done.applied) == (text, 0)
    assert "change something else" in done.left[0]


NAMED = """
apiVersion: mlwarden.io/v1alpha1
kind: WardenPolicy
metadata: {name: odd}
spec:
  profiles: {"*": Deny}
  requirement: {expression: {forEach: %s, expression: "%s", path: ""}}
  message: is odd
  why: so that it is found
  fix: {patch: %s, text: mend it}
"""


@pytest.mark.parametrize(
    ("each", "expression", "change"),
    [
        ("container", "container.image == 'b'", "{image: b}"),
        ("container", "container.name == 'b'", "{name: b}"),
        ("pod", "size(object.spec.containers) == 0", "{spec: {containers: []}}"),
        ("pod", "has(object.metadata.annotations)", "{metadata: {annotations: {mlwarden.io/exception: x}}}"),
    ],
)
def test_no_policy_makes_it_change_an_image_a_container_or_an_exception(each: str, expression: str, change: str) -> None:
    odd = policy.compile_policy(policy.load([("odd.yaml", NAMED % (each, expression, change))])[0])
    only = rules.Policies(compiled=(odd,), broken={})

    def judged(body: Mapping[str, Any]) -> Verdict | None:
        item = manifests.Manifest(origin=manifests.Origin(file="x", label="x"), object=dict(body))
        return next(judging.judge([item], only, Settings(), profile="baseline", now=datetime.now(UTC))).verdict

    before = judged(yaml_loads(BAD)[0])
    assert before is not None
    assert before.edits, "the policy has an edit to offer, or this proves nothing"
    assert fixing.fixed(BAD, judged).text == BAD


def test_a_policys_own_harmless_edit_is_written() -> None:
    odd = policy.compile_policy(policy.load([("odd.yaml", NAMED % ("container", "has(container.tty)", "{tty: false}"))])[0])
    only = rules.Policies(compiled=(odd,), broken={})

    def judged(body: Mapping[str, Any]) -> Verdict | None:
        item = manifests.Manifest(origin=manifests.Origin(file="x", label="x"), object=dict(body))
        return next(judging.judge([item], only, Settings(), profile="baseline", now=datetime.now(UTC))).verdict

    assert "      tty: false" in fixing.fixed(BAD, judged).text


@pytest.mark.parametrize("profile", ["baseline", "experiment", "production"])
def test_every_example_that_only_edits_could_mend_is_mended(profile: str) -> None:
    mended = 0
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        text = path.read_text()
        done = fixing.fixed(text, judge(profile))
        assert not done.left, path
        for before, after in zip(yaml_loads(text), yaml_loads(done.text), strict=True):
            old, new = judge(profile)(before), judge(profile)(after)
            assert old is not None
            assert new is not None
            assert not new.edits, (path, new.edits)
            assert workloads.extract(before).images == workloads.extract(after).images
            mended += old.is_refused and not new.is_refused
    assert mended


def test_rewriting_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_bytes(b"a")
    path.chmod(0o640)
    fixing.rewrite(path, b"a", b"b")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"b", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_bytes(b"a")
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    with pytest.raises(InputError, match="symbolic links"):
        fixing.rewrite(tmp_path / "link.yaml", b"a", b"b")
    assert (tmp_path / "real.yaml").read_bytes() == b"a"


def test_a_file_that_changed_meanwhile_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_bytes(b"newer")
    with pytest.raises(InputError, match="changed"):
        fixing.rewrite(path, b"a", b"b")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_diff_says_what_would_be_written() -> None:
    said = fixing.diff("pod.yaml", BAD, fixing.fixed(BAD, judge()).text)
    assert "--- a/pod.yaml" in said
    assert "-  hostNetwork: true" in said
    assert fixing.diff("pod.yaml", BAD, BAD) == ""
