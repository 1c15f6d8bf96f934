"""A stage that is killed again and again does nearly nothing twice, and leaves the same bytes."""

import json
import re
import shutil
import sys

import pytest

from tests.arms.test_same_bytes import hashes
from tests.arms.toy_stage import ended, start
from tests.conftest import TINY, Repository

KILLS = 10
STAGES = ("finetune", "iterative_prune", "compress")

# Forks a process for each try, as importing torch takes much longer than the stage. Every training
# step writes a byte to the file `steps`.
PROGRAM = """
import json, os, random, runpy, signal, sys, time
from stages.lib.training import optimizer, recovery

stage, kills = sys.argv[1], int(sys.argv[2])
counter = os.open("steps", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
steps = lambda: os.fstat(counter).st_size
usual = optimizer.SGD.step

def step(*arguments):
    usual(*arguments)
    os.write(counter, b".")

def run():
    child = os.fork()
    if child == 0:
        optimizer.SGD.step = step
        sys.argv = ["", "--seed", "0"]
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
        sys.stdout.flush()
        os._exit(0)
    return child

random.seed(0)
killed = 0
while True:
    child = run()
    limit = steps() + random.randint(0, 3) + random.random() if killed < kills else float("inf")
    while not (done := os.waitpid(child, os.WNOHANG)[0]):
        if steps() >= limit:
            # Anywhere between this step and the next.
            time.sleep(random.random() / 200)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
            break
        time.sleep(0.0005)
    if done:
        break
print(json.dumps({"killed": killed, "steps": steps()}))
"""


def run(repository, stage, kills):
    """Runs a stage in spite of so many kills: how many there were, and the steps of training."""
    done = repository.run(sys.executable, "-c", PROGRAM, stage, str(kills))
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    return json.loads(last) | {"told": [line for line in told if "goes on" in line]}


def test_a_stage_killed_at_any_time_repeats_a_step_a_kill_at_most(tmp_path):
    repository = Repository(tmp_path / "repository", TINY)
    repository.change("finetune.epochs", 3)
    repository.change("iterative_prune.epochs_per_step", 3)
    repository.change("compress.arms", ["both"])
    repository.change("compress.epochs", 3)
    repository.stages("probe", "prepare_data", "train_baseline", "train_teacher", "global_prune")
    undisturbed = {stage: run(repository, stage, 0) for stage in STAGES}
    expected = hashes(repository)
    for stage in STAGES:
        shutil.rmtree(repository.path / "artifacts" / stage)
    repository.change("engine.state_minutes", 0)
    for stage in STAGES:
        found = run(repository, stage, KILLS)
        assert found["killed"] == KILLS
        assert 0 <= found["steps"] - undisturbed[stage]["steps"] <= KILLS
        assert undisturbed[stage]["told"] == []
        assert 0 < len(found["told"]) <= KILLS
        point = r"(\d+ of \d+ arms are done|[^,]+ from epoch [1-3] of 3)"
        line = re.compile(rf"{stage}@0: goes on: {point}(, {point})*")
        assert all(line.fullmatch(one) for one in found["told"]), found["told"]
    assert hashes(repository) == expected
    left = [path.name for path in (repository.path / "artifacts/finetune").iterdir()]
    assert sorted(left) == [".seed-0.key", "seed-0"]


@pytest.fixture
def seeds(toy):
    """The toy stage for three seeds. Nothing waits."""
    toy.change("seeds", [0, 1, 2])
    (toy.path / "wait").unlink()
    return toy


def done(toy):
    return sorted((toy.path / "done.txt").read_text().split())


def test_free_workers_do_the_other_seeds_arms_unless_they_are_done(seeds):
    for seed in (0, 1, 2):
        process = start(seeds, "fine-1", "fine-2", seed=seed)
        assert (ended(process), process.returncode) == ("", 0)
        assert done(seeds) == 3 * ["fine-1"] + 3 * ["fine-2"]
        folder = seeds.path / f"artifacts/toy/seed-{seed}"
        assert sorted(path.name for path in folder.glob("*.txt")) == ["fine-1.txt", "fine-2.txt"]
    # One seed alone is run again: the others are done.
    shutil.rmtree(seeds.path / "artifacts/toy/seed-1")
    ended(start(seeds, "fine-1", "fine-2", seed=1))
    assert done(seeds) == 4 * ["fine-1"] + 4 * ["fine-2"]
    # Its code is another: all are outdated.
    with (seeds.path / "stages/toy.py").open("a") as file:
        file.write("# edited\n")
    ended(start(seeds, "fine-1", "fine-2", seed=0))
    assert done(seeds) == 7 * ["fine-1"] + 7 * ["fine-2"]


def test_a_seed_alone_does_its_own_arms_where_that_is_asked_for(seeds):
    seeds.change("engine.ahead", False)
    ended(start(seeds, "fine-1", "fine-2"))
    assert done(seeds) == ["fine-1", "fine-2"]


def test_an_error_of_another_seed_is_left_to_its_stage(seeds):
    process = start(seeds, "only0-1", "fine-2")
    assert (ended(process), process.returncode) == ("", 0)
    process = start(seeds, "only0-1", "fine-2", seed=1)
    assert (ended(process), process.returncode) == ("error: seed 1\n", 2)
