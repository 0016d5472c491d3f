"""Objects of the table's kinds as their operators' documentation writes them: what their pods are, what is refused, and that its fix helps.

Each file of `rows/` has good objects, with the containers of every pod that is predicted of them, and changes that make one of them bad.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlwarden import workloads
from mlwarden.checks import Answer
from mlwarden.embedded import tables
from mlwarden.model.finding import Outcome
from mlwarden.policy import CompiledPolicy
from mlwarden.workloads.placeholders import is_placeholder

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


def changed(value: Any, path: list[str | int], new: Any) -> Any:
    """The value with another one laid over what is at a path, whose parents are made where there are none; a patch stays text."""
    if not path:
        return over(value, new)
    if isinstance(value, str):
        return json.dumps(changed(yaml.safe_load(value), path, new))
    step, *rest = path
    if isinstance(value, list):
        return [changed(each, rest, new) if index == step else each for index, each in enumerate(value)]
    held = value or {}
    return {**held, step: changed(held.get(step), rest, new)}


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
    for pod in workload.pods:
        silent = pod.partial or pod.lacks or any(each.partial or is_placeholder(str(each.body.get("image"))) for each in pod.containers)
        assert silent or [(name, answer.path) for name, answer in asked(workloads.template_as_pod(workload, pod))] == []


@pytest.mark.parametrize(("good", "sample"), BAD)
def test_what_is_bad_is_refused_where_it_is_written_and_its_fix_helps(good: Any, sample: Mapping[str, Any], asked: Asked) -> None:
    obj = good[sample.get("of", 0)]["object"]
    for path, value in sample["set"].items():
        obj = changed(changed(obj, [*steps(path)], None), [*steps(path)], value)
    answers = asked(obj)
    first = next(iter(sample["set"]))
    wanted = {(name, path or first) for name, paths in sample["fails"].items() for path in (paths if isinstance(paths, list) else [paths])}
    assert {(name, answer.path) for name, answer in answers} == wanted
    for name, answer in answers:
        if shown := INSTRUCTION.fullmatch(answer.fix):
            patch = yaml.safe_load("{" + shown["patch"] + "}")
            mended = changed(obj, [*steps(shown["where"])], patch)
            assert (name, answer.path) not in {(other, each.path) for other, each in asked(mended)}


def test_every_kind_of_the_table_has_an_object_here() -> None:
    shown = {(each["object"]["apiVersion"].rpartition("/")[0], each["object"]["kind"]) for found in ROWS.values() for each in found["good"]}
    assert {(row.group, row.kind) for row in workloads.KINDS} == shown


def test_the_document_has_every_kind() -> None:
    assert tables.document().read_text() == tables.kinds(), "python -m mlwarden.embedded.tables"
