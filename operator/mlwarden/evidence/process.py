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
_STDERR_TAIL = 16384


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may use.

    Attributes:
        seconds: wall clock; then the whole process group is killed.
        output: bytes of standard output; one more and it is killed.
        cpu_seconds: RLIMIT_CPU.
        file_bytes: RLIMIT_FSIZE, the largest file it may write.
        address_space: RLIMIT_AS in bytes, 0 for none. Go reserves far more than it uses: below about 2 GiB its programs do not start.
        heap: GOMEMLIMIT in bytes: Go's garbage collector works harder near it; not a wall.
    """

    seconds: float = 300
    output: int = 64 << 20
    cpu_seconds: int = 1200
    file_bytes: int = 32 << 30
    address_space: int = 32 << 30
    heap: int = 1 << 30


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `code` is negative for the signal that killed it; `errors` is the end of standard error."""

    code: int
    output: bytes
    errors: str


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
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", _LAUNCH, str(os.getpid())),
        *(str(limits.cpu_seconds), str(limits.file_bytes), str(limits.address_space), "--", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
        env={**environment, "GOMEMLIMIT": str(limits.heap)},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limits.seconds):
            output, errors = await _collect(process, limits.output)
    except TimeoutError:
        raise TimedOutError(f"{Path(argv[0]).name} ran for more than {limits.seconds:g} s and was killed") from None
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        await _end(process)
    return Completed(code=process.returncode or 0, output=output, errors=errors)


async def _collect(process: asyncio.subprocess.Process, cap: int) -> tuple[bytes, str]:
    async with asyncio.TaskGroup() as group:
        output = group.create_task(_head(process.stdout, cap))
        errors = group.create_task(_tail(process.stderr))
        group.create_task(process.wait())
    return output.result(), errors.result()


async def _head(stream: asyncio.StreamReader | None, cap: int) -> bytes:
    found = bytearray()
    while stream is not None and (chunk := await stream.read(1 << 16)):
        found += chunk
        if len(found) > cap:
            raise OutputTooLargeError(f"more than {cap >> 20} MiB of output")
    return bytes(found)


async def _tail(stream: asyncio.StreamReader | None) -> str:
    found = b""
    while stream is not None and (chunk := await stream.read(1 << 14)):
        found = (found + chunk)[-_STDERR_TAIL:]
    return found.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills the group, which outlives its leader where that left children behind, and collects the leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())
