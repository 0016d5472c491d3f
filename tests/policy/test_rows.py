"""Objects of the table's kinds as their operators' documentation writes them: what their pods are, what is refused, and that its fix helps.

Each file of `rows/` has good objects, with the containers of every pod that is predicted of them, and changes that make one of them bad.
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlwarden import workloads
from mlwarden.checks import Answer
from mlwarden.model.finding import Outcome
from mlwarden.policy import CompiledPolicy

Judge = Callable[[CompiledPolicy, Any], Iterable[Answer]]
Asked = Callable[[Mapping[str, Any]], list[tuple[str, Answer]]]

FILES = sorted((Path(__file__).parent / "rows").glob("*.yaml"))
ROWS = {file.stem: json.loads(json.dumps(yaml.safe_load(file.read_text()))) for file in FILES}
GOOD = [pytest.param(each, id=f"{row}: {each['about']}") for row, found in ROWS.items() for each in found["good"]]
BAD = [pytest.param(found["good"], each, id=f"{row}: {each['about']}") for row, found in ROWS.items() for each in found["bad"]]
INSTRUCTION = re.compile(r"set (?P<patch>.+) in (?P<where>\S+)")
STEP = re.compile(r"\.?(?:([^.\[\]]+)|\[(\d+|\"[^\"]+\")\])")


@pytest.fixture
def asked(shipped: Mapping[str, CompiledPolicy], judge: Judge) -> Asked:
    """What is not as a shipped policy wants it; what has no answer counts as well, but for the evidence that nobody has here."""

    def found(obj: Mapping[str, Any]) -> list[tuple[str, Answer]]:
        answers = [(name, answer) for name, compiled in shipped.items() if name != "image-scanned" for answer in judge(compiled, obj)]
        return [(name, answer) for name, answer in answers if answer.outcome is not Outcome.PASS]

    return found


def steps(path: str) -> Iterator[str | int]:
    for name, inside in STEP.findall(path):
        yield name or json.loads(inside)


def changed(obj: Mapping[str, Any], path: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The object with another value at a path, whose parents are made where there are none."""
    result: Any = copy.deepcopy(obj)
    *parents, last = steps(path)
    held = result
    for step in parents:
        held = held[step] if isinstance(held, list) else held.setdefault(step, {})
    if isinstance(held, list):
        held[last] = change(held[last])
    else:
        held[last] = change(held.get(last))
    return dict(result)


def over(below: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    below = below if isinstance(below, dict) else {}
    return {**below, **{key: over(below.get(key), value) for key, value in patch.items()}}


@pytest.mark.parametrize("sample", GOOD)
def test_what_the_documentation_writes_hardened_is_admitted_and_its_pods_are_known(sample: Mapping[str, Any], asked: Asked) -> None:
    workload = workloads.extract(sample["object"])
    assert workload.known
    found = {pod.path: {each.name: each.body.get("image", "") for each in pod.containers} for pod in workload.pods if pod.containers}
    assert found == sample["pods"]
    assert sample.get("images") in (None, [image.reference for image in workload.images])
    assert [(name, answer.path) for name, answer in asked(sample["object"])] == []


@pytest.mark.parametrize(("good", "sample"), BAD)
def test_what_is_bad_is_refused_where_it_is_written_and_its_fix_helps(good: Any, sample: Mapping[str, Any], asked: Asked) -> None:
    obj = good[sample.get("of", 0)]["object"]
    for path, value in sample["set"].items():
        obj = changed(obj, path, lambda _, value=value: value)
    answers = asked(obj)
    first = next(iter(sample["set"]))
    wanted = {(name, path or first) for name, paths in sample["fails"].items() for path in (paths if isinstance(paths, list) else [paths])}
    assert {(name, answer.path) for name, answer in answers} == wanted
    for name, answer in answers:
        if shown := INSTRUCTION.fullmatch(answer.fix):
            patch = yaml.safe_load("{" + shown["patch"] + "}")
            mended = changed(obj, shown["where"], lambda below, patch=patch: over(below, patch))
            assert (name, answer.path) not in {(other, each.path) for other, each in asked(mended)}
