"""What fits, with numbers that are made up."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.room import Room, at_once

GIB = 1 << 30


class Usage(NamedTuple):
    """As `shutil.disk_usage` returns it."""

    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(20 * GIB, 2 * GIB, 18 * GIB))


@pytest.mark.usefixtures("disk")
def test_a_large_image_waits_for_another_and_small_ones_go_on_beside_it(tmp_path: Path) -> None:
    room = Room(tmp_path)
    with room.held(8 * GIB):
        with pytest.raises(TransientError, match="an image of 8192 MiB waits for room"), room.held(8 * GIB):
            pass
        with room.held(GIB), room.held(GIB):
            pass
    with room.held(8 * GIB):
        pass


@pytest.mark.usefixtures("disk")
def test_no_image_is_too_large_when_it_is_alone_and_none_may_take_more_than_half(tmp_path: Path) -> None:
    room = Room(tmp_path)
    with room.held(100 * GIB):
        pass
    assert room.share == 10 * GIB


@pytest.mark.usefixtures("disk")
def test_a_part_of_the_disk_may_be_all_there_is(tmp_path: Path) -> None:
    room = Room(tmp_path, most=4 * GIB)
    assert room.share == 2 * GIB
    with room.held(GIB), room.held(GIB // 2), pytest.raises(TransientError), room.held(GIB):
        pass


def test_as_many_run_as_fit_into_memory_and_always_one() -> None:
    assert at_once(768 << 20, memory=5 * GIB) == 6
    assert at_once(768 << 20, memory=GIB // 2) == 1
    assert at_once(64 << 20) > 1
