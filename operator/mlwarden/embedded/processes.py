"""Child processes that never outlive the one who started them, however it ends.

Two independent mechanisms, because a crashed test run that leaves an API server behind spoils the next one:

- On Linux every child asks the kernel for SIGKILL at its parent's death (`PR_SET_PDEATHSIG`), through a few lines of Python that then
  become the real program. The kernel watches the *thread* that forked, so all children are started from one thread that lives as long as
  the process.
- A keeper process waits on a pipe from us. When the pipe closes, for whatever reason, it kills the process group of every child (and so
  the grandchildren too: a scanner's trivy) and removes the temporary directory.

Rejected: `preexec_fn` (deadlocks in a process with threads), and `atexit` alone (kill -9 runs no handlers).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_Found = TypeVar("_Found")
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlwarden-spawner")

_BECOME = """
import os, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(1, 9)
if os.getppid() != parent:
    os._exit(1)
os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""

_KEEP = """
import os, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
groups, cgroups = set(), set()
for line in sys.stdin:
    if line.startswith("/"):
        cgroups.add(line.strip())
        continue
    group = int(line)
    (groups.add if group > 0 else groups.discard)(abs(group))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
for _ in range(20):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.exists(sys.argv[1]):
        break
for cgroup in cgroups:
    for _ in range(100):
        for folder, _folders, _files in os.walk(cgroup, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass
        if not os.path.exists(cgroup):
            break
        time.sleep(0.05)
"""


class Keeper:
    """Owns a temporary directory and the process groups started in its name; both go when this process goes.

    Attributes:
        directory: the temporary directory.
    """

    def __init__(self, prefix: str = "mlwarden-") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _KEEP, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """Has this process group killed when we are gone; a negative number takes it off again."""
        self._tell(str(group))

    def remove_cgroup(self, path: Path) -> None:
        """Has this cgroup and those below it removed when we are gone: of all that a process leaves, only these outlive it."""
        self._tell(str(path))

    def close(self) -> None:
        """Kills what is still watched and removes the directory."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            pipe = self._process.stdin
            if pipe is not None:
                pipe.write(f"{line}\n")
                pipe.flush()


class Process:
    """One child process in its own process group, its output in a file.

    Args:
        name: for messages.
        command: program and arguments, no shell.
        log: the file that gets standard output and standard error, appended.
        keeper: who sees to it that the child goes when we go.
        environment: the whole environment; ours by default.
        cwd: the working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        keeper: Keeper,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._keeper = keeper
        become = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *map(str, command)]
        with log.open("ab") as output:
            self._popen = _SPAWNER.submit(
                subprocess.Popen,
                become,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if environment is None else environment),
                cwd=cwd,
                start_new_session=True,
            ).result()
        keeper.watch(self.pid)

    @property
    def pid(self) -> int:
        """The process id, which is its group's id too."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code (negative: the signal), or None while it runs."""
        return self._popen.poll()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone, if it still runs."""
        if self.alive:
            self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the whole process group, and waits for its end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._keeper.watch(-self.pid)

    def stop(self, grace: float = 5.0) -> None:
        """SIGTERM, and SIGKILL to what is left after `grace` seconds."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=grace)
        self.kill()

    def tail(self, lines: int = 12) -> str:
        """Returns the last lines of its output."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on at this moment.

    Below the range from which the kernel takes the ports of outgoing connections, so that nobody takes it by chance while a server
    restarts; at random, so that two runs side by side rarely choose the same. Rarely is not never: who starts a server tries again.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 -- no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], _Found], *, seconds: float, interval: float = 0.05) -> _Found:
    """Asks until the answer is true or the time is over; returns the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(interval)
