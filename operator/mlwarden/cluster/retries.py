"""How long to wait before something that failed is tried again, by whoever waits in place (`WorkQueue` has keys that wait)."""

import random


def pause(failures: int, *, first: float, longest: float) -> float:
    """Returns the seconds to wait: `first` after the first failure, then doubling up to `longest`, give or take a fifth.

    By chance, so that processes that lost the API server at one moment do not come back to it at one moment.

    Args:
        failures: in a row, this one included; from 1.
        first: seconds after the first.
        longest: seconds after many.
    """
    doubled = first * 2.0 ** min(failures - 1, 30)
    return min(doubled, longest) * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads retries, hides nothing
