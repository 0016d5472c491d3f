"""What a real node stands on: namespaces of its own on this machine, and a link between the two.

Everything a node does to the machine it runs on happens in these namespaces and ends with them (see `nodeinit.py`). From outside only one
interface is seen, with a route to the pods and one to the Services; the kernel removes all three with the namespace at the other end. So
the API server, which stays outside, reaches webhooks by their Service, and pods reach it and the registry at the address of the link.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwarden.embedded import build, nodeinit
from mlwarden.embedded.processes import Keeper, Process, wait_until
from mlwarden.errors import ClusterError

_ATTEMPTS = 8
_SECONDS = 10.0
_PACKAGES = {"ip": "iproute2", "iptables": "iptables"}
_HEADER = Path("/usr/include/seccomp.h")
_MINIMUM_BYTES = 6 << 30
_LONGEST = 50
"""Bytes of the temporary folder's name: a socket's has 107 (unix(7)), and the kubelet's, 57 longer, is the longest."""
_SEPARATORS = frozenset(",:\\")
"""What a name in the options of an overlay cannot hold."""


class GroundError(ClusterError):
    """This machine cannot carry a node, or did not this time."""


@dataclass(frozen=True)
class Addresses:
    """A block 10.x.0.0/16 that nothing on this machine has a route to.

    Attributes:
        block: the block.
    """

    block: ipaddress.IPv4Network

    @property
    def host(self) -> str:
        """This machine's end of the link: where pods find the API server and the registry."""
        return str(self.block[1])

    @property
    def node(self) -> str:
        """The node's end."""
        return str(self.block[2])

    @property
    def pods(self) -> str:
        """The addresses of pods."""
        return f"{self.block[256]}/24"

    @property
    def services(self) -> str:
        """The addresses of Services."""
        return f"{self.block[16 * 256]}/20"

    @property
    def api_service(self) -> str:
        """The address that the API server's own Service gets: the first one."""
        return str(self.block[16 * 256 + 1])


class Ground:
    """The namespaces and the link. `start` may be called again after `stop`, and gives the same addresses: a machine that restarts.

    Args:
        keeper: sees to it that nothing is left when this process goes.

    Attributes:
        addresses: chosen free, once.
        name: of the cgroup and, cut, of the interface.
        state: the node's directory; it outlives a restart.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._holder: Process | None = None
        self._pid = 0
        self.name = f"mlwarden-{secrets.token_hex(4)}"
        self.state = keeper.directory / "node"
        self.addresses = Addresses(_free_block(set()))

    def start(self) -> None:
        """Makes the namespaces and the link.

        Raises:
            GroundError: the machine would not.
        """
        self.state.mkdir(exist_ok=True)
        for hierarchy in nodeinit.hierarchies():
            self._keeper.remove_cgroup(Path(hierarchy.path, self.name))
        self._holder = _hold(self.state, self.name, self._keeper)
        try:
            self._connect()
        except BaseException:
            self.stop()
            raise

    def _connect(self) -> None:
        self._pid = int((self.state / "pid").read_text(encoding="ascii"))
        refused: set[ipaddress.IPv4Network] = set()
        for _ in range(_ATTEMPTS):
            try:
                self._link()
            except GroundError:
                # Somebody took the block since: the other end of a half-made link goes with ours.
                refused.add(self.addresses.block)
                with contextlib.suppress(GroundError):
                    _run("ip", "link", "delete", self._interface)
                if len(refused) == _ATTEMPTS:
                    raise
                self.addresses = Addresses(_free_block(refused))
            else:
                return

    def stop(self) -> None:
        """Ends every process in the namespaces, and with them the namespaces, mounts, interfaces and rules."""
        if self._holder is not None:
            self._holder.kill()
            self._holder = None
            # Killed is not gone: until the last of them is, a restart would meet its files.
            if not wait_until(lambda: not Path(f"/proc/{self._pid}").exists(), seconds=_SECONDS):
                raise GroundError(f"process {self._pid}, the first of the node's namespaces, does not end", hint="what does `dmesg` say?")

    def enter(self, *command: str | Path) -> list[str | Path]:
        """Returns the command that runs this one in the namespaces; signals are passed on, the exit code comes back."""
        return [*_script(), "enter", str(self._pid), self.name, *command]

    def run(self, *command: str | Path) -> str:
        """Runs a command in the namespaces and returns what it wrote.

        Raises:
            GroundError: it exited with something other than 0.
        """
        return _run(*self.enter(*command), shown=command)

    def processes(self) -> dict[int, str]:
        """Returns the command line of everything that runs on it, by its process id out here; containers have namespaces of their own."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"/{self.name}" in (folder / "cgroup").read_text(encoding="utf-8"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    @property
    def _interface(self) -> str:
        return f"mlw{self.name.removeprefix('mlwarden-')}"

    def _link(self) -> None:
        addresses, interface = self.addresses, self._interface
        _run("ip", "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        _run("ip", "address", "add", f"{addresses.host}/30", "dev", interface)
        _run("ip", "link", "set", interface, "up")
        for inside in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "address", "add", f"{addresses.node}/30", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "route", "add", "default", "via", addresses.host),
            ("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
            # A pod that reaches another one of its node by a Service: the answer has to come the same way back.
            ("sh", "-c", "[ ! -e /proc/sys/net/bridge ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"),
        ):
            self.run(*inside)
        for network in (addresses.pods, addresses.services):
            _run("ip", "route", "add", network, "via", addresses.node)


@functools.cache
def obstacle() -> str:
    """Returns why this machine cannot carry a node, with what to do about it, or an empty text. Tries it once, for half a second."""
    if sys.platform != "linux":
        return "a real node needs Linux"
    if os.environ.get("MLWARDEN_NODE") == "skip":
        return "no real node is wanted here: MLWARDEN_NODE=skip"
    if os.geteuid() != 0:
        return "a real node needs root: it makes namespaces, mounts and interfaces"
    if missing := [package for tool, package in _PACKAGES.items() if shutil.which(tool) is None]:
        return f"a real node needs {' and '.join(missing)}: `make packages` installs what is missing"
    if not build.is_built("runc") and not (_HEADER.exists() and shutil.which("gcc") and shutil.which("pkg-config")):
        return (
            "a real node needs runc, which takes a C compiler and libseccomp's headers to build: `make packages` installs what is missing"
        )
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST or _SEPARATORS & set(folder):
        return (
            f"a real node needs a temporary folder with a name of at most {_LONGEST} bytes and none of , : \\ in it, and has {folder}; "
            "TMPDIR names another folder"
        )
    if (free := shutil.disk_usage(folder).free) < _MINIMUM_BYTES:
        return f"a real node needs {_MINIMUM_BYTES >> 30} GiB in {folder}, and {free / 2**30:.1f} are free; TMPDIR names another folder"
    if not list(nodeinit.hierarchies()):
        return "a real node needs cgroups, and none are mounted in /sys/fs/cgroup"
    keeper = Keeper("mlwarden-trial-")
    try:
        trial = Ground(keeper)
        trial.start()
        trial.stop()
    except GroundError as error:
        return f"this machine carries no node: {error.message}"
    finally:
        keeper.close()
    return ""


def _hold(state: Path, name: str, keeper: Keeper) -> Process:
    for file in ("pid", "ready"):
        (state / file).unlink(missing_ok=True)
    holder = Process("node", [*_script(), "hold", state, name], log=state / "namespaces.log", keeper=keeper)

    def is_over() -> bool:
        return not holder.alive or all((state / file).exists() for file in ("pid", "ready"))

    if not wait_until(is_over, seconds=_SECONDS) or not holder.alive:
        said = holder.tail(3)
        holder.kill()
        raise GroundError(
            said or f"no namespaces after {_SECONDS:.0f} s", hint="needed are root with all capabilities, overlay file systems and cgroups"
        )
    return holder


def _script() -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", nodeinit.__file__)


def _free_block(refused: set[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A 10.x.0.0/16 at random, such that nothing on this machine has a route into it."""
    routes = [route["dst"] for route in json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all"))]
    taken = [ipaddress.ip_network(each, strict=False) for each in routes if each != "default"]
    blocks = [ipaddress.IPv4Network(f"10.{number}.0.0/16") for number in range(64, 255)]
    free = [block for block in blocks if block not in refused and not any(block.overlaps(each) for each in taken)]
    if not free:
        raise GroundError("every block 10.64.0.0/16 to 10.254.0.0/16 has a route on this machine", hint="a VPN? stop it for the run")
    return random.choice(free)  # noqa: S311 -- no secret


def _run(*command: str | Path, shown: Sequence[str | Path] = ()) -> str:
    answer = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = answer.stderr.strip() or answer.stdout.strip()
        raise GroundError(f"`{' '.join(map(str, shown or command))}` exited with {answer.returncode}: {said}")
    return answer.stdout
