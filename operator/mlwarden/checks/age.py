"""How old something is, and how old it may be."""

import functools
import re
from datetime import timedelta

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@functools.lru_cache(maxsize=256)  # policies say few, and are asked about every image
def duration(text: str) -> timedelta | None:
    """Returns a whole number with its unit (`7d`) as a duration, None where it is not one."""
    found = _DURATION.fullmatch(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def spoken(age: timedelta) -> str:
    """Returns an age as a person would say it: `3 days`, `5 hours`, `40 seconds`."""
    seconds = int(age.total_seconds())
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size or (seconds >= size and unit != "day"):
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
