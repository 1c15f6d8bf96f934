"""Times the README's `dvc repro` in a clean clone of the last commit: stage by stage, then again.

    python -m tests.benchmarks.default_run [STAGE …]

Of the stages that are named and what they need, or of all. Shared machines are noisy: quote these
seconds with the machine, and compare only within one run.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from stages.lib.analysis import tables
from tests.benchmarks.common import ROOT, parser, timed

STARTS = re.compile(r"Running stage '(\w+)")


def repro(clone: Path, targets: list[str]) -> dict[str, float]:
    """Runs `dvc repro`. The seconds of each stage (all its seeds, dvc's own work included)."""
    stages: dict[str, float] = defaultdict(float)
    current, since = "dvc", time.perf_counter()
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    with subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            if match := STARTS.search(line):
                now = time.perf_counter()
                stages[current] += now - since
                current, since = match[1], now
    if run.returncode:
        raise SystemExit(f"dvc repro failed with exit code {run.returncode}")
    stages[current] += time.perf_counter() - since
    return stages


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("stages", metavar="STAGE", nargs="*")
    targets = arguments.parse_args().stages
    whole: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        with timed(whole, "first dvc repro"):
            stages = repro(clone, targets)
        with timed(whole, "second dvc repro"):
            repro(clone, targets)
        hardware = json.loads((clone / "artifacts/hardware.json").read_text(encoding="utf-8"))
    print(f"{hardware['cpu']}, {hardware['cores']} cores, torch {hardware['torch']}, n = 1\n")
    rows = [(name, f"{seconds:.1f}") for name, seconds in {**stages, **whole}.items()]
    print(tables.Table(("stage", "s"), rows).markdown())


if __name__ == "__main__":
    main()
