"""How long to wait before another try."""

from mlwarden.cluster.retries import pause


def test_doubles_up_to_the_longest_and_is_never_the_same_for_all() -> None:
    for failures, expected in ((1, 0.5), (2, 1), (3, 2), (5, 8), (6, 10), (10_000, 10)):
        waits = {pause(failures, first=0.5, longest=10) for _ in range(100)}
        assert all(0.8 * expected <= wait <= 1.2 * expected for wait in waits)
        assert len(waits) > 1
