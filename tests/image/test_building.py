"""Building: refused with a reason where it cannot be, cleaned up however it ends, and twice the same."""

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mlwarden.embedded import build, ownimage
from mlwarden.embedded.processes import wait_until

from .container import blob  # type: ignore[import-not-found]

pytestmark = pytest.mark.timeout(3600)

INTERRUPTED = """
import pathlib, sys
from mlwarden.embedded import ownimage
ownimage.build_image(pathlib.Path(sys.argv[1]), fresh=True)
"""


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ownimage.obstacle().startswith("building an image needs root")


def test_what_is_missing_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "apt-get").touch(mode=0o755)
    (tmp_path / "unshare").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ownimage.obstacle() == "building an image needs debootstrap, buildah, not on PATH: apt-get install buildah debootstrap"


def test_a_full_disk_is_noticed_before_it_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if reason := ownimage.obstacle():
        pytest.skip(reason)
    monkeypatch.setenv("MLWARDEN_CACHE", str(tmp_path))
    monkeypatch.setattr(ownimage, "_FREE_BYTES", 1 << 60)
    with pytest.raises(build.BuildError, match=f"GiB free in {tmp_path}"):
        ownimage.build_image(tmp_path / "layout")


def test_the_key_changes_with_what_goes_into_the_image_and_with_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("operator/mlwarden/a.py", "Dockerfile", "tools/trivy/go.mod", "tests/test_a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(build, "source_tree", lambda: tmp_path)
    monkeypatch.setattr(ownimage, "_INPUTS", ("Dockerfile", "operator", "tools/trivy"))
    seen = {ownimage._key()}
    for name in ("operator/mlwarden/a.py", "Dockerfile", "tools/trivy/go.mod"):
        (tmp_path / name).write_text("2")
        assert ownimage._key() not in seen
        seen.add(ownimage._key())
    (tmp_path / "tests/test_a.py").write_text("2")
    (tmp_path / "operator/mlwarden/__pycache__").mkdir()
    (tmp_path / "operator/mlwarden/__pycache__/a.pyc").write_text("2")
    assert ownimage._key() in seen


def test_two_builds_from_scratch_are_the_same_to_the_last_byte(image: ownimage.Image, tmp_path: Path) -> None:
    """But for what Debian has changed since the first: then that is all that differs."""
    again = ownimage.build_image(tmp_path / "again", fresh=True)
    if again.digest == image.digest:
        return
    first, second = (contents(each) for each in (image, again))
    differing = sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))
    assert differing, "the files are the same, and the layers are packed differently"
    assert first["var/lib/dpkg/status"] != second["var/lib/dpkg/status"], differing[:20]
    assert not [path for path in differing if path.startswith(("opt/", "usr/local/"))], differing[:20]


def contents(image: ownimage.Image) -> dict[str, tuple[object, ...]]:
    """Everything about every entry of every layer, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for layer in blob(image, image.digest)["layers"]:
        with tarfile.open(image.layout / "blobs" / layer["digest"].replace(":", "/")) as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isfile() else None
                about = (entry.type, entry.mode, entry.uid, entry.gid, entry.mtime, entry.linkname, entry.pax_headers)
                found[entry.name] = (*about, hash(content.read()) if content else None)
    return found


@pytest.mark.parametrize(("at", "with_base"), [("Unpacking", False), ("STEP 4", True)])
def test_a_build_that_is_killed_leaves_nothing_mounted_running_or_lying_about(
    image: ownimage.Image, tmp_path: Path, at: str, *, with_base: bool
) -> None:
    """In the middle of debootstrap, and in the middle of buildah; both mount."""
    cache = tmp_path / "cache"
    (cache / "image").mkdir(parents=True)
    (cache / "tools").symlink_to(build.cache() / "tools")
    for base in image.layout.parent.glob("base-*.tar") if with_base else ():
        (cache / "image" / base.name).symlink_to(base)
    (cache / "image" / ".image-of-an-earlier-one.1").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "MLWARDEN_CACHE": str(cache)}
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path / "layout")], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: at in "".join(log.read_text() for log in tmp_path.glob("mlwarden-image-*/log")), seconds=120)
        assert working(tmp_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_until(lambda: not list(tmp_path.glob("mlwarden-image-*")), seconds=30)
    assert wait_until(lambda: not working(tmp_path), seconds=30)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not (tmp_path / "layout").exists()
    assert not list((cache / "image").glob(".*"))


def working(directory: Path) -> list[str]:
    """Command lines of debootstrap and buildah that work below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if ("buildah" in line or "debootstrap" in line) and str(directory) in line:
            found.append(line)
    return found
