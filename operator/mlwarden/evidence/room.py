"""How many images fit on the scratch disk, and into memory, at the same time.

What trivy keeps on disk of an image is not known before; its layers' sizes are, and unpacked they are two and a half times that, more or
less. So an image starts beside others only where that much is free and not promised to them. No image waits for more than half of the
disk: one of a hundred gigabytes begins when half is free, and is stopped when it has taken that (`Limits.disk`), because most of an image
is read and not kept. To refuse it outright was rejected: it would never be scanned, and mostly can be.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlwarden.evidence.failure import TransientError

_UNPACKED = 2.5
_SHARE = 0.5
_OURS = 0.9
"""Of a container's memory; the rest is for this process and the page cache."""
_MEMORY = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Room:
    """The scratch disk.

    Args:
        directory: on it.
        most: bytes of it that may be used; 0: all that is there.
    """

    def __init__(self, directory: Path, *, most: int = 0) -> None:
        self._directory, self._most = directory, most
        self._promised: list[float] = []

    @property
    def share(self) -> int:
        """Bytes that one image may take."""
        return int(_SHARE * self._total())

    @contextlib.contextmanager
    def held(self, compressed: int) -> Iterator[None]:
        """Room for an image of so many bytes in the registry, while the body runs.

        Raises:
            TransientError: others have it.
        """
        need = min(_UNPACKED * compressed, _SHARE * self._total())
        if self._promised and need > self._free() - sum(self._promised):
            message = f"an image of {compressed >> 20} MiB waits for room on the scanner's scratch disk"
            raise TransientError(message, hint="more ephemeral storage for the scanner", retry_after=30)
        self._promised.append(need)
        try:
            yield
        finally:
            self._promised.remove(need)

    def _total(self) -> int:
        total = shutil.disk_usage(self._directory).total
        return min(total, self._most) if self._most else total

    def _free(self) -> int:
        """Where only a part may be used, what others on the disk use is not ours to count; what is promised is."""
        free = shutil.disk_usage(self._directory).free
        return min(free, self._most) if self._most else free


def at_once(heap: int, *, memory: int | None = None) -> int:
    """Returns how many programs of so many bytes fit into this container's (or this machine's) memory; at least one."""
    return max(1, int(_OURS * (memory or _memory()) / heap))


def _memory() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY:
        try:
            limit = int(Path(path).read_text())
        except (OSError, ValueError):  # no such control group, or "max"
            continue
        return min(limit, machine)
    return machine
