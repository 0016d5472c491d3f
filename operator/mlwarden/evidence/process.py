"""One run of a program that reads hostile bytes: bounded in time, memory, files and output, and gone afterwards in every case.

`asyncio.wait_for(process.communicate(), …)` alone was rejected: on a timeout it leaves the process running (that is how a hung verifier
stayed unnoticed elsewhere), and it collects output without a limit.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlwarden.errors import EvidenceError

_LAUNCH = str(Path(__file__).with_name("launch.py"))
STDERR_TAIL = 16384
"""Bytes of standard error that are kept where nothing else is said: its end."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may use.

    Attributes:
        seconds: wall clock; then the whole process group is killed.
        output: bytes of standard output; one more and it is killed.
        errors: bytes of standard error that are kept: its end.
        cpu_seconds: RLIMIT_CPU.
        file_bytes: RLIMIT_FSIZE, the largest file it may write.
        address_space: RLIMIT_AS in bytes, 0 for none. Go reserves far more than it uses: below about 2 GiB its programs do not start.
        heap: GOMEMLIMIT in bytes: Go's garbage collector works harder near it; not a wall.
    """

    seconds: float = 300
    output: int = 64 << 20
    errors: int = STDERR_TAIL
    cpu_seconds: int = 1200
    file_bytes: int = 32 << 30
    address_space: int = 32 << 30
    heap: int = 768 << 20


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    Attributes:
        code: the exit code; negative for the signal that killed it.
        output: standard output.
        errors: the end of standard error.
        cut: there was more of that.
    """

    code: int
    output: bytes
    errors: str
    cut: bool = False


class TimedOutError(EvidenceError):
    """It ran for longer than it may, and was killed."""


class OutputTooLargeError(EvidenceError):
    """It wrote more than it may, and was killed."""


async def run(argv: Sequence[str], *, environment: dict[str, str], directory: Path, limits: Limits) -> Completed:
    """Runs `argv` in its own process group, with `environment` and nothing else, and returns how it ended.

    However this ends (cancelled, too), the whole process group is dead when it does; should this process die first, the kernel kills the
    child.

    Raises:
        TimedOutError, OutputTooLargeError: beside OSError, where it cannot be started.
    """
    launch = (sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()))
    numbers = (limits.cpu_seconds, limits.file_bytes, limits.address_space)
    transport, collected = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Collector(limits.output, limits.errors),
        *(*launch, *(str(number) for number in numbers), "--", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        cwd=directory,
        env={**environment, "GOMEMLIMIT": str(limits.heap)},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limits.seconds):
            await asyncio.wait({collected.ended, collected.exceeded}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise TimedOutError(f"{Path(argv[0]).name} ran for more than {limits.seconds:g} s and was killed") from None
    finally:
        # The group outlives its leader where that left children behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        await asyncio.shield(collected.ended)
    if collected.exceeded.done():
        raise OutputTooLargeError(f"{Path(argv[0]).name} wrote more than {limits.output >> 20} MiB and was killed")
    errors = collected.errors.decode(errors="replace")
    return Completed(code=transport.get_returncode() or 0, output=bytes(collected.output), errors=errors, cut=collected.cut)


class _Collector(asyncio.SubprocessProtocol):
    """Keeps standard output up to a limit, and the end of standard error.

    Streams were rejected: one that nobody reads any more keeps its pipe open, and the process never counts as ended.
    """

    def __init__(self, cap: int, tail: int) -> None:
        loop = asyncio.get_running_loop()
        self.output, self.errors, self._cap, self._tail = bytearray(), b"", cap, tail
        self.cut = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.exceeded: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Called with every piece of output."""
        if fd == 2:
            self.cut = self.cut or len(self.errors) + len(data) > self._tail
            self.errors = (self.errors + data)[-self._tail :]
        elif len(self.output) + len(data) <= self._cap:
            self.output += data
        elif not self.exceeded.done():
            self.exceeded.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Called when the process has ended and both pipes are closed."""
        if not self.ended.done():
            self.ended.set_result(None)
