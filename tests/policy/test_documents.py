"""YAML and JSON as kubectl reads them; what would be read two ways, or blow up, is refused with its place."""

import json
import math
import subprocess
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.errors import InputError
from mlwarden.policy import yaml_loads

WORDS = [
    *("y", "Y", "yes", "Yes", "YES", "yEs", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "oFF"),
    *("true", "True", "TRUE", "tRUE", "false", "False", "FALSE", "~", "null", "Null", "NULL", "nULL", "", "<<"),
    *("2026-12-15", "2026-12-15T10:00:00Z", "2026-1-2 10:00:00", "22:22", "1:30:00", "12e", "0", "-0", "00", "007", "0777", "08", "0o17"),
    *("0x1F", "0X1f", "0b101", "-0b11", "+12", "-12", "1_000", "1__0", "_1", "1_", "+_1", "1e3", "1E3", "1e+3", "1.", ".5", "-.5", "+.5"),
    *("1.5e-3", ".5e3", "._5", "1.2.3", "1,000", "9223372036854775807", "-9223372036854775808", "-", "+", ".", "..", "0x", "0b", "0b2"),
    *("1e400", "0.1", "100m", "4Gi", "v1", "1.0", "a: b", "a #b", "é", "=", "0_7", "0x_1", "1e", "e1", "\u0661"),
]


def kubectl_reads(words: list[str]) -> list[Any]:
    from mlwarden.embedded.build import binary

    body = "\n".join(f"- {word}" for word in words)
    text = f"apiVersion: example.com/v1\nkind: Any\nmetadata: {{name: a}}\nspec:\n{body}\n"
    command = [str(binary("kubectl")), "label", "--local", "-f", "-", "-o", "json", "a=b"]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    read: list[Any] = json.loads(found.stdout)["spec"]
    return read


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return not isinstance(one, str | bool) and not isinstance(other, str | bool) and math.isclose(one, other, rel_tol=1e-15)
    return type(one) is type(other) and bool(one == other)


def test_a_word_means_what_kubectl_says_it_means() -> None:
    words = [word for word in WORDS if word != "a: b"]
    (ours,) = yaml_loads("\n".join(f"- {word}" for word in words))
    for word, mine, theirs in zip(words, ours, kubectl_reads(words), strict=True):
        assert same(mine, theirs), (word, mine, theirs)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.from_regex(r"[-+.0-9]?[0-9_xobe.+TZ:yn-]{0,7}", fullmatch=True), min_size=50, max_size=100))
def test_generated_words_mean_what_kubectl_says(words: list[str]) -> None:
    def harmless(word: str) -> bool:  # YAML's own syntax, and numbers that lose precision on their way through kubectl
        try:
            (value,) = yaml_loads(f"- {word}")
        except InputError:
            return False
        return not word.startswith("- ") and word not in {"-", "---", "..."} and not (isinstance(value[0], int) and abs(value[0]) > 2**53)

    kept = [word for word in words if harmless(word)] or ["1"]
    (ours,) = yaml_loads("\n".join(f"- {word}" for word in kept))
    for word, mine, theirs in zip(kept, ours, kubectl_reads(kept), strict=True):
        assert same(mine, theirs), (word, mine, theirs)


def test_a_merge_key_is_only_a_word_where_no_key_stands() -> None:
    assert yaml_loads("<<") == ["<<"]
    assert yaml_loads("- <<\n- a: <<\n- '<<': 1") == [["<<", {"a": "<<"}, {"<<": 1}]]
    assert yaml_loads("<<: {a: 1}\na: 2\nb: 3") == [{"a": 2, "b": 3}]


def test_quoted_words_are_text() -> None:
    assert yaml_loads("""[ "y", 'no', "2026-12-15", !!str 22, ! 7 ]""") == [["y", "no", "2026-12-15", "22", "7"]]


def test_keys_become_text_as_in_json() -> None:
    assert yaml_loads("on: 1\n2: b\nfalse: c") == [{"true": 1, "2": "b", "false": "c"}]


def test_a_key_in_another_notation_is_refused() -> None:
    for word in ("700e7", "1.0", ".5e1"):
        with pytest.raises(InputError, match=r"another notation|fraction"):
            yaml_loads(f"{word}: 1")
    assert yaml_loads("0xE: 1\n10: 2\ntrue: 3") == [{"14": 1, "10": 2, "true": 3}]


def test_documents_are_separate_and_empty_ones_are_left_out() -> None:
    assert yaml_loads("a: 1\n---\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_json_is_read_as_json() -> None:
    assert yaml_loads('{"a": "2026-12-15",\n\t"b": [1, 2.5, null]}\n{"c": "y"}') == [{"a": "2026-12-15", "b": [1, 2.5, None]}, {"c": "y"}]


def test_flow_style_is_not_mistaken_for_json() -> None:
    assert yaml_loads("{a: b, c: [d]}") == [{"a": "b", "c": ["d"]}]


def test_aliases_are_copies() -> None:
    (found,) = yaml_loads("a: &x {b: [1]}\nc: *x\n")
    found["a"]["b"].append(2)
    assert found["c"] == {"b": [1]}


def test_merge_keys_give_way_to_what_is_written() -> None:
    text = "base: &base {a: 1, b: 2}\nover: &over {b: 3, c: 4}\none: {<<: *base, a: 5}\ntwo: {<<: [*over, *base]}\n"
    (found,) = yaml_loads(text)
    assert found["one"] == {"a": 5, "b": 2}
    assert found["two"] == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands twice in one mapping in line 3"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ("on: 1\ntrue: 2", "'true' stands twice"),
        ("a: !!python/object/apply:os.system [id]", "tag"),
        ("a: !custom b", "tag !custom is not known in line 1, column 4"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!set {b}", "tag"),
        ("a: !!int b", "not of the type !!int"),
        ("a: &x [*x]", "contains itself"),
        ("a: *x", "alias"),
        ("a: .nan", "not a number in JSON"),
        ("a: -.inf", "not a number in JSON"),
        ("? [a]\n: b", "key"),
        ("~: b", "key"),
        ("1.5: b", "key"),
        ("x: &x {a: 1}\ny: {a: 2, <<: *x}", "<< comes after"),
        ("y: {<<: 1}", "<< takes a mapping"),
        ("a: [", "not YAML"),
        ("a:\n\t- b", "line 2"),
        ("a: b\x00", "not YAML"),
        ("[" * 202 + "]" * 202, "nested more than 200"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 100_000, "nested"),
        ('{"a": 1e400}', "too large"),
        ('{"a": ' + "1" * 5000 + "}", "too large"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a\\udfff": 1}', "surrogate"),
        ('{"a": NaN}', "NaN is not JSON"),
    ],
    ids=lambda value: value[:24].replace("\n", " ").replace("\x00", "NUL"),
)
def test_what_is_not_plain_data_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(InputError, match=r".") as caught:
        yaml_loads(text)
    assert says in caught.value.message


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]" for index in range(1, 10)]
    with pytest.raises(InputError, match="aliases add more than"):
        yaml_loads("\n".join(lines))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"#,?% \n\t~1<")), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        json.dumps(yaml_loads(text))


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_survives(value: Any) -> None:
    document = {"value": value}
    assert yaml_loads(json.dumps(document)) == [document]
