"""The judge, fed with made-up runs whose truth is known."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import GOOD, IMAGES, evidence, formats, quantized_layers, right

from stages.lib.analysis import accuracy_claims, claims, findings, statistics, verdicts
from stages.lib.analysis import evidence as fair
from stages.lib.analysis.predictions import Key
from stages.lib.core import methods

OURS = {
    "magnitude_over_random", "magnitude_over_random_finetuned", "global_over_layerwise_finetuned",
    "pruned_over_dense",
}  # fmt: skip
ACCURACY = OURS | {
    "global_over_layerwise", "recovery", "iterative_best", "iterative_best_at_equal_budget",
    "unstructured_over_structured", "unstructured_over_structured_finetuned",
}  # fmt: skip
ON_GPU = {"small_network_on_gpu", "large_network_on_gpu"}
PUBLISHED = {"quantization_error_8bit", "quantization_error_16bit"}
OTHERS = {"half_size", "half_accuracy", "float32_on_cpu", "quantization_error_law"}
ALL = ACCURACY | ON_GPU | PUBLISHED | OTHERS
DECIDED = {"reproduced", "contradicted"}
POINTS = (0.2, 0.4, 0.6, 0.8)


def judged(given_evidence):
    return {found.id: found for found in findings.judge(given_evidence)}


def one_of(name, *arguments, **fields):
    """A finding, by what `evidence` takes."""
    return judged(evidence(*arguments, **fields))[name]


def layerwise(better, uniform=0.8, **fields):
    """The finding on global against uniform pruning, by their accuracies at POINTS."""
    runs = {"baseline": {0.0: 0.95}, "global": better, "uniform": dict.fromkeys(better, uniform)}
    return one_of("global_over_layerwise", runs, **fields)


def changed(**accuracy):
    """GOOD with the accuracies of some methods at 40 % and 80 %, or at other points."""
    points = {
        method: dict(zip((0.4, 0.8), values, strict=True)) if isinstance(values, tuple) else values
        for method, values in accuracy.items()
    }
    return GOOD | points


def without(*names):
    return {method: points for method, points in GOOD.items() if method not in names}


def text_of(found):
    return " | ".join((found.why, *found.here))


def test_every_hypothesis_is_there_whatever_was_measured():
    nothing = evidence({"baseline": {0.0: 0.95}}, formats=formats().iloc[:0],
                       layers=quantized_layers().iloc[:0])  # fmt: skip
    found = judged(nothing)
    assert set(found) == ALL
    assert {one.verdict for one in found.values()} == {"not measured"}
    assert all(one.why and one.title and one.rule for one in found.values())
    assert {name for name, one in found.items() if not one.course} == OURS


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4, 2), (7,)])
def test_a_run_that_shows_every_effect_reproduces_all_that_it_measured(seeds):
    found = judged(evidence(seeds=seeds))
    verdict = {name: one.verdict for name, one in found.items()}
    expected = dict.fromkeys(ALL, "reproduced")
    expected |= dict.fromkeys(ON_GPU, "not measured") | dict.fromkeys(PUBLISHED, "undecided")
    # Half precision is measured on one seed's network.
    expected |= dict.fromkeys(ACCURACY if len(seeds) == 1 else (), "suggestive")
    expected["half_accuracy"] = "suggestive"
    assert verdict == expected


def test_one_seed_is_said_to_be_images_alone_and_contradicts_nothing():
    for accuracy in (GOOD, {name: dict.fromkeys(points, 0.5) for name, points in GOOD.items()},
                     changed(**{"global": (0.5, 0.2)})):  # fmt: skip
        one, three = judged(evidence(accuracy, seeds=(3,))), judged(evidence(accuracy))
        for name in ACCURACY:
            told = text_of(one[name])
            assert one[name].verdict in ("suggestive", "undecided", "not measured")
            assert ("test images alone" in told) == (one[name].verdict != "not measured")
            assert ("by one seed alone" in told) == (three[name].verdict in DECIDED)
            assert "alone" not in text_of(three[name])


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("global_over_layerwise", "global", "uniform"),
        ("iterative_best_at_equal_budget", "iterative", "finetune_long"),
        ("iterative_best", "iterative", "finetune"),
    ],
)
@pytest.mark.parametrize("seeds", [(0, 1, 2), (0,)])
def test_a_tie_is_undecided(name, one, other, seeds):
    found = one_of(name, GOOD | {other: GOOD[one]}, seeds=seeds)
    assert found.verdict == "undecided"
    assert found.average.low < found.average.estimate == 0 < found.average.high
    assert all(line["low"] < line["difference"] == 0 < line["high"] for line in found.evidence)


@pytest.mark.parametrize(
    ("name", "accuracy", "verdict"),
    [
        ("global_over_layerwise", {"global": (0.5, 0.2)}, "contradicted"),
        # Better at one sparsity and worse at another is worse.
        ("global_over_layerwise", {"global": (0.8, 0.2)}, "contradicted"),
        ("global_over_layerwise", {"global": (0.6, 0.5)}, "reproduced"),
        # A few images' difference is no difference.
        ("global_over_layerwise", {"global": (0.602, 0.302)}, "undecided"),
        ("recovery", {"finetune": (0.7, 0.88)}, "contradicted"),
        ("recovery", {"finetune": (0.92, 0.5)}, "undecided"),
        ("iterative_best", {"iterative": (0.98, 0.4)}, "contradicted"),
        # Beating uniform and global pruning is not being the best.
        ("iterative_best", {"iterative": (0.85, 0.88)}, "contradicted"),
        ("iterative_best_at_equal_budget", {"finetune_long": (0.99, 0.995)}, "contradicted"),
        ("unstructured_over_structured", {"structured_global": (0.9, 0.15)}, "contradicted"),
        ("unstructured_over_structured_finetuned", {"finetune": (0.6, 0.5)}, "contradicted"),
        ("magnitude_over_random", {"random_uniform": (0.9, 0.9)}, "contradicted"),
        ("magnitude_over_random_finetuned", {"random_global_finetune": (0.92, 0.88)}, "undecided"),
        ("pruned_over_dense", {"baseline_finetune": {0.0: 0.99}}, "contradicted"),
        ("pruned_over_dense", {"finetune": (0.8, 0.8)}, "undecided"),
    ],
)
def test_accuracy_findings_follow_the_numbers(name, accuracy, verdict):
    assert one_of(name, changed(**accuracy)).verdict == verdict


def test_published_and_equal_budget_are_two_verdicts_and_the_epochs_are_told():
    columns = {(name, 0.8): {"extra_epochs": 12} for name in ("iterative", "finetune_long")}
    found = judged(evidence(changed(finetune_long=(0.99, 0.995)), columns=columns))
    published, equal = found["iterative_best"], found["iterative_best_at_equal_budget"]
    assert (published.verdict, equal.verdict) == ("reproduced", "contradicted")
    for one, epochs in ((published, 5), (equal, 12)):
        assert "iterative 97.0 % after 12 epochs" in text_of(one)
        assert f" % after {epochs} epochs;" in text_of(one)
    assert [line["one_epochs"] for line in equal.evidence] == [5, 12]


def test_the_rival_of_iterative_pruning_is_chosen_on_validation():
    columns = {("global", 0.8): {"validation_accuracy": 0.9}}
    lines = one_of("iterative_best", columns=columns).evidence
    assert [line["other"] for line in lines] == ["finetune", "global"]


def test_seeds_that_disagree_leave_a_large_difference_undecided():
    spread = {0.4: [0.9, 0.5, 0.7], 0.8: [0.8, 0.3, 0.5]}
    assert layerwise(spread, 0.3).verdict == "undecided"


def test_many_comparisons_want_more_of_each():
    """Six images of a thousand for one method, none for the other: beyond doubt at 95 %, not at
    99 %, which five comparisons want.
    """
    for others, level, verdict in ((0, 0.95, "suggestive"), (4, 0.99, "undecided")):
        found = layerwise({0.5: 0.806} | dict.fromkeys(POINTS[:others], 0.8), seeds=(0,))
        assert found.verdict == verdict
        assert [line["confidence"] for line in found.evidence] == pytest.approx(
            [level] * (others + 1)
        )
    assert "intervals of 95 % in all, each 99 % as there are 5" in text_of(found)


def test_the_verdict_is_by_the_mean_over_the_sparsities():
    """Seeds that are beyond doubt at no single sparsity can be so on average, and the interval of
    that is the one of the mean correctness.
    """
    shifted = {p: [0.8 + 0.05 * ((s + i) % 3) for s in range(3)] for i, p in enumerate(POINTS)}
    found = layerwise(shifted, 0.78)
    assert {line["outcome"] for line in found.evidence} == {"undecided"}
    assert found.verdict == "reproduced"
    means = [
        np.mean([right(values, IMAGES) for values in accuracies], axis=0)
        for accuracies in (shifted.values(), [[0.78] * 3] * 4)
    ]
    expected = statistics.difference(*means, 0.95)
    assert (found.average.low, found.average.high) == (expected.low, expected.high)


def test_a_single_sparsity_beyond_doubt_contradicts_whatever_the_mean():
    found = layerwise({0.2: 0.95, 0.4: 0.9, 0.6: 0.9, 0.8: 0.2}, 0.3)
    assert found.average.low > 0
    assert found.verdict == "contradicted"
    assert "; taken singly, worse at 80 %" in found.why


@pytest.mark.parametrize(
    ("ahead", "verdict", "told"),
    [((0.8,), "undecided", ", carried by 80 % alone: without it 0.0 points"),
     ((0.6, 0.8), "reproduced", "")],
)  # fmt: skip
def test_what_one_sparsity_carries_is_undecided_and_said_to_be(ahead, verdict, told):
    found = layerwise({point: 0.95 if point in ahead else 0.8 for point in POINTS})
    assert found.average.low > 0
    assert found.verdict == verdict
    assert told in found.why
    assert ("carried" in found.why) == bool(told)


def test_equal_methods_are_rarely_told_apart():
    """Of runs whose methods are equally good, no more than one in twenty may say otherwise."""
    random = np.random.default_rng(0)
    points, wrong = dict.fromkeys(POINTS, 0.8), 0
    runs = {"baseline": {0.0: 0.95}, "global": points, "uniform": points}
    template = evidence(runs, images=300)
    arms = fair.arms_of(template)
    for _ in range(200):
        easy = random.random(300) ** 0.3
        drawn = {
            key: arm if arm.target == 0 else dataclasses.replace(
                arm, correct=random.random((3, 300)) < easy * random.uniform(0.9, 1, (3, 1))
            )
            for key, arm in arms.items()
        }  # fmt: skip
        found = claims.judged(accuracy_claims.CLAIMS[0], template, drawn)
        wrong += found.verdict != "undecided"
    assert wrong <= 10


# What is missing, or cannot be compared.


OF_OTHER_EPOCHS = {("finetune_long", 0.4): {"extra_epochs": 9}}
UNHARMED = {one.name: {0.4: 0.95, 0.8: 0.95} for pair in methods.recoveries() for one in pair}


@pytest.mark.parametrize(
    ("name", "run", "verdict", "told", "compared"),
    [
        ("iterative_best", {"accuracy": without("uniform")}, "not measured", "not run: ", []),
        ("unstructured_over_structured", {"accuracy": without("structured_global")}, "reproduced",
         "not run: structured, global", [0.4, 0.8]),
        # Lists of other sparsities are compared where they meet.
        ("global_over_layerwise", {"accuracy": changed(uniform={0.2: 0.9, 0.8: 0.3, 0.9: 0.1})},
         "reproduced", "", [0.8]),
        ("global_over_layerwise", {"accuracy": changed(uniform={0.2: 0.9})}, "not measured",
         "share no sparsity", []),
        # The difference of two at chance would be beyond doubt, and say nothing.
        ("global_over_layerwise", {"accuracy": changed(**{"global": (0.8, 0.08)},
                                                       uniform=(0.6, 0.02))},
         "reproduced", "left out at 80 %: both are no better than chance", [0.4]),
        ("global_over_layerwise", {"accuracy": changed(uniform=(0.1, 0.1))}, "reproduced", "",
         [0.4, 0.8]),
        # What stays at chance has not recovered.
        ("recovery", {"accuracy": changed(**{"global": (0.8, 0.1)}, finetune=(0.92, 0.1))},
         "undecided", "but not at 80 % (against global)", None),
        ("recovery", {"accuracy": GOOD | UNHARMED}, "not measured", "nothing to recover", []),
        ("iterative_best_at_equal_budget", {"columns": OF_OTHER_EPOCHS}, "reproduced",
         "left out at 40 %: not the same budget: 5 and 9 epochs", [0.8]),
        ("unstructured_over_structured",
         {"columns": {("structured_layer", 0.8): {"sparsity": 0.7}}}, "reproduced",
         "left out at 80 %: 80 % and 70 % of the weights were gone", [0.4, 0.8]),
        # Why a latency is not ranked or not there, and what the CPU has for half precision.
        ("small_network_on_gpu", {}, "not measured", "no CUDA device", None),
        ("float32_on_cpu", {"formats": formats(latency=(1.0, 9.0, 3.2), spread=0.31)}, "undecided",
         "not ranked: the IQR passes 30 %", None),
        ("float32_on_cpu", {"isa": ("avx512_fp16", "avx512_bf16", "amx_bf16")}, "reproduced",
         "avx512_fp16 for float16, amx_bf16, avx512_bf16 for bfloat16", None),
    ],
)  # fmt: skip
def test_what_is_missing_or_cannot_be_compared_is_left_out_and_told(
    name, run, verdict, told, compared
):
    found = one_of(name, **run)
    assert found.verdict == verdict
    assert told in text_of(found)
    if compared is not None:
        points = {line["sparsity"] for line in found.evidence if "difference" in line}
        assert sorted(points) == compared


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.assign(test_accuracy=rows.test_accuracy.mask(rows.seed == 1)), "no acc"),
        (lambda rows: rows.assign(validation_accuracy=math.nan), "no accuracy"),
        (lambda rows: rows[rows.seed != 2], "not measured for every seed"),
        (lambda rows: pd.concat([rows, rows]), "not measured for every seed"),
        (None, "no stored predictions"),
    ],
)
def test_a_point_that_is_not_whole_is_left_out_and_said_to_be(change, told):
    spoilt = evidence()
    if change is None:
        del spoilt.correct[Key("uniform", 0.8)]
    else:
        rows = spoilt.rows
        chosen = (rows.method == "uniform") & (rows.target_sparsity == 0.8)
        rows = pd.concat([rows[~chosen], change(rows[chosen])])
        spoilt = dataclasses.replace(spoilt, rows=rows)
    found = judged(spoilt)
    one = found["global_over_layerwise"]
    assert one.verdict == "reproduced"
    assert f"left out at 80 %: layer-wise (uniform): {told}" in text_of(one)
    # The best of three cannot be named where one of the three is not known.
    assert "left out at 80 %" in text_of(found["iterative_best"])


@pytest.mark.parametrize(
    ("run", "told"),
    [
        *(({"accuracy": changed(baseline={0.0: value})}, "the baseline learned nothing")
          for value in (0.1, 0.11, 0.05)),
        ({"accuracy": without("baseline")}, "the baseline: not measured"),
        ({"columns": {("baseline", 0.0): {"test_accuracy": math.nan}}}, "the baseline: no acc"),
    ],
)  # fmt: skip
def test_without_a_baseline_that_learned_no_accuracy_is_judged(run, told):
    found = judged(evidence(**run))
    for name in ACCURACY | {"half_accuracy"}:
        assert found[name].verdict == "not measured"
        assert told in found[name].why
    # What does not hang on what was learned is judged.
    for name in ("half_size", "float32_on_cpu", "quantization_error_law"):
        assert found[name].verdict == "reproduced"


# Number formats, and quantization error.


def shrunk(table):
    """ResNet-152's float16 alone does not halve."""
    odd = (table.network == "resnet152") & (table.dtype == "float16")
    return table.assign(tensor_bytes=table.tensor_bytes.mask(odd, 3000))


def latencies(single, float16, bfloat16, iqr=0.1):
    return formats(latency=(single, float16, bfloat16), spread=iqr)


def apart(table):
    """The layers of one name are off."""
    return table.assign(ratio=table.ratio.mask(table.layer == "fc", 1.5))


CASES = [
    ("half_size", formats(sizes=(4000, 2090, 2000)), "reproduced"),
    ("half_size", formats(sizes=(4000, 2000, 1000)), "contradicted"),
    ("half_size", shrunk(formats()), "contradicted"),
    ("float32_on_cpu", latencies(5.0, 9.0, 2.0), "contradicted"),
    # Half of both IQRs together: 0.5 apart with 0.4 is more, with 0.6 less.
    ("float32_on_cpu", latencies(2.0, 9.0, 2.5, 0.4), "reproduced"),
    ("float32_on_cpu", latencies(2.0, 9.0, 2.5, 0.6), "undecided"),
    # An IQR that passes 30 % of the latency, or is not known, ranks nothing.
    ("float32_on_cpu", latencies(1.0, 9.0, 3.2, 0.3), "reproduced"),
    ("float32_on_cpu", latencies(1.0, 9.0, 3.2, 0.31), "undecided"),
    ("float32_on_cpu", latencies(9.0, 1.0, 3.2, 0.31), "contradicted"),
    ("float32_on_cpu", latencies(1.0, 9.0, 9.0, math.nan), "undecided"),
    # The smallest batch is judged.
    ("float32_on_cpu", pd.concat([latencies(9.0, 1.0, 1.0).assign(batch_size=64), formats()]),
     "reproduced"),
    ("small_network_on_gpu", formats(gpu=(0.7, 0.5, 0.7)), "contradicted"),
    ("small_network_on_gpu", formats(gpu=(0.5, 0.7, 0.5)), "reproduced"),
    ("small_network_on_gpu", formats(gpu=(0.5, 0.5, 0.5)), "undecided"),
    ("large_network_on_gpu", formats(gpu=(0.7, 0.5, 0.5)), "reproduced"),
    # The second layer's error is twice that of the first.
    ("quantization_error_8bit", quantized_layers(unit=0.6e-5 * 4.0**8), "reproduced"),
    ("quantization_error_8bit", quantized_layers(unit=9e-5 * 4.0**8), "undecided"),
    ("quantization_error_8bit", quantized_layers(unit=2e-4 * 4.0**8), "contradicted"),
    ("quantization_error_law", quantized_layers(ratio=1.09), "reproduced"),
    ("quantization_error_law", quantized_layers(ratio=1.2), "contradicted"),
    ("quantization_error_law", apart(quantized_layers()), "undecided"),
    ("quantization_error_law", quantized_layers().query("bits == 8"), "undecided"),
    ("quantization_error_16bit", quantized_layers().query("bits == 8"), "not measured"),
    ("quantization_error_law", quantized_layers().assign(granularity="channel"), "not measured"),
    *((name, formats().query("dtype != 'float32'"), "not measured")
      for name in ("half_size", "half_accuracy", "float32_on_cpu")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "table", "verdict"), CASES)
def test_findings_on_formats_and_errors_follow_the_numbers(name, table, verdict):
    field = "layers" if "quantization" in name else "formats"
    assert one_of(name, **{field: table}).verdict == verdict


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("drop", [0.0, 0.005, -0.004, 0.006, -0.02])
def test_a_loss_on_all_test_images_is_exact_and_on_a_sample_decides_nothing(drop, sampled):
    table = formats(drop=drop)
    half = (table.network == "baseline") & (table.device == "cpu") & (table.dtype != "float32")
    table = table.assign(agreement=table.agreement.mask(half & sampled, 1.0))
    found, lost = one_of("half_accuracy", formats=table), abs(drop) > 0.005
    assert found.verdict == ("undecided" if lost or sampled else "suggestive")
    assert ("speaks against it" in found.why) == (lost and not sampled)
    assert ("a sample alone in 2" in found.why) == sampled


# What becomes of it.


def test_json_has_every_finding_six_digits_and_no_nan():
    context = {
        "seeds": (0, 1), "share": np.float64(1 / 3), "images": np.int64(IMAGES), "none": math.nan,
    }  # fmt: skip
    found = findings.judge(evidence(formats=formats(spread=math.nan)))
    stored = json.loads(json.dumps(findings.to_json(found, context), allow_nan=False))
    known = {"seeds": [0, 1], "share": 0.333333, "images": IMAGES, "none": None}
    assert stored["context"] == known
    assert [one["id"] for one in stored["findings"]] == list(judged(evidence()))
    first = stored["findings"][0]
    assert set(first) == {field.name for field in dataclasses.fields(findings.Finding)}
    line = first["evidence"][0]
    assert (line["one"], line["other"], line["outcome"]) == ("global", "uniform", "better")
    assert line["low"] < line["difference"] == 0.2 < line["high"]


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_whatever_is_missing_every_finding_has_a_verdict_and_no_hole(data):
    accuracy = {
        method: {
            point: data.draw(st.sampled_from([0.0, 0.1, value, 1.0]))
            for point, value in points.items()
            if data.draw(st.integers(0, 4))
        }
        for method, points in GOOD.items()
    }
    seeds = data.draw(st.sampled_from([(0,), (0, 1)]))
    accuracy["baseline"] = accuracy["baseline"] or {0.0: 0.9}
    table = formats(gpu=data.draw(st.sampled_from([None, (1.0, 2.0, 3.0)])))
    keep = data.draw(st.lists(st.integers(0, len(table) - 1), unique=True))
    given_evidence = evidence(accuracy, seeds, images=40, formats=table.iloc[keep])
    found = findings.judge(given_evidence)
    assert all(one.verdict in verdicts.VERDICTS for one in found)
    text = json.dumps(findings.to_json(found, {}), allow_nan=False)
    assert "nan" not in text
    assert "None" not in text
