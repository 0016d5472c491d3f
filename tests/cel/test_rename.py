"""`rename_root`: what is an identifier changes, everything that looks like one stays."""

import pytest

from mlwarden import cel

NAMES = {"object": "variables.pod", "container": "c"}


@pytest.mark.parametrize(
    ("source", "renamed"),
    [
        ("object.spec", "variables.pod.spec"),
        ("object", "variables.pod"),
        (" object . spec //object\n == container", " variables.pod . spec //object\n == c"),
        ("'object' + object.object['object']", "'object' + variables.pod.object['object']"),
        ("has(object.container) && object.?container[?'object'].hasValue()",
         "has(variables.pod.container) && variables.pod.?container[?'object'].hasValue()"),
        ("object.all(object, object.a == container)", "variables.pod.all(object, object.a == c)"),
        ("object.all(o, o.all(object, object)) && object.b", "variables.pod.all(o, o.all(object, object)) && variables.pod.b"),
        ("object.?a.optMap(object, object + container)", "variables.pod.?a.optMap(object, object + c)"),
        ("{'object': object, ?'container': object.?x}", "{'object': variables.pod, ?'container': variables.pod.?x}"),
        ("sets.contains(object, [container])", "sets.contains(variables.pod, [c])"),
        ("optional.of(object).value() == object.map(x, x, object)",
         "optional.of(variables.pod).value() == variables.pod.map(x, x, variables.pod)"),
        ('r"object" + """object""" + \'\'\'\nobject\'\'\' + object.x', 'r"object" + """object""" + \'\'\'\nobject\'\'\' + variables.pod.x'),
        ("-object.a + !container ? object : [object][0]", "-variables.pod.a + !c ? variables.pod : [variables.pod][0]"),
        ("'é' + object.a", "'é' + variables.pod.a"),
        ("objects.object", "objects.object"),
    ],
)  # fmt: skip
def test_only_free_root_identifiers_are_renamed(source: str, renamed: str) -> None:
    assert cel.rename_root(source, NAMES) == renamed


def test_a_macro_variable_that_would_capture_the_new_name_is_refused() -> None:
    with pytest.raises(cel.CelError, match="bound by a macro"):
        cel.rename_root("x.all(variables, object.a == variables)", NAMES)
    assert cel.rename_root("x.all(variables, variables.a)", NAMES) == "x.all(variables, variables.a)"


def test_an_expression_that_does_not_parse_is_refused() -> None:
    with pytest.raises(cel.CelError):
        cel.rename_root("object.", NAMES)


def test_renaming_to_itself_changes_nothing() -> None:
    source = "object.spec.containers.all(c, c.image.matches('a') // object\n || object.x == c)"
    assert cel.rename_root(source, {"object": "object"}) == source
