"""How long it took, the last times, until evidence that was asked for was there.

From the times in the evidence itself, so every replica says the same and a restarted one knows at once. The wait of an answer is the time
from the last asking to it; it has the queue in it, which is what a person waits for as well. Two clocks are compared, the asker's and the
scanner's, and a creation has whole seconds: good enough for "in about 10 s", not for more.

What is no wait is left out: an answer older than the asking, and one that came so long after it that nobody was waiting any more (the
scanner renews old scans by itself, and an image that could not be pulled for an hour says nothing about the next one).

Rejected: a constant, durations measured by the scanner (they leave the queue out), and the length of the queue (how fast it moves is not
known while nothing is in it).
"""

from datetime import datetime, timedelta

from mlwarden.model.evidence import ImageFacts, Proofs, Resolution, Waits

KEPT = 32
LONGEST = timedelta(minutes=15)


class Recent:
    """The waits of the last `KEPT` answers of each sort."""

    def __init__(self) -> None:
        self._scans: dict[str, tuple[datetime, float]] = {}
        self._resolutions: dict[str, tuple[datetime, float]] = {}

    def note(self, about: str, known: ImageFacts | Proofs | Resolution) -> None:
        """Takes an answer in; what is none changes nothing.

        Args:
            about: the digest or the reference.
            known: what is known of it now.
        """
        if isinstance(known, Proofs):
            return
        if isinstance(known, ImageFacts):
            answered, of = known.answered_at if known.scan else None, self._scans
        else:
            answered, of = known.at if known.digest else None, self._resolutions
        if answered is None or known.asked_at is None or not timedelta() <= answered - known.asked_at <= LONGEST:
            return
        of[about] = answered, (answered - known.asked_at).total_seconds()
        if len(of) > KEPT:
            del of[min(of, key=of.__getitem__)]

    @property
    def waits(self) -> Waits:
        """The waits, in no order that means anything."""
        return Waits(
            scans=tuple(wait for _, wait in self._scans.values()), resolutions=tuple(wait for _, wait in self._resolutions.values())
        )
