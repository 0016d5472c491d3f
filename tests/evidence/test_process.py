import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwarden.evidence.process import Completed, DiskError, Limits, OutputTooLargeError, StalledError, TimedOutError, run


async def python(directory: Path, source: str, **limits: float) -> Completed:
    argv = [sys.executable, "-c", textwrap.dedent(source)]
    return await run(argv, environment={"ONLY": "this"}, directory=directory, limits=Limits(**{"seconds": 20, **limits}))


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], bool]) -> bool:
    """True as soon as `condition` is; a TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
    return True


async def gone(pid: int) -> bool:
    return await until(lambda: not alive(pid))


async def test_output_errors_and_code_come_back(tmp_path: Path) -> None:
    done = await python(tmp_path, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert done == Completed(code=3, output=b"out\n", errors="err\n")


async def test_the_environment_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_TOKEN", "hunter2")
    done = await python(tmp_path, "import os; print(sorted(os.environ), os.getcwd())")
    assert done.output.decode().split("]")[0] in {"['GOGC', 'GOMEMLIMIT', 'ONLY'", "['GOGC', 'GOMEMLIMIT', 'LC_CTYPE', 'ONLY'"}
    assert str(tmp_path) in done.output.decode()


async def test_the_limits_are_on_the_process(tmp_path: Path) -> None:
    source = """
        import resource as r
        print([r.getrlimit(k) for k in (r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_AS, r.RLIMIT_DATA)])
        print([line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')])
    """
    done = await python(tmp_path, source, cpu_seconds=7, file_bytes=1 << 20, address_space=1 << 32, data=1 << 30)
    assert done.output.decode().splitlines() == [
        "[(7, 7), (1048576, 1048576), (4294967296, 4294967296), (1073741824, 1073741824)]",
        "['1']",
    ]


async def test_a_process_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("pids", "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    """
    with pytest.raises(TimedOutError, match="ran for more than 2 s"):
        await python(tmp_path, source, seconds=2)
    for pid in (tmp_path / "pids").read_text().split():
        assert await gone(int(pid))


async def test_a_child_that_keeps_the_pipe_open_does_not_keep_us(tmp_path: Path) -> None:
    source = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("pids", "w").write(str(child.pid))
    """
    with pytest.raises(TimedOutError):
        await python(tmp_path, source, seconds=2)
    assert await gone(int((tmp_path / "pids").read_text()))


async def test_endless_output_is_cut_off_and_the_process_killed(tmp_path: Path) -> None:
    with pytest.raises(OutputTooLargeError):
        await python(tmp_path, "import os\nopen('pid', 'w').write(str(os.getpid()))\nwhile True: print('x' * 1000)", output=100_000)
    assert await gone(int((tmp_path / "pid").read_text()))


async def test_endless_errors_are_forgotten_but_for_the_end(tmp_path: Path) -> None:
    done = await python(tmp_path, "import sys\nfor i in range(200_000): print('x' * 100, file=sys.stderr)\nprint('end', file=sys.stderr)")
    assert done.errors.endswith("end\n")
    assert len(done.errors) < 20_000
    assert done.cut


async def test_more_of_the_errors_is_kept_where_that_is_said(tmp_path: Path) -> None:
    done = await python(tmp_path, "import sys\nprint('x' * 99_999, file=sys.stderr)", errors=100_000)
    assert (len(done.errors), done.cut) == (100_000, False)


async def test_a_cancelled_run_leaves_nothing_behind(tmp_path: Path) -> None:
    source = "import os, time\nopen('part', 'w').write(str(os.getpid()))\nos.rename('part', 'pid')\ntime.sleep(600)"
    task = asyncio.create_task(python(tmp_path, source))
    await until((tmp_path / "pid").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(int((tmp_path / "pid").read_text()))


async def test_the_process_dies_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    source = f"""
        import asyncio, sys
        from pathlib import Path
        from mlwarden.evidence.process import Limits, run
        inner = "import os, time\\nopen('part', 'w').write(str(os.getpid()))\\nos.rename('part', 'pid')\\ntime.sleep(600)"
        asyncio.run(run([sys.executable, "-c", inner], environment={{}}, directory=Path({str(tmp_path)!r}), limits=Limits()))
    """
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(source))
    await until((tmp_path / "pid").exists)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    assert await gone(int((tmp_path / "pid").read_text()))


async def test_a_program_that_is_not_there_is_a_failure_like_any_other(tmp_path: Path) -> None:
    done = await run([str(tmp_path / "nothing")], environment={}, directory=tmp_path, limits=Limits(seconds=20))
    assert done.code == 1
    assert "No such file" in done.errors


async def test_what_gets_nowhere_is_killed(tmp_path: Path) -> None:
    with pytest.raises(StalledError, match=r"got nowhere for \d+ s and was killed"):
        await python(tmp_path, "import time; time.sleep(600)", stalled=1)


async def test_a_byte_now_and_then_is_nowhere(tmp_path: Path) -> None:
    source = """
        import os, time
        reader, writer = os.pipe()
        while True:
            os.write(writer, b"x")
            os.read(reader, 1)
            time.sleep(0.05)
    """
    with pytest.raises(StalledError):
        await python(tmp_path, source, stalled=1)


async def test_what_computes_or_reads_is_not_stopped(tmp_path: Path) -> None:
    computing = "import time; end = time.process_time() + 1.5\nwhile time.process_time() < end: pass\nprint('done')"
    assert (await python(tmp_path, computing, stalled=0.5)).output == b"done\n"
    reading = """
        import time
        for _ in range(30):
            open("/dev/zero", "rb", buffering=0).read(1 << 20)
            time.sleep(0.05)
        print("done")
    """
    assert (await python(tmp_path, reading, stalled=0.5)).output == b"done\n"


async def test_what_fills_the_disk_is_killed(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    source = """
        import time
        open("large", "wb").write(b"x" * (3 << 20))
        time.sleep(600)
    """
    with pytest.raises(DiskError, match="more than 2 MiB"):
        await python(tmp_path / "work", source, disk=2 << 20, stalled=15)
