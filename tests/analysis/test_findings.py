"""The judge, fed with made-up runs whose truth is known."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import GOOD, IMAGES, evidence, formats, quantized_layers, right, row

from stages.lib.analysis import accuracy_claims, claims, findings, statistics, verdicts
from stages.lib.analysis import evidence as fair
from stages.lib.analysis.predictions import Key
from stages.lib.core import methods

ACCURACY = {
    "global_over_layerwise", "recovery", "iterative_best", "iterative_best_at_equal_budget",
    "unstructured_over_structured", "unstructured_over_structured_finetuned",
    "magnitude_over_random", "magnitude_over_random_finetuned", "global_over_layerwise_finetuned",
    "pruned_over_dense",
}  # fmt: skip
OTHERS = {
    "half_size", "half_accuracy", "float32_on_cpu", "small_network_on_gpu", "large_network_on_gpu",
    "quantization_error_8bit", "quantization_error_16bit", "quantization_error_law",
}  # fmt: skip
DECIDED = {"reproduced", "contradicted"}
ON_GPU = {"small_network_on_gpu", "large_network_on_gpu"}
PUBLISHED = {"quantization_error_8bit", "quantization_error_16bit"}
OURS = {
    "magnitude_over_random", "magnitude_over_random_finetuned", "global_over_layerwise_finetuned",
    "pruned_over_dense",
}  # fmt: skip


def judged(given_evidence):
    return {found.id: found for found in findings.judge(given_evidence)}


def changed(**accuracy):
    """GOOD with the accuracies of some methods at 40 % and 80 %, or at other points."""
    points = {
        method: dict(zip((0.4, 0.8), values, strict=True)) if isinstance(values, tuple) else values
        for method, values in accuracy.items()
    }
    return GOOD | points


def without(*methods):
    return {method: points for method, points in GOOD.items() if method not in methods}


def text_of(found):
    return " | ".join((found.why, *found.here))


def test_every_hypothesis_is_there_whatever_was_measured():
    nothing = evidence({"baseline": {0.0: 0.95}}, formats=formats().iloc[:0],
                       layers=quantized_layers().iloc[:0])  # fmt: skip
    found = judged(nothing)
    assert set(found) == ACCURACY | OTHERS
    assert {one.verdict for one in found.values()} == {"not measured"}
    assert all(one.why and one.title and one.rule for one in found.values())
    assert {name for name, one in found.items() if not one.course} == OURS


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4, 2), (7,)])
def test_a_run_that_shows_every_effect_reproduces_all_that_it_measured(seeds):
    found = judged(evidence(seeds=seeds))
    verdict = {name: one.verdict for name, one in found.items()}
    expected = dict.fromkeys(ACCURACY | OTHERS, "reproduced")
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
        ("global_over_layerwise_finetuned", "finetune", "uniform_finetune"),
        ("iterative_best_at_equal_budget", "iterative", "finetune_long"),
        ("iterative_best", "iterative", "finetune"),
    ],
)
@pytest.mark.parametrize("seeds", [(0, 1, 2), (0,)])
def test_a_tie_is_undecided(name, one, other, seeds):
    found = judged(evidence(GOOD | {other: GOOD[one]}, seeds=seeds))[name]
    assert found.verdict == "undecided"
    assert found.average["low"] < found.average["estimate"] == 0 < found.average["high"]
    for line in found.evidence:
        assert line["difference"] == 0
        assert line["low"] < 0 < line["high"]


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
        ("recovery", {"structured_layer_finetune": (0.8, 0.15)}, "undecided"),
        ("iterative_best", {"iterative": (0.5, 0.4)}, "contradicted"),
        ("iterative_best", {"iterative": (0.98, 0.4)}, "contradicted"),
        ("iterative_best", {"iterative": (0.92, 0.97)}, "reproduced"),
        ("iterative_best", {"iterative": (0.92, 0.88)}, "undecided"),
        # Beating uniform and global pruning is not being the best.
        ("iterative_best", {"iterative": (0.85, 0.88)}, "contradicted"),
        ("iterative_best_at_equal_budget", {"finetune_long": (0.98, 0.97)}, "undecided"),
        ("iterative_best_at_equal_budget", {"finetune_long": (0.99, 0.995)}, "contradicted"),
        ("unstructured_over_structured", {"structured_layer": (0.99, 0.9)}, "contradicted"),
        ("unstructured_over_structured", {"structured_global": (0.9, 0.15)}, "contradicted"),
        ("unstructured_over_structured_finetuned", {"finetune": (0.6, 0.5)}, "contradicted"),
        ("magnitude_over_random", {"random_uniform": (0.9, 0.9)}, "contradicted"),
        ("magnitude_over_random_finetuned", {"random_global_finetune": (0.92, 0.88)}, "undecided"),
        ("pruned_over_dense", {"baseline_finetune": {0.0: 0.99}}, "contradicted"),
        ("pruned_over_dense", {"baseline_finetune": {0.0: 0.92}}, "contradicted"),
        ("pruned_over_dense", {"finetune": (0.8, 0.8)}, "undecided"),
    ],
)
def test_accuracy_findings_follow_the_numbers(name, accuracy, verdict):
    assert judged(evidence(changed(**accuracy)))[name].verdict == verdict


def test_published_and_equal_budget_are_two_verdicts_and_the_epochs_are_told():
    columns = {
        ("iterative", 0.8): {"extra_epochs": 12},
        ("finetune_long", 0.8): {"extra_epochs": 12},
    }
    found = judged(evidence(changed(finetune_long=(0.99, 0.995)), columns=columns))
    published, equal = found["iterative_best"], found["iterative_best_at_equal_budget"]
    assert (published.verdict, equal.verdict) == ("reproduced", "contradicted")
    assert (
        "at unequal cost: by 80 % iterative has trained 12 epochs, global + fine-tuning 5"
        in text_of(published)
    )
    assert "5 at 40 %, 12 at 80 %" in text_of(equal)
    assert "the baseline, given 5 more epochs, goes from 95.0 % to 97.0 %" in text_of(equal)
    assert [line["one_epochs"] for line in equal.evidence] == [5, 12]


def test_unequal_budgets_are_not_compared():
    columns = {("finetune_long", 0.4): {"extra_epochs": 9}}
    found = judged(evidence(columns=columns))["iterative_best_at_equal_budget"]
    assert found.verdict == "reproduced"
    assert "left out at 40 %: not the same budget: 5 and 9 epochs" in text_of(found)
    columns[("finetune_long", 0.8)] = {"extra_epochs": 4}
    found = judged(evidence(columns=columns))["iterative_best_at_equal_budget"]
    assert found.verdict == "not measured"


def test_the_rival_of_iterative_pruning_is_chosen_on_validation():
    columns = {("global", 0.8): {"validation_accuracy": 0.9}}
    found = judged(evidence(columns=columns))["iterative_best"]
    assert [line["other"] for line in found.evidence] == ["finetune", "global"]


def test_seeds_that_disagree_leave_a_large_difference_undecided():
    spread = {0.4: [0.9, 0.5, 0.7], 0.8: [0.8, 0.3, 0.5]}
    found = judged(evidence(GOOD | {"global": spread}))["global_over_layerwise"]
    assert found.verdict == "undecided"
    one = judged(evidence({m: {p: np.atleast_1d(v)[0] for p, v in points.items()}
                           for m, points in (GOOD | {"global": spread}).items()},
                          seeds=(0,)))["global_over_layerwise"]  # fmt: skip
    assert one.verdict == "suggestive"


def test_many_comparisons_want_more_of_each():
    """Six images of a thousand for one method, none for the other: beyond doubt at 95 %, not at
    99 %, which five comparisons want.
    """
    baseline = {"baseline": {0.0: 0.95}}
    one = baseline | {"global": {0.5: 0.806}, "uniform": {0.5: 0.8}}
    found = judged(evidence(one, seeds=(0,)))["global_over_layerwise"]
    assert found.verdict == "suggestive"
    assert found.evidence[0]["confidence"] == 0.95
    ties = dict.fromkeys((0.1, 0.2, 0.3, 0.4), 0.8)
    many = baseline | {"global": one["global"] | ties, "uniform": one["uniform"] | ties}
    found = judged(evidence(many, seeds=(0,)))["global_over_layerwise"]
    assert found.verdict == "undecided"
    assert [line["confidence"] for line in found.evidence] == pytest.approx([0.99] * 5)
    assert "intervals of 95 % in all, each 99 % as there are 5" in text_of(found)


def test_the_verdict_is_by_the_mean_over_the_sparsities():
    """Seeds that are beyond doubt at no single sparsity can be so on average, and the interval of
    that is the one of the mean correctness.
    """
    points = (0.2, 0.4, 0.6, 0.8)
    shifted = {p: [0.8 + 0.05 * ((s + i) % 3) for s in range(3)] for i, p in enumerate(points)}
    runs = {"baseline": {0.0: 0.95}, "uniform": dict.fromkeys(points, 0.78), "global": shifted}
    given_evidence = evidence(runs)
    found = judged(given_evidence)["global_over_layerwise"]
    assert {line["outcome"] for line in found.evidence} == {"undecided"}
    assert found.verdict == "reproduced"
    means = [
        np.mean([given_evidence.correct[Key(method, p)] for p in points], axis=0)
        for method in ("global", "uniform")
    ]
    expected = statistics.difference(*means, 0.95)
    assert (found.average["low"], found.average["high"]) == (expected.low, expected.high)


def test_a_single_sparsity_beyond_doubt_contradicts_whatever_the_mean():
    points = {0.2: 0.95, 0.4: 0.9, 0.6: 0.9, 0.8: 0.2}
    runs = {"baseline": {0.0: 0.95}, "uniform": dict.fromkeys(points, 0.3), "global": points}
    found = judged(evidence(runs))["global_over_layerwise"]
    assert found.average["low"] > 0
    assert found.verdict == "contradicted"
    assert "; taken singly, worse at 80 %" in found.why


def test_what_one_sparsity_carries_is_undecided_and_said_to_be():
    points = dict.fromkeys((0.2, 0.4, 0.6, 0.8), 0.8)
    runs = {"baseline": {0.0: 0.95}, "uniform": points, "global": points | {0.8: 0.95}}
    found = judged(evidence(runs))["global_over_layerwise"]
    assert found.average["low"] > 0
    assert found.verdict == "undecided"
    assert "carried by 80 % alone: without it +0.0 points" in found.why


def test_what_two_sparsities_bear_is_carried_by_none():
    points = dict.fromkeys((0.2, 0.4, 0.6, 0.8), 0.8)
    runs = {"baseline": {0.0: 0.95}, "uniform": points, "global": points | {0.6: 0.95, 0.8: 0.95}}
    found = judged(evidence(runs))["global_over_layerwise"]
    assert found.verdict == "reproduced"
    assert "carried" not in found.why


def test_equal_methods_are_rarely_told_apart():
    """Of runs whose methods are equally good, no more than one in twenty may say otherwise."""
    random = np.random.default_rng(0)
    points, wrong = (0.2, 0.4, 0.6, 0.8), 0
    template = evidence({"baseline": {0.0: 0.95}, "global": dict.fromkeys(points, 0.8),
                         "uniform": dict.fromkeys(points, 0.8)}, images=300)  # fmt: skip
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


def test_missing_rows_are_not_measured():
    found = judged(evidence(without("uniform", "structured_layer", "structured_global")))
    for name in ("global_over_layerwise", "unstructured_over_structured", "iterative_best"):
        assert found[name].verdict == "not measured"
        assert "not run: " in found[name].why
    assert found["recovery"].verdict == "reproduced"
    assert found["magnitude_over_random"].verdict == "reproduced"


def test_one_scope_of_two_is_judged_and_the_other_said_to_be_missing():
    found = judged(evidence(without("structured_global")))["unstructured_over_structured"]
    assert found.verdict == "reproduced"
    assert "not run: structured, global" in text_of(found)


def test_lists_of_other_sparsities_are_compared_where_they_meet():
    found = judged(evidence(GOOD | {"uniform": {0.2: 0.9, 0.8: 0.3, 0.9: 0.1}}))
    lines = found["global_over_layerwise"].evidence
    assert [line["sparsity"] for line in lines] == [0.8]
    none = judged(evidence(GOOD | {"uniform": {0.2: 0.9}}))["global_over_layerwise"]
    assert none.verdict == "not measured"
    assert "share no sparsity" in none.why


def spoilt(change):
    """GOOD's evidence with the rows of uniform at 80 % put through `change`."""
    given_evidence = evidence()
    rows = given_evidence.rows
    chosen = (rows.method == "uniform") & (rows.target_sparsity == 0.8)
    return change(given_evidence, chosen)


def _nan(given_evidence, chosen, column="test_accuracy"):
    rows = given_evidence.rows.copy()
    rows.loc[chosen & (rows.seed == 1), column] = math.nan
    return dataclasses.replace(given_evidence, rows=rows)


def _missing_seed(given_evidence, chosen):
    rows = given_evidence.rows
    return dataclasses.replace(given_evidence, rows=rows[~(chosen & (rows.seed == 2))])


def _twice(given_evidence, chosen):
    rows = pd.concat([given_evidence.rows, given_evidence.rows[chosen]], ignore_index=True)
    return dataclasses.replace(given_evidence, rows=rows)


def _no_predictions(given_evidence, _):
    correct = {k: v for k, v in given_evidence.correct.items() if k[:2] != ("uniform", 0.8)}
    return dataclasses.replace(given_evidence, correct=correct)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_nan, "no accuracy"),
        (lambda found, chosen: _nan(found, chosen, "validation_accuracy"), "no accuracy"),
        (_missing_seed, "not measured for every seed"),
        (_twice, "not measured for every seed"),
        (_no_predictions, "no stored predictions"),
    ],
)
def test_a_point_that_is_not_whole_is_left_out_and_said_to_be(change, told):
    found = judged(spoilt(change))
    one = found["global_over_layerwise"]
    assert one.verdict == "reproduced"
    assert f"left out at 80 %: layer-wise (uniform): {told}" in text_of(one)
    assert [line["sparsity"] for line in one.evidence if "difference" in line] == [0.4]
    # The best of three cannot be named where one of the three is not known.
    assert "left out at 80 %" in text_of(found["iterative_best"])


def test_nothing_but_points_that_are_not_whole_is_not_measured():
    given_evidence = evidence(changed(uniform={0.8: 0.3}))
    rows = given_evidence.rows.copy()
    rows.loc[rows.method == "uniform", "test_accuracy"] = math.nan
    found = judged(dataclasses.replace(given_evidence, rows=rows))["global_over_layerwise"]
    assert found.verdict == "not measured"
    assert "no accuracy" in found.why


@pytest.mark.parametrize("accuracy", [0.1, 0.11, 0.05])
def test_a_baseline_at_chance_measures_no_accuracy(accuracy):
    found = judged(evidence(GOOD | {"baseline": {0.0: accuracy}}))
    for name in ACCURACY | {"half_accuracy"}:
        assert found[name].verdict == "not measured"
        assert "the baseline learned nothing" in found[name].why
    # What does not hang on what was learned is judged.
    assert found["half_size"].verdict == "reproduced"
    assert found["float32_on_cpu"].verdict == "reproduced"
    assert found["quantization_error_law"].verdict == "reproduced"


def test_chance_is_the_share_of_the_commonest_class():
    given_evidence = evidence(GOOD | {"baseline": {0.0: 0.9}}, chance=0.9)
    assert judged(given_evidence)["recovery"].verdict == "not measured"


@pytest.mark.parametrize("change", [lambda rows: rows[rows.method != "baseline"],
                                    lambda rows: rows.assign(test_accuracy=rows.test_accuracy.where(
                                        rows.method != "baseline"))])  # fmt: skip
def test_without_a_baseline_no_accuracy_is_judged(change):
    given_evidence = evidence()
    found = judged(dataclasses.replace(given_evidence, rows=change(given_evidence.rows)))
    assert {found[name].verdict for name in ACCURACY} == {"not measured"}
    assert all("the baseline" in found[name].why for name in ACCURACY)


def test_two_methods_at_chance_are_not_compared():
    """The difference would be beyond doubt, and say nothing."""
    found = judged(evidence(changed(**{"global": (0.8, 0.08), "uniform": (0.6, 0.02)})))
    one = found["global_over_layerwise"]
    assert one.verdict == "reproduced"
    assert [line["sparsity"] for line in one.evidence if "difference" in line] == [0.4]
    assert "left out at 80 %: both are no better than chance" in text_of(one)
    both = judged(evidence(changed(**{"global": (0.1, 0.08), "uniform": (0.05, 0.02)})))
    assert both["global_over_layerwise"].verdict == "not measured"


def test_one_method_at_chance_has_lost_to_one_that_is_not():
    found = judged(evidence(changed(uniform=(0.1, 0.1))))["global_over_layerwise"]
    assert found.verdict == "reproduced"
    assert len(found.evidence) == 2


def test_a_network_that_stays_at_chance_has_not_recovered():
    found = judged(evidence(changed(**{"global": (0.8, 0.1), "finetune": (0.92, 0.1)})))
    assert found["recovery"].verdict == "undecided"
    assert "but not at 80 % (against global)" in found["recovery"].why


def test_where_pruning_damaged_nothing_there_is_nothing_to_recover():
    pruned = {one.name for pair in methods.recoveries() for one in pair}
    unharmed = dict.fromkeys(pruned, dict.fromkeys((0.4, 0.8), 0.95))
    found = judged(evidence(GOOD | unharmed))["recovery"]
    assert found.verdict == "not measured"
    assert "nothing to recover" in found.why


def test_networks_of_other_sparsity_than_asked_for_are_not_compared():
    columns = {("structured_layer", 0.8): {"sparsity": 0.7}}
    found = judged(evidence(columns=columns))["unstructured_over_structured"]
    assert "left out at 80 %: 80 % and 70 % of the weights were gone" in text_of(found)
    assert ("structured_layer", 0.8) in {
        (line["other"], line["sparsity"]) for line in found.evidence if "left_out" in line
    }


# Number formats.


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((4000, 2000, 2000), "reproduced"),
        ((4000, 2090, 2000), "reproduced"),
        ((4000, 3900, 2000), "contradicted"),
        ((4000, 2000, 1000), "contradicted"),
    ],
)
def test_half_size_is_half_of_the_tensors_in_every_network(sizes, verdict):
    assert judged(evidence(formats=formats(sizes=sizes)))["half_size"].verdict == verdict


def test_one_network_that_does_not_shrink_contradicts():
    table = formats()
    odd = (table.network == "resnet152") & (table.dtype == "float16")
    found = judged(evidence(formats=table.assign(tensor_bytes=table.tensor_bytes.mask(odd, 3000))))
    assert found["half_size"].verdict == "contradicted"


@pytest.mark.parametrize(
    ("drop", "verdict"),
    [
        (0.0, "suggestive"),
        (0.005, "suggestive"),
        (-0.004, "suggestive"),
        (0.006, "undecided"),
        (-0.02, "undecided"),
    ],
)
def test_a_loss_on_all_test_images_is_exact(drop, verdict):
    found = judged(evidence(formats=formats(drop=drop)))["half_accuracy"]
    assert found.verdict == verdict
    assert "exactly, on all 1,000 test images" in text_of(found)
    assert ("speaks against it" in found.why) == (verdict == "undecided")


def sampled(agreement, count, accuracy=0.9):
    """float32 on all test images, the half formats on a sample of them."""
    table = formats()
    half = (table.network == "baseline") & (table.device == "cpu") & (table.dtype != "float32")
    return table.assign(
        agreement=table.agreement.mask(half, agreement),
        agreement_images=table.agreement_images.mask(half, count),
        accuracy=table.accuracy.mask(half, accuracy),
    )


@pytest.mark.parametrize(
    ("agreement", "count", "accuracy", "verdict"),
    [
        (1.0, 100, 0.9, "undecided"),
        (1.0, 5000, 0.9, "suggestive"),
        (0.99, 5000, 0.9, "undecided"),
        (0.1, 200, 0.1, "undecided"),
    ],
)
def test_a_loss_on_a_sample_is_an_interval(agreement, count, accuracy, verdict):
    found = judged(evidence(images=10_000, formats=sampled(agreement, count, accuracy)))
    assert found["half_accuracy"].verdict == verdict
    for line in found["half_accuracy"].evidence:
        assert line["low"] <= line["high"]
        assert line["images"] == count


def test_without_float32_accuracy_is_compared_with_nothing():
    table = formats()
    found = judged(evidence(formats=table[table.dtype != "float32"]))
    for name in ("half_size", "half_accuracy", "float32_on_cpu"):
        assert found[name].verdict == "not measured"


@pytest.mark.parametrize(
    ("latency", "spread", "verdict"),
    [
        ((1.0, 9.0, 2.0), 0.1, "reproduced"),
        ((5.0, 9.0, 2.0), 0.1, "contradicted"),
        ((9.0, 5.0, 2.0), 0.1, "contradicted"),
        ((2.0, 9.0, 2.0), 0.1, "undecided"),
        # Half of both IQRs together: 0.5 apart with 0.4 is more, with 0.6 less.
        ((2.0, 9.0, 2.5), 0.4, "reproduced"),
        ((2.0, 9.0, 2.5), 0.6, "undecided"),
        ((2.5, 9.0, 2.0), 0.6, "undecided"),
        # An IQR that passes 30 % of the latency, or is not known, ranks nothing.
        ((1.0, 9.0, 3.2), 0.3, "reproduced"),
        ((1.0, 9.0, 3.2), 0.31, "undecided"),
        ((9.0, 1.0, 3.2), 0.31, "contradicted"),
        ((1.0, 9.0, 9.0), math.nan, "undecided"),
        ((9.0, 1.0, 9.0), math.nan, "undecided"),
    ],
)
def test_float32_is_the_fastest_where_the_spread_allows_to_say_so(latency, spread, verdict):
    table = formats(latency=latency, spread=spread)
    found = judged(evidence(formats=table))["float32_on_cpu"]
    assert found.verdict == verdict
    unranked = math.isnan(spread) or spread > 0.3 * min(latency)
    assert ("not ranked: the IQR passes 30 %" in found.why) == unranked


@pytest.mark.parametrize(
    ("isa", "told"),
    [
        (("avx2", "f16c"), "none for float16, none for bfloat16"),
        (("avx512_bf16", "amx_bf16"), "none for float16, amx_bf16, avx512_bf16 for bfloat16"),
        (("avx512_fp16",), "avx512_fp16 for float16, none for bfloat16"),
    ],
)
def test_it_is_told_what_the_cpu_has_for_half_formats(isa, told):
    assert told in text_of(judged(evidence(isa=isa))["float32_on_cpu"])


@pytest.mark.parametrize(
    ("gpu", "small", "large"),
    [
        ((0.5, 0.7, 0.7), "reproduced", "contradicted"),
        ((0.7, 0.5, 0.5), "contradicted", "reproduced"),
        ((0.7, 0.5, 0.7), "contradicted", "undecided"),
        ((0.5, 0.7, 0.5), "reproduced", "contradicted"),
        ((0.5, 0.5, 0.5), "undecided", "undecided"),
        (None, "not measured", "not measured"),
    ],
)
def test_half_formats_on_a_gpu(gpu, small, large):
    found = judged(evidence(formats=formats(gpu=gpu)))
    assert found["small_network_on_gpu"].verdict == small
    assert found["large_network_on_gpu"].verdict == large
    if gpu is None:
        assert found["small_network_on_gpu"].why == "no CUDA device"


def test_the_smallest_batch_is_judged():
    table = formats()
    larger = formats(latency=(9.0, 1.0, 1.0)).assign(batch_size=64)
    found = judged(evidence(formats=pd.concat([larger, table], ignore_index=True)))
    assert found["float32_on_cpu"].verdict == "reproduced"


# Quantization error.


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (1.02e-5, "reproduced"),
        (0.6e-5, "reproduced"),  # the second layer's is twice that of the first
        (2e-5, "undecided"),
        (9e-5, "undecided"),
        (2e-4, "contradicted"),
        (4e-7, "contradicted"),
    ],
)
def test_the_published_error_lies_among_the_layers_or_far_off(error, verdict):
    table = quantized_layers(unit=error * 4.0**8)
    assert judged(evidence(layers=table))["quantization_error_8bit"].verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.0, "reproduced"), (1.09, "reproduced"), (1.2, "contradicted"), (0.5, "contradicted")],
)
def test_the_law_holds_within_a_tenth(ratio, verdict):
    found = judged(evidence(layers=quantized_layers(ratio=ratio)))
    assert found["quantization_error_law"].verdict == verdict


def test_the_law_is_undecided_where_layers_differ_or_a_width_is_missing():
    table = quantized_layers()
    apart = table.assign(ratio=table.ratio.mask(table.layer == "fc", 1.5))
    assert judged(evidence(layers=apart))["quantization_error_law"].verdict == "undecided"
    found = judged(evidence(layers=table[table.bits == 8]))
    assert found["quantization_error_law"].verdict == "undecided"
    assert found["quantization_error_16bit"].verdict == "not measured"
    by_channel = judged(evidence(layers=table.assign(granularity="channel")))
    assert by_channel["quantization_error_law"].verdict == "not measured"


# What becomes of it.


def test_json_has_every_finding_six_digits_and_no_nan():
    table = formats()
    context = {
        "seeds": (0, 1), "share": np.float64(1 / 3), "images": np.int64(IMAGES), "none": math.nan,
    }  # fmt: skip
    given_evidence = evidence(formats=formats(spread=math.nan))
    text = json.dumps(findings.to_json(findings.judge(given_evidence), context), allow_nan=False)
    again = json.dumps(findings.to_json(findings.judge(given_evidence), context), allow_nan=False)
    assert text == again
    stored = json.loads(text)
    known = {"seeds": [0, 1], "share": 0.333333, "images": IMAGES, "none": None}
    assert stored["context"] == known
    assert [one["id"] for one in stored["findings"]] == list(judged(evidence(formats=table)))
    assert {one["verdict"] for one in stored["findings"]} <= set(verdicts.VERDICTS)
    first = stored["findings"][0]
    assert set(first) == {field.name for field in dataclasses.fields(findings.Finding)}
    line = first["evidence"][0]
    assert (line["one"], line["other"], line["sparsity"]) == ("global", "uniform", 0.4)
    assert (line["seeds"], line["images"], line["outcome"]) == (3, IMAGES, "better")
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


def test_predictions_and_rows_are_of_the_same_accuracy():
    """The tables made up here are what they say."""
    for key, correct in evidence().correct.items():
        assert correct.mean() == pytest.approx(GOOD[key.method][key.target_sparsity])
    assert right([0.25], 8).sum() == 2
    assert row(0, "global", 0.5, 0.9).test_accuracy == 0.9
