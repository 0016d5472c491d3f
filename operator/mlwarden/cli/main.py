"""The entry point of every command and every process: a table, and nothing else.

A command is a module with `main(argv) -> int`, imported when it is called: the webhook does not pay for the demo, nor `check` for kopf.
`kubectl mlwarden …` is the same program under the name that kubectl looks for. Rejected: one argparse tree for all, which imports them all.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mlwarden import __version__
from mlwarden.errors import Error

COMMANDS = {
    "check": ("mlwarden.cli.check", "judge manifests before they are applied, word for word as the cluster would"),
    "why": ("mlwarden.cli.why", "why a pod waits, and what would release it"),
    "evidence": ("mlwarden.cli.evidence", "what is known about an image: digest, scan, signatures, age, and who runs it"),
    "demo": ("mlwarden.cli.demo", "a throwaway cluster, a dozen workloads, and what becomes of them"),
    "webhook": ("mlwarden.admission.serve", "the admission webhook (a process of the chart)"),
    "controller": ("mlwarden.controllers.main", "the controller (a process of the chart)"),
    "releaser": ("mlwarden.controllers.releaser_main", "the releaser of held pods (a process of the chart)"),
    "scanner": ("mlwarden.scanner.main", "the scanner (a process of the chart)"),
    "crds": ("mlwarden.controllers.install", "apply the custom resource definitions (the chart's pre-install hook)"),
    "prune": ("mlwarden.controllers.install", "take away what an earlier version compiled (the chart's post-upgrade hook)"),
    "free": ("mlwarden.controllers.install", "take the gate off everything that is held (the chart's pre-delete hook)"),
}
"""Command → the module that runs it, and one line of help."""
SEVERAL = frozenset({"mlwarden.controllers.install"})
"""Modules of several commands: their `main` gets the command's name as its first argument."""

FAILED = 2
"""Exit code where a command could not do what was asked."""
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the arguments after the program's name; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in COMMANDS:
            return _run(arguments[0], arguments[1:])
        return _other(arguments)
    except Error as error:
        from mlwarden.cli import terminal  # noqa: PLC0415 -- a process of the chart that does not fail need not have it

        terminal.complain(program(), error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads our output has stopped. Python would complain again when it flushes at exit, so there is nothing left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def program() -> str:
    """Returns the name the user called: `mlwarden` or `kubectl mlwarden`."""
    return "kubectl mlwarden" if Path(sys.argv[0]).name.startswith("kubectl-mlwarden") else "mlwarden"


def _run(command: str, arguments: list[str]) -> int:
    name, _ = COMMANDS[command]
    code: int = import_module(name).main([command, *arguments] if name in SEVERAL else arguments)
    sys.stdout.flush()
    return code


def _other(arguments: list[str]) -> int:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Admission control for machine learning on Kubernetes.",
        epilog="commands:\n"
        + "\n".join(f"  {command.ljust(width)}  {text}" for command, (_, text) in COMMANDS.items())
        + f"\n  {'version'.ljust(width)}  the version"
        + f"\n\nexample:\n  {program()} check deploy/ --profile production\n\n`{program()} COMMAND --help` explains each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{program()} COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"mlwarden {__version__}")
    parser.add_argument("command", help="what to do", metavar="COMMAND", choices=[*COMMANDS, "version"], nargs="?")
    if parser.parse_args(arguments).command is None:
        parser.print_help()
        return 0
    print(f"mlwarden {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
