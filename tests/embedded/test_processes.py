"""Child processes go when their parent goes, and take their own children with them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlwarden.embedded.processes import Keeper, Process, free_port, wait_until

PARENT = """
import sys, threading
from pathlib import Path
from mlwarden.embedded.processes import Keeper, Process
keeper = Keeper()
log = keeper.directory / "log"
started = []
command = ["sh", "-c", "sleep 1000 & echo $!; wait"]
thread = threading.Thread(target=lambda: started.append(Process("family", command, log=log, keeper=keeper)))
thread.start()
thread.join()
while not log.read_text().strip():
    assert started[0].alive
print(keeper.directory, started[0].pid, log.read_text().strip(), flush=True)
sys.stdin.read()
"""


def runs(pid: int) -> bool:
    """Whether the process runs; a zombie does not (whoever adopted it may take its time to collect it)."""
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8") if sys.platform == "linux" else True
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_and_grandchildren_end_with_the_parent_and_the_directory_goes(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        directory, child, grandchild = parent.stdout.readline().split()
        # The thread that asked for the child has ended; the child has not.
        assert runs(int(child))
        assert runs(int(grandchild))
        parent.send_signal(number)
    assert wait_until(lambda: not runs(int(child)) and not runs(int(grandchild)), seconds=20)
    assert wait_until(lambda: not Path(directory).exists(), seconds=20)


def test_stop_asks_first_and_then_kills() -> None:
    keeper = Keeper()
    stubborn = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done"
    process = Process("stubborn", ["sh", "-c", stubborn], log=keeper.directory / "log", keeper=keeper)
    assert wait_until(lambda: process.tail() == "ready", seconds=20)
    process.stop(grace=0.5)
    assert process.returncode == -signal.SIGKILL
    assert "asked" in process.tail()
    keeper.close()
    assert not keeper.directory.exists()


def test_a_program_that_is_not_there_ends_with_a_reason_in_its_log() -> None:
    keeper = Keeper()
    process = Process("nothing", ["/no/such/program"], log=keeper.directory / "log", keeper=keeper)
    assert wait_until(lambda: not process.alive, seconds=20)
    assert "No such file" in process.tail()
    process.kill()
    keeper.close()


def test_closing_twice_is_harmless() -> None:
    keeper = Keeper()
    keeper.close()
    keeper.close()


def test_free_ports_are_free_and_below_those_of_outgoing_connections() -> None:
    ports = {free_port() for _ in range(20)}
    assert all(10_000 <= port < 32_000 for port in ports)


def test_waiting_returns_the_answer_or_gives_up() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), seconds=20) == 7
    assert not wait_until(lambda: False, seconds=0)
