"""Times the README's `dvc repro` in a clean clone of the last commit: stage by stage, then again.

    python -m tests.benchmarks.default_run [STAGE …]

Of the stages that are named and what they need, or of all. Shared machines are noisy: quote these
seconds with the machine, and compare only within one run.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS = re.compile(r"Running stage '(\w+)")


def timed_repro(clone: Path, targets: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds of a whole `dvc repro` and of each stage (all its seeds, dvc's own work included)."""
    stages: dict[str, float] = defaultdict(float)
    start = since = time.perf_counter()
    current = "dvc"
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    with subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            if match := STARTS.search(line):
                now = time.perf_counter()
                stages[current] += now - since
                current, since = match[1], now
    if run.returncode:
        raise SystemExit(f"dvc repro failed with exit code {run.returncode}")
    end = time.perf_counter()
    stages[current] += end - since
    return end - start, stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stages", metavar="STAGE", nargs="*")
    targets = parser.parse_args().stages
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        first, stages = timed_repro(clone, targets)
        second, _ = timed_repro(clone, targets)
        hardware = json.loads((clone / "artifacts/hardware.json").read_text(encoding="utf-8"))
    print(f"{hardware['cpu']}, {hardware['cores']} cores, torch {hardware['torch']}, n = 1")
    for name, seconds in stages.items():
        print(f"{name:18}{seconds:8.1f} s")
    print(f"{'first dvc repro':18}{first:8.1f} s")
    print(f"{'second dvc repro':18}{second:8.1f} s")


if __name__ == "__main__":
    main()
