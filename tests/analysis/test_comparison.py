"""Two runs against each other, on made-up runs whose truth is known."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import ACCURACIES, MACHINE, META, a_run

from stages.lib.analysis import committed, comparison, comparison_text

RULES = comparison.Rules(sparsity=0.8, confidence=0.95, tolerance=0.005)


def compared(before, after, rules=RULES):
    return {line.metric: line for line in comparison.compare(before, after, rules)}


accuracy = st.floats(0, 1).map(lambda value: round(value, 4))
run = st.builds(
    a_run,
    accuracies=st.fixed_dictionaries(
        dict.fromkeys(("baseline", "affine_tensor"), accuracy),
        optional={
            method: st.tuples(accuracy, accuracy)
            for method in ACCURACIES
            if method not in ("baseline", "affine_tensor")
        },
    ),
    seeds=st.sampled_from([(0,), (0, 1, 2), (1, 2)]),
    size=st.integers(4, 10_000),
    time=st.floats(0.01, 100),
    iqr=st.floats(0, 1),
    wobble=st.dictionaries(st.sampled_from([0, 1, 2]), st.floats(-0.1, 0.1)),
)


@given(run, run)
@settings(max_examples=5, deadline=None)
def test_what_is_better_one_way_is_worse_the_other(one, other):
    assert {line.verdict for line in compared(one, one).values()} == {"equal"}
    there, back = compared(one, other), compared(other, one)
    assert set(there) == set(back)
    mirrored = {"better": "worse", "worse": "better", "new": "gone", "gone": "new"}
    for metric, line in there.items():
        mirror = back[metric]
        assert line.verdict == mirrored.get(mirror.verdict, mirror.verdict)
        assert (line.before, line.after) == (mirror.after, mirror.before)
        assert not (line.real_loss and mirror.real_loss)
        if line.low is not None:
            turned = (
                (1 / mirror.high, 1 / mirror.low)
                if line.unit != "accuracy"
                else (-mirror.high, -mirror.low)
            )
            assert (line.low, line.high) == pytest.approx(turned)
            assert line.low <= line.change <= line.high


@given(run, run)
@settings(max_examples=8, deadline=None)
def test_a_real_loss_is_worse_by_more_than_the_tolerance(one, other):
    for line in compared(one, other).values():
        if line.real_loss:
            assert line.verdict == "worse"
            assert line.unit != "ms"
            beyond = line.change - 1 if line.unit == "bytes" else -line.change
            assert beyond > RULES.tolerance


FEW_IMAGES = META | {"images": {"train": 9, "validation": 100, "test": 100}}
ACCURACY, SIZE = "test_accuracy.finetune", "bytes_on_disk.baseline"
LATENCY = "latency_ms.baseline.torch.cpu"


def finetuned(accuracy, **other):
    return {"accuracies": ACCURACIES | {"finetune": accuracy}, **other}


@pytest.mark.parametrize(
    ("metric", "before", "after", "verdict", "lost"),
    [
        (ACCURACY, {}, finetuned(0.97), "better", False),
        (ACCURACY, {}, finetuned(0.93), "worse", False),
        (ACCURACY, {}, finetuned(0.92), "worse", True),
        (ACCURACY, {"meta": FEW_IMAGES}, finetuned(0.92, meta=FEW_IMAGES), "within noise", False),
        # The mean alone does not make runs equal.
        (ACCURACY, {}, {"wobble": {0: 0.003, 1: -0.002, 2: -0.001}}, "within noise", False),
        (SIZE, {}, {"size": 4008}, "worse", False),
        (SIZE, {}, {"size": 4040}, "worse", True),
        # A latency is judged by its spread and is never a real loss.
        (LATENCY, {}, {"time": 2.08}, "within noise", False),
        (LATENCY, {}, {"time": 2.4, "iqr": 0.5}, "within noise", False),
        # Another torch is the same machine.
        (LATENCY, {}, {"time": 9.0, "machine": MACHINE | {"torch": "2.1"}}, "worse", False),
    ],
)  # fmt: skip
def test_a_metric_is_judged_by_its_interval(metric, before, after, verdict, lost):
    line = compared(a_run(**before), a_run(**after))[metric]
    assert (line.verdict, line.real_loss) == (verdict, lost)


OTHER = META | {"checksum": "other"}


@pytest.mark.parametrize(
    ("other", "verdict", "spared"),
    [
        ({"machine": MACHINE | {"cores": 4}}, "other machine", ("test_accuracy", "bytes")),
        ({"meta": OTHER}, "other data", ("bytes", "latency")),
        ({"meta": OTHER | {"classes": ["a", "b", "c"]}}, "other data", ()),
    ],
)
def test_what_another_machine_or_other_data_leave_to_be_judged(other, verdict, spared):
    worse = dict.fromkeys(ACCURACIES, 0.1)
    for metric, line in compared(a_run(), a_run(worse, size=8000, time=9.0, **other)).items():
        assert (line.verdict != verdict) == metric.startswith(spared)
        assert line.real_loss == (metric.startswith(spared) and line.unit != "ms")


def test_a_loss_that_other_seeds_hide_is_found_where_seeds_are_paired():
    far = {0: -0.05, 1: 0.04, 2: 0.01, 3: -0.05, 4: 0.04, 5: 0.01}
    worse = ACCURACIES | {"finetune": 0.91}
    before = a_run(wobble=far)
    paired = compared(before, a_run(worse, wobble=far))["test_accuracy.finetune"]
    assert paired.real_loss
    other = a_run(worse, wobble=far, seeds=(3, 4, 5))
    assert compared(before, other)["test_accuracy.finetune"].verdict == "within noise"


def test_latencies_are_told_by_method_engine_and_device_of_the_smallest_batch():
    lines = compared(a_run(), a_run())
    told = {metric: line.after for metric, line in lines.items() if metric.startswith("latency")}
    assert told == {
        "latency_ms.baseline.torch.cpu": 2.0, "latency_ms.baseline.torch_float16.cpu": 8.0,
        "latency_ms.global.torch.cpu": 2.0, "latency_ms.structured_layer.torch.cpu": 1.0,
    }  # fmt: skip


def test_seeds_that_disagree_widen_a_latencys_spread():
    run = a_run()
    slow = run.latencies.latency_ms.where(run.latencies.seed != 2, run.latencies.latency_ms * 2)
    run = committed.Run(run.manifest, run.rows, run.latencies.assign(latency_ms=slow))
    latency = comparison.latencies(run, 0.8)["baseline.torch.cpu"]
    assert latency.number == 2.0
    assert latency.spread == pytest.approx(2 * (1 + 0.05 / 4))


def test_every_form_tells_every_metric_on_a_line_of_its_own():
    after = a_run(ACCURACIES | {"finetune": 0.9}, size=4100, time=3.0)
    result = comparison_text.build("base → here", a_run(), after, RULES)
    metrics = [line.metric for line in result.metrics]
    for text in (result.plain(), result.markdown()):
        for metric in metrics:
            # In Markdown an underscore may be escaped.
            lines = text.replace("\\", "").splitlines()
            assert len([line for line in lines if f"{metric} " in line]) == 1
        for part in ("−4.00 ", "× 1.50 ", "+2.5 %", "worse: a real loss", "Real loss, beyond 0.5"):
            assert part in text
    values = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))
    assert [line["metric"] for line in values["metrics"]] == metrics
    assert values["real_losses"] == [line.metric for line in result.metrics if line.real_loss]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {}, "Seeds 0, 1, 2: 95 % intervals over seeds, paired"),
        ({}, {"seeds": (0, 1, 2, 3)}, "Seeds 0, 1, 2 → 0, 1, 2, 3: 95 % intervals over seeds and"),
        ({"seeds": (0,)}, {"seeds": (0,)}, "Seeds 0: 95 % intervals over images alone"),
        ({}, {"meta": META | {"checksum": "other"}}, "Other data"),
        ({}, {"machine": MACHINE | {"cpu": "another"}}, "Another machine"),
        ({}, {"machine": MACHINE | {"torch": "2.1"}}, "Another torch: 2.0 → 2.1."),
        ({}, {"model": {"name": "convnet", "width": 8}}, "Another model.width: 16 → 8."),
    ],
)
def test_what_the_intervals_rest_on_is_said(before, after, text):
    said = comparison_text.facts(a_run(**before).manifest, a_run(**after).manifest, RULES)
    assert any(text in sentence for sentence in said), said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2", "cut short"),
        ("a\n1\n", "of another format, without b"),
        ("a,b\n1\n", "empty cells"),
        ("a,b\n1,x\n", "text where numbers should be"),
        ("a,b\n1,2,3\n", "not a table"),
    ],
)
def test_a_torn_table_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        committed.table(text, ("a", "b"))


MANIFEST = a_run().manifest


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"seeds": [], "model": {}, "data": {}, "hardware": {}}',
        *(json.dumps(MANIFEST.model_dump() | change) for change in (
            {"hardware": {"cpu": "a CPU"}}, {"seeds": ["0"]},
            {"data": META | {"images": {"train": 1, "test": 2}}},
        )),
    ],
)  # fmt: skip
def test_a_torn_or_foreign_manifest_is_refused(text):
    assert committed.manifest(MANIFEST.model_dump_json()) == MANIFEST
    with pytest.raises(ValueError, match=r"JSON|of another format"):
        committed.manifest(text)
