"""What was known when the API server was last heard of is not what is so: after ten seconds nobody is judged by it."""

import secrets
from collections.abc import Callable, Iterator
from itertools import pairwise
from urllib.parse import urlsplit

import pytest

from mlwarden.model.policy import GATE, PROFILE_LABEL

from .line import Line  # type: ignore[import-not-found]
from .serving import DENIED, Installed, Serving, good_pod, said, until  # type: ignore[import-not-found]
from .test_serve import debugging  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
SENTENCE = "mlwarden has heard nothing from the API server for"


@pytest.fixture
def line(installed: Installed, serving: Serving) -> Iterator[Line]:
    """Between a webhook that serves and the API server."""
    with Line(int(urlsplit(installed.cluster.server).port or 0)) as made:
        serving.through = made.port
        serving.serve()
        yield made


def test_a_silent_snapshot_judges_nobody(
    installed: Installed, serving: Serving, line: Line, attack: Callable[[str, str, str], None]
) -> None:
    debug, before = debugging(installed), installed.failed_open()
    lenient = installed.cluster.create_namespace(f"{installed.settings.namespace}-moves", labels={PROFILE_LABEL: "baseline"})
    elsewhere = f"/api/v1/namespaces/{lenient}"
    line.die()
    installed.admin.patch(elsewhere, {"metadata": {"labels": {PROFILE_LABEL: "experiment"}}})
    until(lambda: SENTENCE in said(debug))
    node = said(lambda: installed.create(good_pod("p", nodeName="node-0")))
    assert SENTENCE in node
    assert installed.try_bad() == "created"  # by a rule that is Ignore: the gate holds
    assert installed.create(good_pod(f"p-{secrets.token_hex(3)}"))["spec"]["schedulingGates"] == [{"name": GATE}]
    assert installed.failed_open() > before
    moved = said(lambda: installed.admin.create(f"{elsewhere}/pods", good_pod("p", nodeName="node-0")))
    assert moved != "created"  # the webhook still thinks that this is baseline
    until(lambda: serving.probe().startswith("nothing heard from the API server for"))
    line.revive()
    until(lambda: DENIED in installed.try_bad())
    until(lambda: SENTENCE not in said(debug))
    until(lambda: serving.probe() == "ok")
    attack(
        "a watch that is silent while a namespace moves from baseline to experiment",
        "judged by the old profile for 80 s and more",
        "after 10 s an outage: what can be held is held, the rest is refused in a sentence",
    )


def test_an_idle_cluster_is_not_silent(serving: Serving) -> None:
    serving.serve()
    ages = []

    def sampled() -> bool:
        ages.append(serving.metric("mlwarden_snapshot_age_seconds"))
        return sum(later < earlier for earlier, later in pairwise(ages)) > 8

    until(sampled, seconds=60)
    assert max(ages) < 10
