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


@given(run)
@settings(max_examples=3, deadline=None)
def test_a_run_is_equal_to_itself(one):
    lines = compared(one, one)
    assert {line.verdict for line in lines.values()} == {"equal"}
    assert not any(line.real_loss for line in lines.values())


@given(run, run)
@settings(max_examples=5, deadline=None)
def test_what_is_better_one_way_is_worse_the_other(one, other):
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


@pytest.mark.parametrize(
    ("accuracy", "verdict", "lost"),
    [
        (0.97, "better", False),
        (0.943, "within noise", False),
        (0.937, "within noise", False),
        (0.93, "worse", False),
        (0.92, "worse", True),
    ],
)
def test_an_accuracy_is_judged_by_its_interval(accuracy, verdict, lost):
    line = compared(a_run(), a_run(ACCURACIES | {"finetune": accuracy}))["test_accuracy.finetune"]
    assert (line.verdict, line.real_loss) == (verdict, lost)
    assert line.change == pytest.approx(accuracy - 0.94)


def test_a_loss_that_other_seeds_hide_is_found_where_seeds_are_paired():
    far = {0: -0.05, 1: 0.04, 2: 0.01, 3: -0.05, 4: 0.04, 5: 0.01}
    worse = ACCURACIES | {"finetune": 0.91}
    before = a_run(wobble=far)
    paired = compared(before, a_run(worse, wobble=far))["test_accuracy.finetune"]
    assert paired.real_loss
    other = a_run(worse, wobble=far, seeds=(3, 4, 5))
    assert compared(before, other)["test_accuracy.finetune"].verdict == "within noise"


def test_few_images_make_the_same_loss_noise():
    meta = META | {"images": {"train": 9, "validation": 100, "test": 100}}
    runs = [a_run(accuracies, meta=meta) for accuracies in (ACCURACIES, {"baseline": 0.92})]
    assert compared(*runs)["test_accuracy.baseline"].verdict == "within noise"


def test_the_mean_alone_does_not_make_runs_equal():
    wobble = {0: 0.003, 1: -0.002, 2: -0.001}
    lines = compared(a_run(), a_run(wobble=wobble))
    assert lines["test_accuracy.finetune"].verdict == "within noise"


@pytest.mark.parametrize(
    ("size", "verdict", "lost"),
    [
        (4000, "equal", False),
        (3996, "better", False),
        (4008, "worse", False),
        (4040, "worse", True),
    ],
)
def test_sizes_are_exact(size, verdict, lost):
    line = compared(a_run(), a_run(size=size))["bytes_on_disk.baseline"]
    assert (line.verdict, line.real_loss) == (verdict, lost)


@pytest.mark.parametrize(
    ("time", "iqr", "verdict"),
    [(2.0, 0.05, "equal"), (2.08, 0.05, "within noise"), (2.4, 0.05, "worse"),
     (2.4, 0.5, "within noise"), (1.6, 0.05, "better")],
)  # fmt: skip
def test_latencies_are_judged_by_their_spread_and_are_never_a_real_loss(time, iqr, verdict):
    lines = compared(a_run(), a_run(time=time, iqr=iqr))
    assert lines["latency_ms.baseline.torch.cpu"].verdict == verdict
    assert not any(line.real_loss for line in lines.values())


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


def test_another_machine_has_other_latencies_and_comparable_accuracies():
    after = a_run(ACCURACIES | {"finetune": 0.9}, time=9.0, machine=MACHINE | {"cores": 4})
    lines = compared(a_run(), after)
    for metric, line in lines.items():
        assert (line.verdict == "other machine") == metric.startswith("latency_ms")
    assert lines["test_accuracy.finetune"].real_loss


def test_another_torch_is_the_same_machine():
    after = a_run(time=9.0, machine=MACHINE | {"torch": "2.1"})
    assert compared(a_run(), after)["latency_ms.baseline.torch.cpu"].verdict == "worse"
    assert "Another torch: 2.0 → 2.1." in comparison_text.facts(
        a_run().manifest, after.manifest, RULES
    )


def test_other_images_of_the_same_shape_are_judged_in_sizes_and_latencies_alone():
    worse = dict.fromkeys(ACCURACIES, 0.1)
    lines = compared(a_run(), a_run(worse, size=8000, meta=META | {"checksum": "other"}))
    for metric, line in lines.items():
        judged = metric.startswith(("bytes", "latency"))
        assert (line.verdict != "other data") == judged
        assert line.real_loss == metric.startswith("bytes")


@pytest.mark.parametrize("change", [{"classes": ["a", "b", "c"]}, {"image_shape": [3, 8, 8]}])
def test_where_the_data_has_another_shape_nothing_is_judged(change):
    lines = compared(a_run(), a_run(meta=META | {"checksum": "other"} | change, size=1))
    assert {line.verdict for line in lines.values()} == {"other data"}


def test_a_method_that_one_run_alone_has_is_new_or_gone():
    fewer = {name: value for name, value in ACCURACIES.items() if name != "iterative"}
    for pair, verdict in (
        ((a_run(fewer), a_run()), "new"),
        ((a_run(), a_run(fewer)), "gone"),
    ):
        lines = compared(*pair)
        for metric, line in lines.items():
            assert (line.verdict == verdict) == metric.endswith(".iterative")
            assert not line.real_loss


def told(before, after):
    return comparison_text.build("base → here", before, after, RULES)


def test_every_form_tells_every_metric_on_a_line_of_its_own():
    result = told(a_run(), a_run(ACCURACIES | {"finetune": 0.9}, size=4100, time=3.0))
    metrics = [line.metric for line in result.metrics]
    for text in (result.plain(), result.markdown()):
        for metric in metrics:
            # In Markdown an underscore may be escaped.
            lines = text.replace("\\", "").splitlines()
            assert len([line for line in lines if f"{metric} " in line]) == 1
        assert "-4.00 " in text
        assert "× 1.50 " in text
        assert "+2.5 %" in text
        assert "worse: a real loss" in text
        assert (
            "Real loss, beyond 0.5 points of accuracy or 0.5 % of a file's size: test_acc" in text
        )
    values = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))
    assert [line["metric"] for line in values["metrics"]] == metrics
    assert values["real_losses"] == [line.metric for line in result.metrics if line.real_loss]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {}, "Seeds 0, 1, 2: 95 % intervals over seeds, paired"),
        ({}, {"seeds": (0, 1, 2, 3)}, "Seeds 0, 1, 2 → 0, 1, 2, 3: 95 % intervals over seeds and"),
        ({"seeds": (0,)}, {"seeds": (0,)}, "One seed (0): 95 % intervals over images alone"),
        ({}, {"meta": META | {"checksum": "other"}}, "Other data (digits → digits"),
        ({}, {"machine": MACHINE | {"cpu": "another"}}, "Another machine"),
        ({}, {"model": {"name": "convnet", "width": 8}}, "Another network: width 16 → 8."),
    ],
)
def test_what_the_intervals_rest_on_is_said(before, after, text):
    said = comparison_text.facts(a_run(**before).manifest, a_run(**after).manifest, RULES)
    assert any(text in sentence for sentence in said), said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2", "cut short"),
        ("", "cut short"),
        ("\n", "not a table"),
        ("a\n1\n", "of another format, without b"),
        ("a,b\n1\n", "empty cells"),
        ("a,b\n1,x\n", "text where numbers should be"),
        ("<<<<<<< HEAD\na,b\n1,2\n", "not a table"),
        ("a,b\n1,2,3\n", "not a table"),
        ("a,b\n1,2\n1,2,3\n", "not a table"),
    ],
)
def test_a_torn_table_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        committed.table(text, ("a", "b"))


def test_columns_that_are_not_asked_for_may_come_and_go():
    assert committed.table("c,b,a\n9,2,1\n", ("a", "b")).to_dict("list") == {"a": [1], "b": [2]}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"seeds": [], "model": {}, "data": {}, "hardware": {}}']
)
def test_a_torn_or_foreign_manifest_is_refused(text):
    with pytest.raises(ValueError, match=r"JSON|format"):
        committed.manifest(text)


@pytest.mark.parametrize(
    "change",
    [
        {"hardware": {"cpu": "a CPU"}},
        {"seeds": ["0"]},
        {"data": META | {"images": {"train": 1, "test": 2}}},
    ],
)
def test_a_manifest_that_lacks_something_is_refused(change):
    manifest = a_run().manifest.model_dump()
    assert committed.manifest(json.dumps(manifest)) == a_run().manifest
    with pytest.raises(ValueError, match="of another format"):
        committed.manifest(json.dumps(manifest | change))
