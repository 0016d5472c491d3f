"""`make bench-compare COMMIT=…`: this commit beside another one, alternating in one run.

Each round starts a control plane of its own for each commit, in turn, and installs mlwarden from that commit's chart. The figures are what
the parts `pods` and `images` are about: a pod of 6 KB as installed, the same with the webhook alone, and a small pod whose one image must
be signed. Medians of the rounds are compared; the spread is (largest - smallest) / median of one commit's own rounds. A difference smaller
than the spread counts as none.

Rejected: comparing figures of two runs of `make bench`: from hour to hour machines differ by more than commits do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent


def compare(trees: Mapping[str, Path], rounds: int, count: int) -> dict[str, list[dict[str, float]]]:
    """Returns commit → the figures of each round; the commits take turns, and who is first changes from round to round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for number in range(rounds):
        for name in sorted(trees, reverse=number % 2 == 1):
            tree = trees[name]
            command = [sys.executable, "-P", str(HERE / "compare_round.py"), str(count)]
            environment = {**os.environ, "PYTHONPATH": f"{tree / 'operator'}{os.pathsep}{tree / 'benchmarks'}"}
            done = subprocess.run(command, env=environment, cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {name}: done", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD~1", help="the other commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git = ["git", "-C", str(HERE.parent)]
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(other), options.commit], check=True)
        try:
            found = compare({"before": other, "now": HERE.parent}, options.rounds, options.count)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(other)], check=True)
    print(f"\n{os.cpu_count()} cores, {options.rounds} rounds of {options.count} pods each, alternating, ms, medians\n")
    print("| ms per pod | before | now | ratio | spread before · now |\n| --- | --- | --- | --- | --- |")
    for figure in found["now"][0]:
        before, now = ([each[figure] for each in found[name]] for name in ("before", "now"))
        middle = {"before": statistics.median(before), "now": statistics.median(now)}
        spread = [(max(each) - min(each)) / statistics.median(each) for each in (before, now)]
        print(
            f"| {figure} | {middle['before']:.2f} | {middle['now']:.2f} | {middle['now'] / middle['before']:.3f} "
            f"| {spread[0]:.0%} · {spread[1]:.0%} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
