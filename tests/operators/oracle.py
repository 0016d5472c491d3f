"""The oracle: the pods that an operator made are the pods that extraction predicted, and what the operator is known to add."""

from collections.abc import Mapping
from typing import Any

from mlwarden.workloads import extract

from . import added, facts  # type: ignore[import-not-found]


def as_predicted(obj: dict[str, Any], pods: list[dict[str, Any]], *operators: str, joined: Mapping[str, str] | None = None) -> None:
    """Each pod is one of the predicted ones with nothing missing and nothing added that is not listed; each predicted one was made.

    Args:
        obj: what was applied.
        pods: what was made of it.
        operators: by whom.
        joined: path of a container that stands alone in the object → path of the pod that it is made a part of.
    """
    predicted = {pod.path: facts.predicted(pod) for pod in extract(obj).pods}
    for part, whole in (joined or {}).items():
        predicted[whole] |= predicted.pop(part)
    expected = list(predicted.values())
    made: set[int] = set()
    for pod in pods:
        found = added.as_written(facts.of_pod(pod["spec"]), obj, *operators)
        index = min(range(len(expected)), key=lambda each: len(expected[each] ^ found))
        made.add(index)
        name = pod["metadata"]["name"]
        assert added.unexplained(found, expected[index], *operators) == [], f"{name} has what nobody predicted"
        assert sorted(expected[index] - found) == [], f"{name} lacks what was predicted"
    assert made == set(range(len(expected))), "a predicted pod was never made"
