"""An image, unpacked and run as a node would: its own user, a read-only root, no capabilities, no way to new privileges."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlwarden.embedded.ownimage import Image

_ENTER = """
import ctypes, os, sys
BIND, RECURSIVE, REMOUNT, READ_ONLY = 4096, 16384, 32, 1
root, user, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags, data=b""):
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data) != 0:
        raise OSError(ctypes.get_errno(), f"mount on {target}")
mount(root, root, "", BIND)
mount(root, root, "", BIND | REMOUNT | READ_ONLY)
mount("/dev", root + "/dev", "", BIND | RECURSIVE)
mount("proc", root + "/proc", "proc", 0)
mount("tmpfs", root + "/tmp", "tmpfs", 0, b"mode=1777")
os.chroot(root)
os.chdir("/")
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
libc.prctl(38, 1, 0, 0, 0)
os.execve(path, sys.argv[3:], dict(os.environ))
"""


class Container:
    """One unpacked image.

    Args:
        image: its layers may hide nothing of one another (no whiteouts).
        root: an empty folder that becomes its root file system.

    Attributes:
        config: `config` of the image's configuration.
        files: every entry of its layers, by path without a leading slash.
    """

    def __init__(self, image: Image, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        self.files: dict[str, tarfile.TarInfo] = {}
        manifest = blob(image, image.digest)
        self.config: dict[str, Any] = blob(image, manifest["config"]["digest"])["config"]
        for layer in manifest["layers"]:
            with tarfile.open(image.layout / "blobs" / layer["digest"].replace(":", "/")) as tar:
                self.files |= {member.name: member for member in tar.getmembers()}
                tar.extractall(root, filter="fully_trusted")

    def run(self, *arguments: str, program: Sequence[str] = (), input: str = "") -> subprocess.CompletedProcess[str]:  # noqa: A002 -- as subprocess
        """Runs the entrypoint, or another program of the image, with the image's environment and nothing else."""
        user = self.config["User"].partition(":")[0]
        enter = [sys.executable, "-I", "-S", "-c", _ENTER, str(self.root), user, *(program or self.config["Entrypoint"]), *arguments]
        unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        environment = dict(each.split("=", 1) for each in self.config["Env"])
        return subprocess.run([*unshare, *enter], env=environment, input=input, capture_output=True, text=True, check=False)


def blob(image: Image, digest: str) -> Any:
    """Returns one of the layout's JSON documents."""
    return json.loads((image.layout / "blobs" / digest.replace(":", "/")).read_bytes())
