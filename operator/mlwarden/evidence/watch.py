"""What a process did since we last looked: whether it gets anywhere, and what it has put on disk.

A registry that sends a byte a minute keeps a program busy for as long as it may run at all, and a layer of nothing but zeros fills a
disk. So whoever runs a program looks at it now and then: one that neither moved bytes nor computed for a while is stuck, one whose
directory grows beyond its share has had enough. Bytes are those that its system calls moved (`rchar` and `wchar` of proc_pid_io(5)), from
sockets, too; what the program says of its progress was rejected, because what it reads decides what it says.
"""

import os
from pathlib import Path

import msgspec

RATE = 16 << 10
"""Bytes per second. An image of 100 MB would take almost two hours."""
_COMPUTING = 0.05
"""Seconds of processor time per second. A program that waits for a network needs a hundredth of it."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a process did so far."""

    bytes: int
    seconds: float

    @classmethod
    def by(cls, pid: int) -> "Done | None":
        """None where it cannot be known: the process is gone, or this kernel does not tell."""
        try:
            counted = dict(line.split(b": ") for line in Path(f"/proc/{pid}/io").read_bytes().splitlines())
            times = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return cls(
            bytes=int(counted[b"rchar"]) + int(counted[b"wchar"]), seconds=(int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        )


def stuck(before: Done, after: Done, seconds: float) -> bool:
    """Whether it did next to nothing in so many seconds."""
    return after.bytes - before.bytes < RATE * seconds and after.seconds - before.seconds < _COMPUTING * seconds


def size(directory: Path) -> int:
    """Bytes on disk of all files below a directory; what vanishes meanwhile counts nothing."""
    found = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                found += os.lstat(os.path.join(where, name)).st_blocks * 512  # noqa: PTH118 -- one of many thousands
            except OSError:
                continue
    return found
