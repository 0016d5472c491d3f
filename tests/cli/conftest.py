"""Manifests on disk and the command in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlwarden.cli import check


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


Run = Callable[..., Done]
POLICY = """
apiVersion: mlwarden.io/v1alpha1
kind: WardenPolicy
metadata: {name: named-well}
spec:
  profiles: {"*": Deny}
  match: {resources: [{apiGroups: ["*"], resources: ["*"]}]}
  requirement: {expression: {forEach: object, expression: "object.metadata.name.startsWith('ml-')", path: metadata.name}}
  message: "{value} does not start with ml-"
  why: so that it is found
  fix: {text: rename it}
"""
"""A policy of the cluster's own, about every object."""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns a function that runs `mlwarden check` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def ran(*arguments: str) -> Done:
        code = check.main(arguments)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return ran
