"""Intervals: known closed forms, symmetries, and how often they hold the truth in simulations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from stages.lib.analysis import statistics
from stages.lib.analysis.statistics import Share

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 40))
CONFIDENCES = st.floats(0.5, 0.9999)
many = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@st.composite
def pairs(draw):
    shape = draw(SHAPES)
    return tuple(draw(arrays.arrays(bool, shape)) for _ in range(2))


def width(interval):
    return interval.high - interval.low


def bonett_price(only_one, only_other, images, confidence):
    """Their adjusted Wald interval, from the numbers of images that one method alone gets right."""
    first, second = (only_one + 1) / (images + 2), (only_other + 1) / (images + 2)
    error = math.sqrt((first + second - (first - second) ** 2) / (images + 2))
    half = stats.norm.ppf(0.5 + confidence / 2) * error
    return first - second - half, first - second + half


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("only_one", "only_other"), [(12, 5), (0, 0), (0, 9), (50, 50)])
def test_one_seed_is_bonett_and_prices_interval(only_one, only_other, confidence):
    one, other = np.zeros((2, 1, 400), bool)
    one[0, :only_one] = True
    other[0, only_one : only_one + only_other] = True
    one[0, 300:] = other[0, 300:] = True
    found = statistics.difference(one, other, confidence)
    low, high = bonett_price(only_one, only_other, 400, confidence)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.estimate == pytest.approx((only_one - only_other) / 400)
    assert (found.confidence, found.seeds, found.images) == (confidence, 1, 400)


@pytest.mark.parametrize("right", [0, 1, 93, 100])
def test_one_seeds_accuracy_is_agresti_and_coulls_interval(right):
    correct = (np.arange(100) < right)[None]
    found = statistics.accuracy(correct, 0.95)
    z = stats.norm.ppf(0.975)
    centre = (right + z**2 / 2) / (100 + z**2)
    half = z * math.sqrt(centre * (1 - centre) / (100 + z**2))
    assert found.low == pytest.approx(max(0, centre - half))
    assert found.high == pytest.approx(min(1, centre + half))


def test_seeds_that_differ_and_images_that_do_not_are_students_t():
    # Every image of a seed alike: all there is to know is in the seeds' means.
    values = np.array([1.0, 0.0, 0.0, 0.0])
    one = np.repeat(values[:, None] > 0, 100_000, axis=1)
    found = statistics.difference(one, np.zeros_like(one), 0.9)
    half = stats.t.ppf(0.95, 3) * values.std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-3)


@given(pairs(), CONFIDENCES, st.randoms(use_true_random=False))
@many
def test_a_difference_turned_round_is_its_negative_in_any_order_and_wider_if_surer(
    pair, confidence, random
):
    one, other = pair
    forth = statistics.difference(one, other, confidence)
    back = statistics.difference(other, one, confidence)
    assert forth.estimate == -back.estimate == pytest.approx(one.mean() - other.mean())
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert -1 <= forth.low <= forth.estimate <= forth.high <= 1
    assert (forth.seeds, forth.images) == one.shape
    seeds, images = (random.sample(range(size), size) for size in one.shape)
    shuffled = statistics.difference(one[seeds][:, images], other[seeds][:, images], confidence)
    assert (shuffled.low, shuffled.high) == pytest.approx((forth.low, forth.high))
    assert width(statistics.difference(one, other, (1 + confidence) / 2)) >= width(forth)
    # A network is level with itself, but not for certain.
    itself = statistics.difference(one, one, confidence)
    assert itself.low < itself.estimate == 0 < itself.high == -itself.low


@given(arrays.arrays(bool, SHAPES), CONFIDENCES)
@many
def test_an_accuracy_is_a_share_inside_its_interval(correct, confidence):
    found = statistics.accuracy(correct, confidence)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.estimate == pytest.approx(correct.mean())
    assert width(found) > 0
    wrong = statistics.accuracy(~correct, confidence)
    assert (wrong.low, wrong.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-12)


def test_a_hundred_times_the_images_is_a_tenth_of_the_width():
    # Seeds that agree.
    one, other = np.repeat(np.random.default_rng(0).random((2, 1, 400)) < 0.8, 3, axis=1)
    few = statistics.difference(one, other, 0.95)
    more = statistics.difference(np.tile(one, 100), np.tile(other, 100), 0.95)
    assert width(more) == pytest.approx(width(few) / 10, rel=0.02)


# Of two runs of which no more is known than their accuracies.


@pytest.mark.parametrize(
    ("shapes", "confidence", "told"),
    [
        *((shapes, 0.95, "seeds") for shapes in (
            ((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,)), ((0, 3), (0, 3)), ((2, 0), (2, 0)),
        )),
        *((((2, 3), (2, 3)), level, "confidence") for level in (0.0, 1.0, 95, -1)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(shapes, confidence, told):
    with pytest.raises(ValueError, match=told):
        statistics.difference(*(np.ones(shape, bool) for shape in shapes), confidence)


def unpaired(before, after, images, confidence=0.95):
    """after − before, each a value per seed."""
    one, other = (dict(enumerate(values)) if isinstance(values, list) else values
                  for values in (after, before))  # fmt: skip
    shares = [Share(np.mean(list(part.values())), images) for part in (one, other)]
    return statistics.unpaired(*shares, confidence, statistics.over_seeds(one, other))


ENDLESS = 10**15


def test_of_one_accuracy_each_it_is_newcombes_interval():
    # Newcombe (1998), table II, (a): 56/70 against 48/80, method 10.
    shares = Share(56 / 70, 70), Share(48 / 80, 80)
    forth = statistics.unpaired(*shares, 0.95)
    assert (forth.low, forth.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert forth.estimate == pytest.approx(0.2)
    back = statistics.unpaired(*reversed(shares), 0.95)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    with pytest.raises(ValueError, match="no accuracy"):
        statistics.unpaired(Share(0.5, 0), Share(0.5, 10), 0.95)


PAIRED = [0.9, 0.92, 0.99], [0.91, 0.925, 0.993]
OTHERS = {0: 0.9, 1: 0.92, 2: 0.99}, {3: 0.91, 4: 0.925}
VARIANCES = [np.var(list(run.values()), ddof=1) / len(run) for run in OTHERS]


@pytest.mark.parametrize(
    ("before", "after", "half"),
    [
        # Student's t of paired seeds.
        (*PAIRED, stats.t.ppf(0.975, 2) * stats.sem(np.subtract(*PAIRED))),
        # Cochran and Cox's interval of other seeds.
        (*OTHERS, np.dot(VARIANCES, stats.t.ppf(0.975, [2, 1])) / sum(VARIANCES) ** 0.5),
        # A single seed is taken to spread as the other run's do.
        ([0.9, 0.92, 0.94], {7: 0.95}, stats.t.ppf(0.975, 2) * 0.02 * (1 / 3 + 1) ** 0.5),
    ],
)
def test_images_without_end_leave_the_interval_of_seeds(before, after, half):
    found = unpaired(before, after, ENDLESS)
    middle = (found.low + found.high) / 2
    assert (middle, width(found) / 2) == pytest.approx((found.estimate, half), rel=1e-3)


@given(*[st.lists(st.floats(0, 1), min_size=1, max_size=4)] * 2, st.integers(1, 10_000))
@many
def test_two_runs_turned_round_are_the_negative(before, after, images):
    forth, back = unpaired(before, after, images), unpaired(after, before, images)
    assert -1 <= forth.low <= forth.estimate <= forth.high <= 1
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert forth.low < forth.high  # No error is not certainty.


@pytest.mark.parametrize(("seeds", "images"), [(1, 100), (3, 100), (3, 2000), (5, 500)])
def test_no_difference_is_seldom_taken_for_one(seeds, images):
    """Runs of one truth, other images each: no more false alarms than the confidence allows."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        truth = np.clip(random.normal(0.95, 0.01 * (seeds > 1), (2, seeds)), 0, 1)
        found = unpaired(*(list(random.binomial(images, run) / images) for run in truth), images)
        alarms += found.low > 0 or found.high < 0
    assert alarms / 400 < 0.075


@pytest.mark.parametrize(
    ("accuracy", "chance", "images", "guessing"),
    [(0.1, 0.1, 500, True), (0.125, 0.1, 500, True), (0.128, 0.1, 500, False), (0.0, 0.5, 9, True)],
)
def test_at_chance_is_within_two_standard_errors_of_guessing(accuracy, chance, images, guessing):
    assert statistics.at_chance(accuracy, chance, images) == guessing


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


GAP, BY_METHOD, EASY = 0.4, 0.7, 1.5


def chances(random, seeds, images, seed_deviation):
    """The probabilities with which two methods' networks are right: [2, seeds, images].

    Images are more or less difficult, for one method more than for the other; trainings turn out
    well or badly.
    """
    difficulty = random.normal(EASY, 1.5, images)
    apart = random.normal(0, BY_METHOD, (2, 1, images))
    training = random.normal(0, seed_deviation, (2, seeds, 1))
    training[0] += GAP
    return sigmoid(difficulty + apart + training)


def held(seeds, images, seed_deviation, confidence, trials):
    """In what share of simulated runs the interval holds the true difference.

    One seed: that of these two networks over all images there are. More: that of all trainings.
    """
    random = np.random.default_rng([seeds, images, round(100 * seed_deviation)])
    everything = chances(random, 1 if seeds == 1 else 2000, 2000, seed_deviation)
    truth = everything[0].mean() - everything[1].mean()
    count = 0
    for _ in range(trials):
        if seeds == 1:
            right = everything[:, :, random.integers(0, 2000, images)]
        else:
            right = chances(random, seeds, images, seed_deviation)
        found = statistics.difference(*(random.random(right.shape) < right), confidence)
        count += found.low <= truth <= found.high
    return count / trials


@pytest.mark.parametrize("seed_deviation", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("images", [50, 500, 2000])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_intervals_hold_the_truth_as_often_as_they_promise(seeds, images, seed_deviation):
    assert held(seeds, images, seed_deviation, 0.95, 1000) >= 0.93
    # So do intervals that are corrected for many comparisons.
    if seeds in (2, 3) and (images, seed_deviation) == (500, 1.0):
        assert held(seeds, images, seed_deviation, 0.99, 1000) >= 0.97
