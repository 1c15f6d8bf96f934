"""Every benchmark runs, on a setting that takes seconds: what it prints here is no measurement."""

import runpy
import sys

import pytest

from stages.lib.models import checkpoints
from tests import toys
from tests.conftest import ROOT

# plain_protocol is run by protocol_speed.
SMALL = {
    "default_run": ("prepare_data", "first dvc repro"),
    "packed_size": ("MODEL", "over bound"),
    "prepare_memory": ("--images 100 --size 16", "peak memory"),
    "protocol_speed": ("--train 100 --width 4 --threads 1", "iterative 0.9"),
    "structured_families": ("squeezenet1_1", "masked − small"),
}


def test_every_benchmark_is_run_here():
    benchmarks = {path.stem for path in (ROOT / "tests/benchmarks").glob("*.py")}
    assert benchmarks == {*SMALL, "plain_protocol", "common", "test_benchmarks"}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_its_numbers(monkeypatch, tmp_path, capsys, name):
    arguments, words = SMALL[name]
    model = tmp_path / "network.safetensors"
    checkpoints.save_model(toys.convnet(), model)
    monkeypatch.setattr(sys, "argv", [name, *arguments.replace("MODEL", str(model)).split()])
    runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__")
    assert words in capsys.readouterr().out
