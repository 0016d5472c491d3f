"""The time by the API server's clock, which is the one that all of mlwarden's processes hear.

What one process dates another judges: a tag's resolution is believed for a minute, a claim holds for so many seconds. Clocks a minute apart
would hold every tag for ever. So every answer of the API server is listened to: its `Date`, a whole second, bounds how far this process's
clock is from it, and further answers narrow that down. Where the clocks may agree nothing is corrected.

A process has one API server and so one clock. Rejected: to trust the nodes' clocks and only report (a pod would wait for NTP to be put
right), an argument through every function that asks the time (it is the same one everywhere), creation times of objects as a clock (those
who write them choose when).
"""

import logging
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from prometheus_client import Gauge

LOG = logging.getLogger(__name__)
NOTABLE = 30.0
"""Seconds from which a difference is said to people."""
OFFSET = Gauge(
    "mlwarden_clock_offset_seconds", "Seconds by which the API server's clock is ahead of this process's, as far as its Date says."
)


class Clock:
    """How far the API server's clock is from this process's.

    Attributes:
        offset: seconds to add to this process's clock, 0 where the two may agree.
    """

    def __init__(self) -> None:
        self._bounds = (float("-inf"), float("inf"))
        self.offset = 0.0

    def heard(self, date: str | None, *, sent: float, received: float) -> None:
        """Takes in the `Date` of an answer.

        Args:
            date: the header, None where there is none.
            sent: when the request went out, in seconds of this process's clock since the epoch.
            received: when the answer's headers were there.
        """
        try:
            said = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        # The answer was made between the two, and its date is cut to a whole second.
        heard = (said - received, said + 1.0 - sent)
        low, high = max(heard[0], self._bounds[0]), min(heard[1], self._bounds[1])
        self._bounds = (low, high) if low <= high else heard  # else one of the clocks was set
        before, self.offset = self.offset, _nearest_to_nothing(*self._bounds)
        OFFSET.set(self.offset)
        if (abs(self.offset) >= NOTABLE) != (abs(before) >= NOTABLE):
            LOG.warning("%s", self.note() or "this process's clock agrees with the API server's again")

    def now(self) -> datetime:
        """Returns the time by the API server's clock."""
        return datetime.now(UTC) + timedelta(seconds=self.offset)

    def note(self) -> str:
        """Returns what a person should know about the clocks, `""` where they are close enough."""
        if abs(self.offset) < NOTABLE:
            return ""
        direction = "behind" if self.offset > 0 else "ahead of"
        about = round(abs(self.offset), -1)  # the same words for as long as it stays so: Events are counted by what they say
        return f"this process's clock is about {about:.0f} s {direction} the API server's, by which it judges: look at NTP on its node"


def _nearest_to_nothing(low: float, high: float) -> float:
    return 0.0 if low <= 0.0 <= high else low if low > 0.0 else high


CLOCK = Clock()
"""This process's."""


def now() -> datetime:
    """Returns the time by the API server's clock, this process's own before it was heard."""
    return CLOCK.now()


def heard_at(own: datetime | None) -> datetime | None:
    """Returns by the API server's clock what a process beside this one, on the same node, dated by its own."""
    return None if own is None else own + timedelta(seconds=CLOCK.offset)
