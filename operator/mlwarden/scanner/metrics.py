"""What the agent counts."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from mlwarden.scanner.protocol import State

_SECONDS = (0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

FINISHED = Counter("mlwarden_scanner_answers_total", "Objects worked on, by lane and outcome.", ("lane", "outcome"))
SECONDS = Histogram("mlwarden_scanner_seconds", "From claim to answer.", ("lane",), buckets=_SECONDS)
QUEUE = Gauge("mlwarden_scanner_queue", "Objects with work to do, now or later, by lane.", ("lane",))
RUNNING = Gauge("mlwarden_scanner_running", "Objects worked on at this moment, by lane.", ("lane",))
WORKER_UP = Gauge("mlwarden_scanner_worker_up", "1 while the worker answers.")
CANARY_OK = Gauge("mlwarden_scanner_canary_ok", "1 while the scanner finds what is known to be there; 0: nothing it says may be believed.")
SECOND_LOOKS = Counter(
    "mlwarden_scanner_second_looks_total",
    "Answers made a second time, by outcome: agrees, worse (the first is taken back), corrected (worse, and explained), unknown.",
    ("outcome",),
)
FORGED = Counter("mlwarden_scanner_forged_answers_total", "Answers in this scanner's name that it did not write: its token is stolen.")
DATABASE_AGE = Gauge("mlwarden_scanner_database_age_seconds", "Age of the vulnerability database, -1 without one.")


def worker(state: State) -> None:
    """Takes in what the worker said of itself."""
    WORKER_UP.set(1)
    CANARY_OK.set(state.canary_at is not None and not state.unfit)
    DATABASE_AGE.set((datetime.now(UTC) - state.database_at).total_seconds() if state.database_at else -1)


@contextlib.contextmanager
def timed(lane: str) -> Iterator[None]:
    """Observes how long the body takes."""
    began = time.monotonic()
    try:
        yield
    finally:
        SECONDS.labels(lane).observe(time.monotonic() - began)
