"""Every benchmark runs, on a setting that takes seconds: what it prints here is no measurement."""

import subprocess
import sys

import pytest

from stages.lib.models import checkpoints
from tests import toys
from tests.conftest import ROOT

# plain_protocol is run by protocol_speed.
SMALL = {
    "default_run": (["prepare_data"], "first dvc repro"),
    "packed_size": (["MODEL"], "over bound"),
    "prepare_memory": (["--images", "100", "--size", "16"], "peak memory"),
    "protocol_speed": (
        ["--train", "100", "--width", "4", "--threads", "1"], "iterative 0.9",
    ),
    "structured_families": (["squeezenet1_1"], "masked − small"),
}  # fmt: skip


def test_every_benchmark_is_run_here():
    benchmarks = {path.stem for path in (ROOT / "tests/benchmarks").glob("*.py")}
    assert benchmarks == {*SMALL, "plain_protocol", "test_benchmarks"}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_its_numbers(name, tmp_path):
    arguments, words = SMALL[name]
    model = tmp_path / "network.safetensors"
    checkpoints.save_model(toys.convnet(), model)
    arguments = [str(model) if argument == "MODEL" else argument for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
