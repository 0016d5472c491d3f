import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.errors import InputError
from mlwarden.model.reference import parse

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11", "docker.io/library/python:3.11"),
        ("huggingface/tgi", "docker.io/huggingface/tgi:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("index.docker.io/library/python", "docker.io/library/python:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("127.0.0.1:5000/a/b:1.0", "127.0.0.1:5000/a/b:1.0"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        ("nvcr.io/nvidia/pytorch:24.01-py3", "nvcr.io/nvidia/pytorch:24.01-py3"),
        (f"ghcr.io/a/b@{D}", f"ghcr.io/a/b@{D}"),
        (f"ghcr.io/a/b:1@{D}", f"ghcr.io/a/b:1@{D}"),
        ("a/b__c-d.e", "docker.io/a/b__c-d.e:latest"),
    ],
)
def test_a_reference_is_read_as_container_engines_read_it(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "A",
        "a/B",
        "a:",
        "a:b:c",
        "a@sha256:12",
        f"a@{D}@{D}",
        "a@md5:" + "a" * 32,
        "a//b",
        "/a",
        "a/",
        "http://a/b",
        "a b",
        "a:" + "t" * 129,
        "x.io/" + "a" * 300,
        "a\n",
        f"a@{D}\n",
        "é/a",
        "a..b",
        "[::1/a",
        "-a.io/x",
        "a" * 2000,
        "a.io:99999999/b",
    ],
)
def test_what_is_not_a_reference_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


@given(st.text(max_size=60) | st.from_regex(r"[a-zA-Z0-9./:@\[\]_-]{0,80}"))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_reference_or_an_input_error_and_the_canonical_form_is_stable(text: str) -> None:
    with contextlib.suppress(InputError):
        once = parse(text)
        assert parse(str(once)) == once
