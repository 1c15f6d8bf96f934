"""Latencies, by a clock that moves only when a call is made."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.core.records import MOST_IQR
from stages.lib.engines import latency
from tests.toys import few_examples


class Clock:
    """Seconds that pass in calls alone. log: the calls made."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def call(self, duration):
        """A call that takes so many seconds, or as many as a function of the time says."""

        def call():
            self.log.append(call)
            self.now += duration(self.now) if callable(duration) else duration

        return call


def measured(clock, *durations):
    calls = [clock.call(duration) for duration in durations]
    return latency.interleaved(calls, 1.0, clock), [clock.log.count(call) for call in calls]


@pytest.mark.parametrize(
    ("blocks", "median", "iqr"),
    [
        ([3.0], 3.0, None),
        ([5.0, 1.0, 4.0, 2.0, 3.0], 3.0, 2.0),
        ([1.0, 1.0, 1.0, 100.0], 1.0, 24.75),
    ],
)
def test_summary_of_known_blocks(blocks, median, iqr):
    assert latency.summary(blocks, 7) == (median, iqr and pytest.approx(iqr), 7)


@pytest.mark.parametrize(
    ("duration", "made", "counted"),
    [
        (100.0, 1, 1),  # longer than six boxes: made once
        (2.0, 3, 2),  # longer than its box: not repeated after its warm-up
        (0.3, 5, 3),  # one more fits into the box, after one that warms up
    ],
)
def test_a_call_that_is_long_for_its_box_is_made_a_few_times(duration, made, counted):
    (found,), count = measured(Clock(), duration)
    assert count == [made]
    assert found.median == pytest.approx(duration)
    assert found.repetitions == counted
    assert (found.iqr is None) == (counted == 1)


@given(durations=st.lists(st.floats(1e-3, 10), max_size=4))
@few_examples
def test_every_call_has_its_own_latency_and_no_more_than_its_time(durations):
    found, counts = measured(Clock(), *durations)
    for duration, one, count in zip(durations, found, counts, strict=True):
        assert one.median == pytest.approx(duration, rel=1e-6)
        assert one.repetitions <= count
        assert one.iqr is None or one.iqr == pytest.approx(0, abs=1e-6)
        assert (count - 3) * duration <= 1.0 + 1e-6
        # A fifth of them, at most, are for the warm caches.
        assert duration > 0.02 or one.repetitions >= 0.7 / duration - 1


def test_calls_take_turns_in_every_round():
    clock = Clock()
    measured(clock, 0.001, 0.002)
    turns = sum(one is not other for one, other in pairwise(clock.log))
    # The warm-up and five rounds: one after the other would be a single change.
    assert turns == 2 * (1 + latency.ROUNDS) - 1


def test_what_is_steady_is_measured_once():
    clock = Clock()
    calls = [clock.call(0.01), clock.call(9.0)]
    assert all(one.is_steady for one in latency.steady(calls, 1.0, clock))
    assert clock.log.count(calls[1]) == 1


def test_what_is_unsteady_at_first_is_measured_again_with_all_others():
    clock = Clock()
    # At first the machine is busy every other tenth of a second.
    restless = clock.call(lambda now: 0.01 if now > 2 or int(10 * now) % 2 else 0.05)
    found, other = latency.steady([restless, clock.call(0.01)], 1.0, clock)
    assert found.is_steady
    assert found.median == pytest.approx(0.01)
    # In twice the time.
    assert 100 < other.repetitions <= 200


def test_what_stays_unsteady_is_measured_again_and_says_so():
    clock, chance = Clock(), random.Random(0)
    (found,) = latency.steady([clock.call(lambda _: chance.choice([0.01] * 9 + [0.2]))], 1.0, clock)
    assert not found.is_steady
    assert found.iqr > MOST_IQR * found.median
    assert 3 <= clock.now < 5
