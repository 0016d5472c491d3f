"""What other people wrote, made safe to print."""

import re

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlwarden.checks.text import clean, fill, flow, shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("https://bob:hunter2@reg.io/x", "https://…@reg.io/x"),
        ("bob:hunter2@reg.io/x", "…@reg.io/x"),
        ("bob:hunter2@shared.io/x", "…@shared.io/x"),
        ("bob:hunter2@sha256:5000/x", "…@sha256:5000/x"),
        ("image bob:hunter2@reg.io/x is bad", "image …@reg.io/x is bad"),
        ("reg.io/app:1@sha256:" + "a" * 64, "reg.io/app:1@sha256:" + "a" * 64),
        ("app:1@sha256:" + "a" * 64, "app:1@sha256:" + "a" * 64),
    ],
)
def test_a_password_before_a_host_is_never_shown(written: str, shown: str) -> None:
    assert clean(written) == shown


def test_what_was_written_to_keep_a_pattern_busy_is_cut_like_anything_else() -> None:
    assert len(clean("@/" + "!:" * 500_000)) == 500


@given(st.text(alphabet=st.characters(), max_size=2000), st.integers(10, 300))
@settings(max_examples=200, deadline=None)
def test_cleaned_text_is_one_bounded_printable_line(text: str, length: int) -> None:
    said = clean(text, length)
    assert len(said) <= length
    assert said.isprintable()
    said.encode()


def test_terminal_escapes_and_direction_overrides_are_shown_not_sent() -> None:
    assert clean("a\x1b[31mb\u202ec\nd\u200b") == r"a\x1b[31mb\u202ec\nd\u200b"


def test_a_password_in_a_url_is_cut_out_even_where_the_text_is_cut_too() -> None:
    assert clean("from https://bob:hunter2@example.org/x") == "from https://…@example.org/x"
    assert "hunter2" not in clean("https://bob:" + "hunter2" * 200 + "@example.org/x", 100)


def test_placeholders_are_filled_once() -> None:
    said = fill("{name} has {value}", name="{value}", value="{image}", image="never", path="spec.x")
    assert said == "{value} has {image}"


def test_stray_braces_are_text() -> None:
    assert fill("{ {unknown} {name.__class__} {}", name="n", value=1, image="", path="") == "{ {unknown} {name.__class__} {}"


@pytest.mark.parametrize(
    "path",
    [
        "spec.containers[0].env[1].value",
        "spec.containers[0].env",
        "spec.containers[0].args[0]",
        "spec.containers[0].command",
        "stringData.password",
        "spec.volumes[0].csi.volumeAttributes.key",
        "spec.containers[0].livenessProbe.httpGet.httpHeaders[0].value",
    ],
)
def test_a_value_that_may_be_a_secret_is_never_shown(path: str) -> None:
    assert "hunter2" not in fill("it is {value}", name="x", value="hunter2", image="", path=path)
    assert "hunter2" not in fill("it is {value}", name="x", value=["hunter2"], image="", path=path)


def test_a_field_that_only_sounds_like_a_private_one_is_shown() -> None:
    assert shown(True, "spec.environment") == "true"


def test_whole_structures_are_not_shown() -> None:
    assert shown({"password": "x"}, "spec.volumes[0]") == "(not shown)"
    assert shown([{"password": "x"}], "spec.volumes") == "(not shown)"


def test_short_lists_of_scalars_are_shown() -> None:
    assert shown(["SYS_ADMIN", "NET_RAW"], "spec.containers[0].securityContext.capabilities.add") == "SYS_ADMIN, NET_RAW"


def test_flow_style_reads_as_a_line_of_a_manifest() -> None:
    assert flow({"securityContext": {"privileged": False}}, outermost=True) == "securityContext: {privileged: false}"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(alphabet=st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(re.compile("[a-zA-Z./-]{1,8}"), fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_JSON)
@example(".0")
@example(".inf")
@example("./x")
@settings(max_examples=200, deadline=None)
def test_flow_style_is_yaml_for_the_same_value(value: object) -> None:
    assert yaml.safe_load(flow(value)) == value
