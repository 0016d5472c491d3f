"""The first process of a node's own namespaces, and the way into them. Run by path, as root, on Linux, with the standard library alone.

    nodeinit.py hold STATE NAME             make the namespaces, say in STATE/pid who is in them, and stay until killed
    nodeinit.py enter PID NAME COMMAND...   run a command in them

A node mounts hundreds of things, makes interfaces and packet filter rules, and leaves shims behind that are children of nobody. All of it
belongs to five namespaces (mounts, processes, network, names, cgroups), and the kernel takes a namespace down with its last process; the
first process of a process namespace takes all others with it. So nothing has to be cleaned up, however a run dies: who holds the namespaces
asks for SIGKILL at its parent's death. Only cgroups outlive their processes; `processes.Keeper` removes those.

Rejected: tearing down what was set up, step by step (a killed run tears nothing down), and `nsenter` (it does not pass signals on, and
leaves the command in the cgroup of whoever called).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWPID, _CLONE_NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = 2, 4, 8, 4096, 16384, 1 << 18, 1 << 20
_PR_SET_PDEATHSIG = 1
_CGROUPS = "/sys/fs/cgroup"
_LEAF = "host"
_OVERLAID = ("var/lib", "var/log")
"""What of the file system a node writes to beside its own directory and /run: what it writes there nobody else sees."""
_TUNED = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""Settings of the whole machine's kernel that a kubelet brings to these values when it starts (kubelet 1.37: `setupKernelTunables` in
`pkg/kubelet/cm`). No namespace holds them, so a node of ours finds them as it wants them, in files that are mounted over them."""

_libc = ctypes.CDLL(None, use_errno=True)


class Hierarchy(NamedTuple):
    """One mounted cgroup hierarchy.

    Attributes:
        kind: `cgroup` (version 1) or `cgroup2`.
        path: where it is mounted.
        option: what it is mounted with: a controller, or `name=…`; empty for version 2.
    """

    kind: str
    path: str
    option: str


def hierarchies() -> Iterator[Hierarchy]:
    """Yields what is mounted below /sys/fs/cgroup; the unified hierarchy beside version 1 ones has no controllers and is left out."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        path, (kind, _source, options) = before.split()[4], after.split(maxsplit=2)
        if kind in {"cgroup", "cgroup2"} and path.startswith(_CGROUPS):
            known = {"rw", "ro", "xattr", "clone_children"}
            option = ",".join(each for each in options.split(",") if each not in known and not each.startswith("release_agent="))
            found.append(Hierarchy(kind, path, option if kind == "cgroup" else ""))
    old = any(each.kind == "cgroup" for each in found)
    return (each for each in found if each.kind == "cgroup" or not old)


def join(name: str) -> None:
    """Moves this process into the cgroup of that name, in every hierarchy.

    Of version 2 into a leaf of it: a cgroup whose children have controllers may hold no processes.

    Raises:
        OSError: the hierarchies cannot be written to.
    """
    for hierarchy in hierarchies():
        group = Path(hierarchy.path, name)
        if hierarchy.kind == "cgroup2":
            group /= _LEAF
        elif "cpuset" in hierarchy.option and not group.exists():
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new one, and empty means nobody may enter
                (group / file).write_text(Path(hierarchy.path, file).read_text(encoding="utf-8"), encoding="utf-8")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text("0", encoding="utf-8")


def _delegate(name: str) -> None:
    """Version 2: what there is of controllers goes to the children of our cgroup."""
    for hierarchy in hierarchies():
        if hierarchy.kind == "cgroup2":
            for group in (Path(hierarchy.path), Path(hierarchy.path, name)):
                controllers = (group / "cgroup.controllers").read_text(encoding="utf-8").split()
                (group / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers), encoding="utf-8")


def _hold(state: Path, name: str) -> NoReturn:
    for hierarchy in hierarchies():
        if hierarchy.kind == "cgroup2":
            Path(hierarchy.path, name).mkdir(exist_ok=True)
    _delegate(name)
    join(name)
    mounted = list(hierarchies())
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWCGROUP), "new namespaces")
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _mount_all(state, name, mounted)
        (state / "ready").touch()
        _reap_forever()
    # Named whole or not at all: whoever waits for the file reads it at once.
    (state / ".pid").write_text(f"{child}\n", encoding="ascii")
    (state / ".pid").rename(state / "pid")
    _, status = os.waitpid(child, 0)
    sys.exit(f"the first process of the node's namespaces (a child of {parent}) ended: {os.waitstatus_to_exitcode(status)}")


def _mount_all(state: Path, name: str, mounted: list[Hierarchy]) -> None:
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if mounted and mounted[0].kind == "cgroup2":
        _mount("cgroup2", _CGROUPS, "cgroup2", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    else:
        _mount("tmpfs", _CGROUPS, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        for hierarchy in mounted:
            Path(hierarchy.path).mkdir(parents=True)
            option = f"none,{hierarchy.option}" if hierarchy.option.startswith("name=") else hierarchy.option
            _mount("cgroup", hierarchy.path, "cgroup", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, option)
    for setting, value in _TUNED.items():
        file, real = state / "kernel" / setting, Path("/proc/sys", setting)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n", encoding="ascii")
        if real.exists():
            _mount(str(file), str(real), None, _MS_BIND)
    for path in _OVERLAID:
        upper, work = state / "overlay" / path, state / "overlay" / f"{path}.work"
        upper.mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
        if Path("/", path).is_dir():
            _mount("overlay", f"/{path}", "overlay", 0, f"lowerdir=/{path},upperdir={upper},workdir={work}")
    _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    # A pod's volumes are mounted below here and must be seen by containers that were there before.
    _mount(str(state), str(state), None, _MS_BIND)
    _mount("none", str(state), None, _MS_SHARED)
    _libc.sethostname(name.encode(), len(name))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    kind_ = kind.encode() if kind else None
    _check(_libc.mount(source.encode(), target.encode(), kind_, flags, options.encode()), f"mounting {kind or source} on {target}")


def _reap_forever() -> NoReturn:
    """What a first process is for: the children of the dead are its own."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def _enter(pid: int, name: str, command: list[str]) -> NoReturn:
    join(name)
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(Path(f"/proc/{pid}/ns/{kind}").open("rb")) for kind in ("cgroup", "ipc", "uts", "net", "pid", "mnt")]
        for file in files:
            _check(_libc.setns(file.fileno(), 0), f"entering {file.name}")
    child = os.fork()
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(command[0], command)  # noqa: S606 -- that is the point

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def main(arguments: list[str]) -> NoReturn:
    """Runs one of the two commands above; ends with the command's exit code, or with a sentence on standard error."""
    try:
        match arguments:
            case ["hold", state, name]:
                _hold(Path(state), name)
            case ["enter", pid, name, *command] if command:
                _enter(int(pid), name, command)
            case _:
                sys.exit("usage: nodeinit.py hold STATE NAME | enter PID NAME COMMAND...")
    except OSError as error:
        sys.exit(f"{error.strerror or error}")


if __name__ == "__main__":
    main(sys.argv[1:])
