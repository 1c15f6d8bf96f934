"""Times the README's `dvc repro` in a clean clone of the last commit: stage by stage, then again.

    python tests/benchmarks/default_run.py

Needs the environment of requirements.txt active. Shared machines are noisy: quote these seconds
with the machine, and compare only within one run.
"""

import json
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS = re.compile(r"Running stage '(\w+)")


def timed_repro(clone: Path) -> tuple[float, dict[str, float]]:
    """Seconds of a whole `dvc repro` and of each stage (all its seeds, dvc's own work included)."""
    stages: dict[str, float] = defaultdict(float)
    start = since = time.perf_counter()
    current = "dvc"
    with subprocess.Popen(["dvc", "repro"], cwd=clone, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            found = STARTS.search(line)
            if found:
                now = time.perf_counter()
                stages[current] += now - since
                current, since = found[1], now
    if run.returncode:
        raise SystemExit(f"dvc repro failed with exit code {run.returncode}")
    end = time.perf_counter()
    stages[current] += end - since
    return end - start, stages


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        first, stages = timed_repro(clone)
        second, _ = timed_repro(clone)
        hardware = json.loads((clone / "artifacts/hardware.json").read_text(encoding="utf-8"))
    print(f"{hardware['cpu']}, {hardware['cores']} cores, torch {hardware['torch']}, n = 1")
    for name, seconds in stages.items():
        print(f"{name:18}{seconds:8.1f} s")
    print(f"{'first dvc repro':18}{first:8.1f} s")
    print(f"{'second dvc repro':18}{second:8.1f} s")


if __name__ == "__main__":
    main()
