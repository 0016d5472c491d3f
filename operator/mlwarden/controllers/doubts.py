"""Says which answers were taken back because a second look was worse, or because the pod they name did not write them.

The scanners find it out and write it down where everybody sees it (`status.secondLook`); they have no right to write Events. The leader
writes one about the evidence; `controllers.running` judges the pods that run such an image again, as after every change of evidence.

An Event about evidence is in the namespace `default`, where more people read than may read evidence: what was found is not in it.
"""

from collections.abc import Callable
from datetime import timedelta

import msgspec
from prometheus_client import Counter

from mlwarden.checks.text import VALUE_LENGTH, clean
from mlwarden.cluster import clock
from mlwarden.cluster.snapshot import SnapshotSource
from mlwarden.controllers.reporter import Reporter
from mlwarden.evidence.store import Compared, SecondLook
from mlwarden.model.workload import Json

DOUBTS = Counter("mlwarden_answers_taken_back_total", "Answers that a second look took back, by outcome: Worse or Forged.", ["outcome"])
_LATELY = timedelta(hours=1)
"""Older than the Events that the API server keeps is no news."""


class Doubts:
    """Reports them.

    Args:
        source: tells of each piece of evidence.
        reporter: writes Events.
        is_leader: whether this replica leads now.
    """

    def __init__(self, source: SnapshotSource, reporter: Reporter, *, is_leader: Callable[[], bool]) -> None:
        self._reporter, self._is_leader = reporter, is_leader
        self._said: dict[str, SecondLook] = {}
        self._untold: dict[str, tuple[Json, SecondLook]] = {}
        source.read_evidence(self._changed)

    def look_at_everything(self) -> None:
        """Says what was found lately: this replica has just become the leader."""
        since = clock.now() - _LATELY
        for obj, look in [each for each in self._untold.values() if each[1].at >= since]:
            self._tell(obj, look)

    def _changed(self, name: str, obj: Json | None) -> None:
        look = _taken_back(obj)
        if obj is None or look is None:
            self._untold.pop(name, None)
            if obj is None:
                self._said.pop(name, None)
            return
        if self._said.get(name) == look:
            return
        self._said[name] = look
        small = {key: obj[key] for key in ("apiVersion", "kind", "metadata") if key in obj}
        self._untold[name] = (small, look)
        if self._is_leader():
            DOUBTS.labels(look.outcome.value).inc()
            self._tell(small, look)

    def _tell(self, obj: Json, look: SecondLook) -> None:
        self._reporter.taken_back(obj, said(look))


def said(look: SecondLook) -> str:
    """Returns what an Event says of a second look that took an answer back."""
    of, by = clean(look.of, VALUE_LENGTH) or "an older version", clean(look.by, VALUE_LENGTH)
    fix = f"fix: delete pod {of}, which ends its token, and find out who had it; kubectl mlwarden evidence IMAGE says what was found"
    if look.outcome is Compared.FORGED:
        return f"The answer was taken back: it stands under the name of {of}, which did not write it: somebody has its token; {fix}"
    return (
        f"The answer of {of} was taken back: {by} looked again, with no newer a database, and found what is worse. Everything else that"
        f" {of} answered is looked at again; {fix}"
    )


def _taken_back(obj: Json | None) -> SecondLook | None:
    look = ((obj or {}).get("status") or {}).get("secondLook")
    if not look:
        return None
    try:
        found = msgspec.convert(look, SecondLook)
    except msgspec.ValidationError:
        return None
    return found if found.outcome in {Compared.WORSE, Compared.FORGED} else None
