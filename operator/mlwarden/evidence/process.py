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
from mlwarden.evidence import watch

_LAUNCH = str(Path(__file__).with_name("launch.py"))
STDERR_TAIL = 16384
"""Bytes of standard error that are kept where nothing else is said: its end."""


_LOOK_SECONDS = 5.0
GOGC = "800"
"""Collect less often while there is room below GOMEMLIMIT, which is set aside anyway: a quarter less processor time for a small image, for
which nothing is collected at all then, and which takes 130 MB at most."""
_OUT_OF_MEMORY = (
    *(b"fatal error: runtime: out of memory", b"fatal error: runtime: cannot allocate memory", b"fatal error: out of memory"),
    *(b"runtime: failed to create new OS thread", b"pthread_create failed", b"fatal error: failed to reserve", b"fatal error: newosproc"),
    *(b"runtime: cannot allocate", b"runtime: out of memory", b"fatal error: mmap", b"runtime: mmap"),
)
"""What a program in Go says first then; what follows (the stack of every goroutine) is longer than what is kept."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may use.

    Attributes:
        seconds: wall clock; then the whole process group is killed.
        output: bytes of standard output; one more and it is killed.
        errors: bytes of standard error that are kept: its end.
        cpu_seconds: RLIMIT_CPU.
        file_bytes: RLIMIT_FSIZE, the largest file it may write.
        address_space: RLIMIT_AS in bytes, 0 for none. Go reserves far more than it uses: below about 2 GiB its programs do not start.
        data: RLIMIT_DATA in bytes, 0 for none: the wall for what it really uses, in front of which Go's programs end with exit code 2.
        heap: GOMEMLIMIT in bytes: Go's garbage collector works harder near it; not a wall.
        stalled: seconds after which it is killed where it neither moved bytes nor computed; 0 for never (`watch`).
        disk: bytes that the directory above its working directory may grow to; 0 for no limit.
    """

    seconds: float = 300
    output: int = 64 << 20
    errors: int = STDERR_TAIL
    cpu_seconds: int = 1200
    file_bytes: int = 32 << 30
    address_space: int = 32 << 30
    data: int = 0
    heap: int = 768 << 20
    stalled: float = 0
    disk: int = 0


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    Attributes:
        code: the exit code; negative for the signal that killed it.
        output: standard output.
        errors: the end of standard error.
        cut: there was more of that.
        out_of_memory: it is a program in Go that ended in front of `Limits.data`.
    """

    code: int
    output: bytes
    errors: str
    cut: bool = False
    out_of_memory: bool = False


class TimedOutError(EvidenceError):
    """It ran for longer than it may, and was killed."""


class StalledError(EvidenceError):
    """It got nowhere, and was killed."""


class DiskError(EvidenceError):
    """It took more of the disk than it may, and was killed."""


class OutputTooLargeError(EvidenceError):
    """It wrote more than it may, and was killed."""


async def run(argv: Sequence[str], *, environment: dict[str, str], directory: Path, limits: Limits) -> Completed:
    """Runs `argv` in its own process group, with `environment` and nothing else, and returns how it ended.

    However this ends (cancelled, too), the whole process group is dead when it does; should this process die first, the kernel kills the
    child.

    Raises:
        TimedOutError, StalledError, DiskError, OutputTooLargeError: beside OSError, where it cannot be started.
    """
    launch = (sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()))
    numbers = (limits.cpu_seconds, limits.file_bytes, limits.address_space, limits.data)
    transport, collected = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Collector(limits.output, limits.errors),
        *(*launch, *(str(number) for number in numbers), "--", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        cwd=directory,
        env={**environment, "GOMEMLIMIT": str(limits.heap), "GOGC": GOGC},
        start_new_session=True,
    )
    name = Path(argv[0]).name
    watching = asyncio.create_task(_watch(name, transport.get_pid(), directory.parent, limits))
    try:
        async with asyncio.timeout(limits.seconds):
            await asyncio.wait({collected.ended, collected.exceeded, watching}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise TimedOutError(f"{name} ran for more than {limits.seconds:g} s and was killed") from None
    finally:
        watching.cancel()
        # The group outlives its leader where that left children behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        await asyncio.shield(collected.ended)
        await asyncio.gather(watching, return_exceptions=True)
    if watching.done() and not watching.cancelled() and (why := watching.exception()) is not None:
        raise why
    if collected.exceeded.done():
        raise OutputTooLargeError(f"{Path(argv[0]).name} wrote more than {limits.output >> 20} MiB and was killed")
    errors = collected.errors.decode(errors="replace")
    code = transport.get_returncode() or 0
    full = code > 0 and collected.out_of_memory
    return Completed(code=code, output=bytes(collected.output), errors=errors, cut=collected.cut, out_of_memory=full)


async def _watch(name: str, pid: int, directory: Path, limits: Limits) -> None:
    """Looks at a process now and then, for as long as it runs.

    Raises:
        StalledError, DiskError: it has to end.
    """
    if not limits.stalled and not limits.disk:
        await asyncio.Event().wait()
    loop = asyncio.get_running_loop()
    before, since = watch.Done.by(pid), loop.time()
    while True:
        await asyncio.sleep(min(limits.stalled or _LOOK_SECONDS, _LOOK_SECONDS))
        if limits.disk and await asyncio.to_thread(watch.size, directory) > limits.disk:
            raise DiskError(f"{name} put more than {limits.disk >> 20} MiB on the disk and was killed")
        seconds = loop.time() - since
        if not limits.stalled or before is None or seconds < limits.stalled:
            continue
        after = watch.Done.by(pid)
        if after is not None and watch.stuck(before, after, seconds):
            raise StalledError(f"{name} got nowhere for {seconds:.0f} s and was killed")
        before, since = after, loop.time()


class _Collector(asyncio.SubprocessProtocol):
    """Keeps standard output up to a limit, and the end of standard error.

    Streams were rejected: one that nobody reads any more keeps its pipe open, and the process never counts as ended.
    """

    def __init__(self, cap: int, tail: int) -> None:
        loop = asyncio.get_running_loop()
        self.output, self.errors, self._cap, self._tail = bytearray(), b"", cap, tail
        self.cut, self.out_of_memory = False, False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.exceeded: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Called with every piece of output."""
        if fd == 2:
            seen = self.errors[-80:] + data
            self.out_of_memory = self.out_of_memory or any(sign in seen for sign in _OUT_OF_MEMORY)
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
