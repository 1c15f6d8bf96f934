"""The line of a stage: its place, its time, and what is left, also if little is known."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stages.lib.core import params, paths, pipeline, progress, timing
from stages.lib.core.pipeline import Declared

ROOT = Path(__file__).parents[2]
EVERYTHING = params.read(*params.SECTIONS, path=ROOT / "params.yaml")
STAGES = {
    "probe": {"always_changed": True, "outs": ["artifacts/hardware.json"]},
    "train": {
        "matrix": {}, "deps": ["artifacts/hardware.json"],
        "outs": ["artifacts/train/seed-${item.seed}"],
    },
    "prune": {
        "matrix": {}, "deps": ["artifacts/train/seed-${item.seed}"],
        "outs": ["artifacts/prune/seed-${item.seed}"],
    },
    "time": {"deps": ["artifacts/train"], "outs": ["artifacts/time"]},
    "report": {"deps": ["artifacts/prune", "artifacts/time"], "outs": ["reports/page"]},
}  # fmt: skip
DECLARED = {name: Declared(entry) for name, entry in STAGES.items()}
PLAN = timing.plan(DECLARED, [0, 1])


def test_the_order_of_the_pipeline_is_one_in_which_it_can_run():
    entries = {}
    for path in reversed(paths.PIPELINES):
        entries |= pipeline.stages([ROOT / path])
    made = set()
    for name, entry in entries.items():
        declared = Declared(entry)
        read = [dep for dep in declared.deps(0) if dep.parts[0] in ("artifacts", "data")]
        assert {dep.parts[:2] for dep in read} <= made, name
        made |= {out.parts[:2] for out in declared.outs(0)}


def test_every_seed_of_a_stage_has_its_place():
    assert [timing.key(run) for run in PLAN] == [
        "probe", "train@0", "train@1", "prune@0", "prune@1", "time", "report",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "missing", "left"),
    [
        # Nothing is missing: what the probe finds unchanged makes nothing stale.
        (0, [], []),
        (0, ["reports/page"], ["report"]),
        # What follows from a stage runs, for the other seeds too.
        (1, [], ["train@1", "prune@0", "prune@1", "time", "report"]),
        (3, [], ["prune@1", "report"]),
        (3, ["artifacts/time"], ["prune@1", "time", "report"]),
        (6, [], []),
    ],
)
def test_what_is_left_is_what_follows_and_what_is_missing(
    tmp_path, monkeypatch, place, missing, left
):
    monkeypatch.chdir(tmp_path)
    for name, seed in PLAN:
        for out in DECLARED[name].outs(seed):
            if str(out) not in missing:
                out.mkdir(parents=True)
    found = timing._will_run(PLAN[place], DECLARED, PLAN[place + 1 :])
    assert [timing.key(run) for run in found] == left


def test_a_time_is_known_from_itself_from_another_seed_or_by_epochs():
    took = {"train@0": 23.0, "probe": 1.0}
    expected = {
        timing.key(run): timing._expected(run, took, {"train": 20, "prune": 40}) for run in PLAN
    }
    assert expected["train@0"] == expected["train@1"] == 23
    assert expected["prune@0"] == 3 + 40
    assert expected["time"] == 3


def test_the_epochs_are_those_of_the_default_run():
    """As the README counts them: 332 for each seed, 180 of them in controls."""
    epochs = timing.epochs(EVERYTHING)
    assert epochs["controls"] == 180
    assert sum(epochs.values()) == 332
    assert epochs["train_teacher"] == 0


def test_a_teacher_of_its_own_trains_too():
    teacher = SimpleNamespace(name="convnet", epochs=7)
    sections = SimpleNamespace(**vars(EVERYTHING) | {"teacher": teacher})
    assert timing.epochs(sections)["train_teacher"] == 7


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "probe").mkdir()
    for path in paths.PIPELINES:
        only = {"probe": STAGES["probe"]} if path.parent.name else STAGES
        (tmp_path / path).write_text(yaml.safe_dump({"stages": only}, sort_keys=False))
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "artifacts").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("remembered", [None, "", "[1]", '{"train@1": "long", "report": 2}'])
def test_a_line_tells_result_time_and_place(here, remembered):
    if remembered is not None:
        paths.SECONDS.write_text(remembered)
    line = timing.line(("train", 1), "98.0 % validation", 2.22)
    assert line.startswith("train@1             98.0 % validation, 2.2 s, 3 of 9, about ")
    assert json.loads(paths.SECONDS.read_text())["train@1"] == 2.2
    assert timing.line(("report", None), "", 70).startswith("report              70 s, 9 of 9")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (2.22, "2.2 s"), (9.0, "9 s"), (9.96, "10 s"), (89, "89 s"), (90, "2 min"),
     (5369, "89 min"), (5400, "1.5 h")],
)  # fmt: skip
def test_a_duration_has_two_digits(seconds, text):
    assert progress.duration(seconds) == text


def test_a_log_gets_a_line_a_minute_and_nothing_of_a_short_loop(capsys, monkeypatch):
    clock = iter([0.0, *range(0, 100, 10), *range(100, 500, 25)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.shown(range(5), "short", "epoch")) == list(range(5))
    assert capsys.readouterr().out == ""
    clock = iter([0.0, *range(0, 100, 25)])
    list(progress.shown(range(4), "train", "epoch"))
    assert capsys.readouterr().out == "train: epoch 3 of 4, about 25 s left\n"


def test_while_an_item_takes_long_a_log_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    monkeypatch.setattr(progress, "TICK", 0.001)
    asked = threading.Semaphore(0)

    def items():
        for number in range(2):
            assert asked.acquire(timeout=20)  # the thread asks while this is waited for
            yield number

    def at_work():
        asked.release()
        return "baseline (seed 0): epoch 3 of 9"

    assert list(progress.shown(items(), "train", "arm", 2, at_work)) == [0, 1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: arm 0 of 2; baseline (seed 0): epoch 3 of 9"
    before = threading.active_count()
    list(progress.shown(range(3), "train", "arm", 3, at_work))
    assert threading.active_count() == before


def test_in_a_worker_a_loop_notes_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "visible", False)
    assert list(progress.shown(range(3), "train", "epoch")) == [0, 1, 2]
    monkeypatch.setattr(progress, "notes", tmp_path / "notes")
    assert list(progress.shown(range(3), "train", "epoch")) == [0, 1, 2]
    assert not progress.notes.exists()
    clock = iter([0.0, *range(0, 100, 25)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(progress.shown(range(4), "train", "epoch"))
    assert progress.notes.read_text() == "epoch 3 of 4, about 25 s left"
    assert capsys.readouterr().out == ""
