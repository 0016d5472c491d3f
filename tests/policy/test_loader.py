"""A policy is read, or refused with the path of the field and what to do."""

from contextlib import suppress
from typing import Any

import pytest

from mlwarden import policy
from mlwarden.errors import InputError, PolicyError

SPEC = """
  profiles: {production: Deny}
  requirement: {expression: {expression: "true"}}
  message: a
  why: b
  fix: {text: c}
"""


def text(spec: str = SPEC, name: str = "one") -> str:
    return f"apiVersion: mlwarden.io/v1alpha1\nkind: WardenPolicy\nmetadata: {{name: {name}}}\nspec:{spec}"


def test_the_pack_is_the_folder_of_the_file() -> None:
    (found,) = policy.load([("somewhere/production/one.yaml", text())])
    assert (found.name, found.pack) == ("one", "production")


def test_policies_come_sorted_whatever_the_order_of_files() -> None:
    files = [("b.yaml", text(name="zeta") + "---\n" + text(name="alpha")), ("a.yaml", text(name="middle"))]
    assert [each.name for each in policy.load(files)] == ["alpha", "middle", "zeta"]


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"b\.yaml: there is another policy called one"):
        policy.load([("a.yaml", text()), ("b.yaml", text())])


def test_a_list_as_kubectl_prints_it_is_its_policies() -> None:
    items = "".join(f"- {text(name=name).replace(chr(10), chr(10) + '  ')}\n" for name in ("one", "two"))
    found = policy.load([("a.yaml", f"apiVersion: v1\nkind: List\nitems:\n{items}")])
    assert [each.name for each in found] == ["one", "two"]


def test_exceptions_are_refused_while_nobody_can_grant_one() -> None:
    with pytest.raises(PolicyError, match="there are no exceptions yet"):
        policy.load([("a.yaml", text(f"{SPEC}  exceptions: true\n"))])
    (found,) = policy.load([("a.yaml", text(f"{SPEC}  exceptions: false\n"))])
    assert not policy.not_compiled(found)


def test_a_file_that_is_not_yaml_is_named_with_the_place() -> None:
    with pytest.raises(InputError, match=r"a\.yaml: not YAML.*line 2"):
        policy.load([("a.yaml", "a: b\n c: [")])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("production: Deny", "production: Refuse"), "spec.profiles"),
        (("{production: Deny}", "{}"), "spec.profiles"),
        (("production: Deny", "a b: Deny"), "not the name of a profile"),
        (('{expression: {expression: "true"}}', "{}"), "exactly one requirement"),
        (('{expression: {expression: "true"}}', '{expression: {expression: "true"}, imageScan: {}}'), "exactly one requirement"),
        (('expression: "true"', "expression: true"), "spec.requirement.expression.expression"),
        (('expression: "true"', 'expression: "true", forEach: objects'), "forEach"),
        (('expression: "true"', 'expression: "true", forEach: object'), "forEach: object needs match.resources"),
        (("message: a", 'message: "a\\nb"'), "message must be one line"),
        (("message: a", 'message: "a\\n"'), "message must be one line"),
        (("message: a", f"message: {'x' * 301}"), "spec.message"),
        (("message: a", "message: ''"), "spec.message"),
        (("why: b\n", "\n"), "why"),
        (("why: b", "why: b\n  unheard: c"), "unheard"),
        (("why: b", "why: b\n  severity: fatal"), "severity"),
        (("{text: c}", '{text: "c\\n"}'), "text must be one line"),
        (('{expression: {expression: "true"}}', "{imageScan: {maxAge: 7}}"), "spec.requirement.imageScan.maxAge"),
        (('{expression: {expression: "true"}}', "{imageScan: {maxAge: '7'}}"), "maxAge is a whole number with a unit"),
        (('{expression: {expression: "true"}}', "{imageScan: {severity: high}}"), "severity is CRITICAL"),
        (('{expression: {expression: "true"}}', "{imageScan: {maximum: {high: 1}}}"), "maximum names severities"),
        (('{expression: {expression: "true"}}', "{imageScan: {maximum: {HIGH: -1}}}"), "spec.requirement.imageScan.maximum"),
        (('{expression: {expression: "true"}}', "{imageScan: {databaseMaxAge: '3'}}"), "databaseMaxAge is a whole number"),
        (("why: b", "why: b\n  match: {objectSelector: {matchExpressions: [{key: a, operator: In}]}}"), "In and NotIn need values"),
        (("why: b", "why: b\n  match: {conditions: [{name: a, expression: b}, {name: a, expression: c}]}"), "same name"),
        (("why: b", "why: b\n  match: {resources: [{apiGroups: [''], resources: [pods/exec]}]}"), "resources"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1][:40].replace("\n", " "),
)
def test_nonsense_is_refused_with_the_path_of_the_field(change: tuple[str, str], says: str) -> None:
    spec = SPEC.replace(*change)
    assert spec != SPEC
    with pytest.raises(PolicyError) as caught:
        policy.load([("a.yaml", text(spec))])
    assert says in caught.value.message
    assert caught.value.message.startswith("a.yaml: policy one: ")


@pytest.mark.parametrize("name", ["One", "a.b", "-a", "a" * 64, "a_b", '"a\\n"'])
def test_a_name_is_a_dns_label(name: str) -> None:
    with pytest.raises(PolicyError, match="DNS label"):
        policy.load([("a.yaml", text(name=name))])


@pytest.mark.parametrize("manifest", [None, [], 1, "x", {}, {"apiVersion": "v1", "kind": "Pod"}, {"kind": "WardenPolicy"}])
def test_something_else_is_refused(manifest: Any) -> None:
    with pytest.raises(PolicyError, match="not a WardenPolicy"):
        policy.parse(manifest)


def test_nulls_are_pruned_as_the_api_server_does_but_not_those_of_a_patch() -> None:
    (document,) = policy.yaml_loads(text(SPEC.replace("{text: c}", "{text: c, patch: {a: null}}") + "  references: null\n"))
    assert policy.parse(document).spec.fix.patch == {"a": None}


def test_what_kubectl_adds_to_an_object_is_no_obstacle() -> None:
    (document,) = policy.yaml_loads(text())
    document["metadata"].update(uid="1", resourceVersion="2", managedFields=[{}])
    document["status"] = {"conditions": []}
    assert policy.parse(document).name == "one"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("object.spec.", "spec.requirement.expression"),
        ("container.name == 'a'", "container"),
        ("oldObject == object", "oldObject"),
        ("object.spec.hostNetwork", "bool"),
        ("'a'", "bool"),
        ("authorizer.group('').allowed()", "authorizer"),
        ("nothing(object)", "nothing"),
    ],
)
def test_cel_that_does_not_compile_is_refused(expression: str, says: str) -> None:
    (found,) = policy.load([("a.yaml", text(SPEC.replace('"true"', f'"{expression}"')))])
    if expression == "object.spec.hostNetwork":
        return  # its type is only known when it runs
    with pytest.raises(PolicyError) as caught:
        policy.compile_policy(found)
    assert says in caught.value.diagnostics()
    assert "policy one" in caught.value.message


def test_a_condition_that_does_not_compile_is_refused_by_name() -> None:
    spec = SPEC + "  match: {conditions: [{name: mine, expression: 'container == 1'}]}\n"
    (found,) = policy.load([("a.yaml", text(spec))])
    with pytest.raises(PolicyError, match="mine"):
        policy.compile_policy(found)


def test_a_placeholder_that_is_never_filled_is_refused() -> None:
    (found,) = policy.load([("a.yaml", text(SPEC.replace("message: a", "message: 'a {nmae}'")))])
    with pytest.raises(PolicyError, match="nmae"):
        policy.compile_policy(found)


def test_deep_nesting_is_refused_like_everything_else() -> None:
    patch: Any = {}
    for _ in range(3000):
        patch = {"a": patch}
    (document,) = policy.yaml_loads(text())
    document["spec"]["fix"]["patch"] = patch
    with suppress(PolicyError):
        policy.parse(document)
