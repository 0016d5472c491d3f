"""Texts are split into documents as YAML itself splits them, and end in a sentence where they do not end by themselves."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlwarden.cli import texts
from mlwarden.errors import InputError
from mlwarden.model.documents import yaml_loads

PIECES = [
    *(b"---\n", b"--- # comment\n", b"---\r\n", b"--- {x: y}\n", b"-----\n", b"...\n", b"\n", b"# only a comment\n"),
    *(b"a: 1\n", b"b: |\n  ---\n  x\n", b"c: '---'\n", b"%YAML 1.1\n---\n", b"d: \xc3\xa9\n", b"---", b"e: ---\n"),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(raw=b"---# only a comment\n", block=1)
@given(raw=st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), block=st.sampled_from([1, 2, 3, 7, 1000]))
def test_documents_apart_are_the_documents_of_the_whole(raw: bytes, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_BLOCK", block)
    found = list(texts.parts(io.BytesIO(raw)))
    for part in found:
        assert raw[part.start : part.end] == part.raw
        assert part.line == raw[: part.start].count(b"\n") + 1
    try:
        whole = yaml_loads(raw.decode())
    except InputError:
        return
    try:
        apart = [document for part in found for document in yaml_loads(part.text())]
    except InputError:
        return  # a directive in the midst: kubectl does not read that either, and it is told
    assert apart == whole


class Endless(io.RawIOBase):
    """As much as anybody asks for."""

    def __init__(self, line: bytes) -> None:
        self._line = line
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += size
        return (self._line * (size // len(self._line) + 1))[:size]


def read(stream: io.RawIOBase) -> Iterator[texts.Part]:
    return texts.parts(stream)  # type: ignore[arg-type]  # all that is asked of it is read()


@pytest.mark.parametrize("line", [b"\x00", b"a: 1\n", b"---\na: 1\n", b"#\n", b"--", b"...\n"])
def test_a_stream_without_end_ends_in_a_sentence(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LARGEST", 4_000_000)
    monkeypatch.setattr(texts, "LARGEST_DOCUMENT", 1_000_000)
    stream = Endless(line)
    with pytest.raises(InputError, match="what comes after is not read"):
        for _ in read(stream):
            pass
    assert stream.given <= 4_000_001


def test_a_document_that_is_too_large_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LARGEST_DOCUMENT", 1000)
    monkeypatch.setattr(texts, "_BLOCK", 100)
    raw = b"a: 1\n---\n" + b"b: 1\n" * 1000 + b"---\nc: 1\n---\nd: 1\n"
    found = list(texts.parts(io.BytesIO(raw)))
    assert [bool(part.error) for part in found] == [False, True, False, False]
    assert [yaml_loads(part.text()) for part in found if not part.error] == [[{"a": 1}], [{"c": 1}], [{"d": 1}]]
    assert found[2].line == 1003
    assert found[2].raw == raw[found[2].start : found[2].end]


def test_a_byte_order_mark_is_no_text() -> None:
    (part,) = texts.parts(io.BytesIO(b"\xef\xbb\xbfa: 1\n"))
    assert (part.text(), part.start, part.line) == ("a: 1\n", 3, 1)


def test_bytes_that_are_no_text_are_named_with_their_place() -> None:
    good, bad = texts.parts(io.BytesIO(b"a: 1\n---\nb: 2\nc: \xe9\n"))
    assert good.text() == "a: 1\n"
    with pytest.raises(InputError, match=r"byte 17 \(line 4\) is 0xe9"):
        bad.text()


def test_a_pipe_is_read_where_somebody_names_it_and_never_waited_for_elsewhere(tmp_path: Path) -> None:
    pipe = tmp_path / "pod.yaml"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a file but a pipe"), texts.opened(pipe, named=False):
        pass
    keeper = os.open(pipe, os.O_RDWR)
    try:
        with texts.opened(pipe, named=True) as stream:
            os.write(keeper, b"a: 1\n")
            assert stream.read(5) == b"a: 1\n"
    finally:
        os.close(keeper)
