"""Run as a program: puts limits on itself, ties its life to its parent's, and becomes the program it was told.

    python -I -S launch.py PARENT_PID CPU_SECONDS FILE_BYTES ADDRESS_SPACE_BYTES DATA_BYTES -- PROGRAM ARGUMENT…

`preexec_fn` was rejected: it runs Python between fork and exec of a process that has threads, and can deadlock there. `prlimit` and
`setpriv` are not in every image. Imports nothing of mlwarden, and of the
standard library only what is quick (`signal` takes longer than all the rest), so that it starts in milliseconds.
"""

import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_PR_SET_NO_NEW_PRIVS = 38
_OPEN_FILES = 8192


def _limit(kind: int, soft: int) -> None:
    """Lowers a limit, never raises it; 0 leaves it."""
    _, hard = resource.getrlimit(kind)
    if soft:
        value = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(kind, (value, value))


def main(argv: list[str]) -> None:
    """Never returns: executes the program, or raises."""
    parent, cpu, size, space, data = (int(number) for number in argv[1:6])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was asked for
        sys.exit(1)
    _limit(resource.RLIMIT_CORE, 1)
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_FSIZE, size)
    _limit(resource.RLIMIT_AS, space)
    _limit(resource.RLIMIT_DATA, data)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    os.umask(0o077)
    os.execv(argv[7], argv[7:])  # noqa: S606 -- becoming the program is the point, and there is no shell


if __name__ == "__main__":
    main(sys.argv)
