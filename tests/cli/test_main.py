"""The table of commands, and what every command has in common."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlwarden import __version__
from mlwarden.cli import main as entry
from mlwarden.cli.main import COMMANDS, main
from mlwarden.errors import InputError


def test_without_a_command_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in COMMANDS)
    assert "example:" in said


def test_the_version_is_told_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mlwarden {__version__}\n" * 2


def test_a_command_that_does_not_exist_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["chekc"])
    assert "check" in capsys.readouterr().err


def test_an_error_is_told_with_what_to_do_next(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise InputError("it broke", hint="mend it")

    monkeypatch.setattr(entry, "_run", fails)
    assert main(["check"]) == 2
    assert capsys.readouterr().err == "mlwarden: it broke\n  → mend it\n"


def test_kubectl_s_plugin_says_its_own_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-mlwarden"])
    assert main([]) == 0
    assert "kubectl mlwarden check deploy/" in capsys.readouterr().out


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    pods = "\n---\n".join(
        f"{{apiVersion: v1, kind: Pod, metadata: {{name: p{n}}}, spec: {{hostPID: true, containers: [{{}}]}}}}" for n in range(500)
    )
    (tmp_path / "pods.yaml").write_text(pods)
    command = [sys.executable, "-m", "mlwarden.cli.main", "check", "--verbose", str(tmp_path / "pods.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_importing_the_table_imports_no_command() -> None:
    code = "import sys, mlwarden.cli.main as m; print([n for n, _ in m.COMMANDS.values() if n in sys.modules], 'kopf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec(COMMANDS[command][0]) is None:
        pytest.skip("not written yet")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "example" in capsys.readouterr().out.lower()
