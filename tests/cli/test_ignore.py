"""Patterns of what is left out mean what they mean to git."""

from pathlib import Path

import pytest

from mlwarden.cli import ignore


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "out"),
    [
        ("values.yaml", "values.yaml", False, True),
        ("values.yaml", "deep/down/values.yaml", False, True),
        ("values.yaml", "deep/values.yaml.bak", False, False),
        ("*.json", "a/package.json", False, True),
        ("/values.yaml", "values.yaml", False, True),
        ("/values.yaml", "deep/values.yaml", False, False),
        ("a/*.yaml", "a/x.yaml", False, True),
        ("a/*.yaml", "a/b/x.yaml", False, False),
        ("a/*.yaml", "z/a/x.yaml", False, False),
        ("a/**/x.yaml", "a/x.yaml", False, True),
        ("a/**/x.yaml", "a/b/c/x.yaml", False, True),
        ("**/x.yaml", "x.yaml", False, True),
        ("examples/", "examples", True, True),
        ("examples/", "examples", False, False),
        ("./a/x.yaml", "a/x.yaml", False, True),
        ("[ab].yaml", "a.yaml", False, True),
        ("# a.yaml", "a.yaml", False, False),
        ("\\#a.yaml", "#a.yaml", False, True),
        ("", "a.yaml", False, False),
        ("/", "a.yaml", False, False),
    ],
)
def test_a_pattern(pattern: str, path: str, *, is_folder: bool, out: bool, tmp_path: Path) -> None:
    assert ignore.ignored(tmp_path / path, ignore.parse([pattern], tmp_path), is_folder=is_folder) is out


def test_the_last_pattern_about_a_path_counts(tmp_path: Path) -> None:
    patterns = ignore.parse(["*.json", "!keep.json"], tmp_path)
    assert ignore.ignored(tmp_path / "a.json", patterns, is_folder=False)
    assert not ignore.ignored(tmp_path / "keep.json", patterns, is_folder=False)


def test_a_pattern_is_about_its_own_folder_alone(tmp_path: Path) -> None:
    patterns = ignore.parse(["*.yaml"], tmp_path / "a")
    assert not ignore.ignored(tmp_path / "ab" / "x.yaml", patterns, is_folder=False)


def test_many_stars_take_no_time(tmp_path: Path) -> None:
    patterns = ignore.parse(["*a" * 60 + "b", "/".join(["**"] * 60) + "/b"], tmp_path)
    assert not ignore.ignored(tmp_path / "/".join(["a" * 200] * 15), patterns, is_folder=False)
