import time
from itertools import pairwise

import pytest
import torch

from stages.lib.engines import latency

CPU = torch.device("cpu")
BOX = 0.02


class Call:
    """Counts its calls and notes the thread count; takes about `seconds`."""

    def __init__(self, seconds=0.0, log=None):
        self.seconds = seconds
        self.count = 0
        self.threads = set()
        self.log = log

    def __call__(self):
        self.count += 1
        self.threads.add(torch.get_num_threads())
        if self.log is not None:
            self.log.append(self)
        if self.seconds:
            time.sleep(self.seconds)


def measured(*calls, threads=1, seconds=BOX):
    return latency.interleaved(calls, device=CPU, threads=threads, seconds=seconds)


@pytest.mark.parametrize(
    ("blocks", "median", "iqr"),
    [
        ([1.0, 2.0], 1.5, 0.5),
        ([5.0, 1.0, 4.0, 2.0, 3.0], 3.0, 2.0),
        ([1.0, 1.0, 1.0, 100.0], 1.0, 24.75),
    ],
)
def test_summary_of_known_blocks(blocks, median, iqr):
    assert latency.summary(blocks, 7) == latency.Latency(median, pytest.approx(iqr), 7)


def test_summary_of_tiny_times_loses_no_digits():
    found = latency.summary([1e-9, 2e-9, 3e-9], 1)
    assert found.median == 2e-9


def test_one_call_is_timed_once():
    call = Call()
    assert latency.seconds_of_one(call, CPU) > 0
    assert call.count == 1


def test_a_call_far_longer_than_its_box_runs_once():
    call = Call(0.05)
    (found,) = measured(call, seconds=0.005)
    assert call.count == 1
    assert found.runs == 1
    assert found.iqr is None
    assert found.median > 0.04


def test_a_call_longer_than_its_box_is_not_repeated_after_its_warm_up():
    call = Call(2 * BOX)
    (found,) = measured(call)
    assert call.count <= 3
    assert found.runs == 1


def test_a_fast_call_is_timed_many_times():
    call = Call()
    (found,) = measured(call)
    assert found.runs > 1000
    assert call.count > found.runs
    assert found.median > 0
    assert found.iqr >= 0


def test_the_time_of_a_call_is_no_less_than_what_it_takes():
    (found,) = measured(Call(0.002))
    assert found.median > 0.0019


def test_every_call_has_its_own_latency_in_the_order_given():
    slow, fast, slower = measured(Call(0.005), Call(), Call(0.03))
    assert fast.median < slow.median < slower.median
    assert slow.runs < fast.runs


def test_calls_take_turns():
    log = []
    first, second = Call(log=log), Call(log=log)
    measured(first, second)
    turns = sum(one is not other for one, other in pairwise(log))
    # Warm-up and five rounds: one after the other would be a single change.
    assert turns >= 5


def test_a_slow_call_does_not_keep_the_others_from_their_rounds():
    slow, fast = measured(Call(2 * BOX), Call())
    assert slow.runs == 1
    assert fast.runs > 20


@pytest.mark.parametrize("threads", [1, 2])
def test_the_thread_count_holds_during_the_calls_and_comes_back(threads):
    before = torch.get_num_threads()
    call = Call()
    try:
        torch.set_num_threads(3)
        measured(call, threads=threads)
        assert call.threads == {threads}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("fails_at", [1, 2, 10])
def test_the_thread_count_comes_back_after_a_failure(fails_at):
    before = torch.get_num_threads()
    call = Call()

    def fails():
        call()
        if call.count == fails_at:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measured(fails, threads=before + 1)
    assert torch.get_num_threads() == before


def test_measuring_one_call_is_as_measuring_several():
    call = Call()
    found = latency.measure(call, device=CPU, threads=1, seconds=BOX)
    assert isinstance(found, latency.Latency)
    assert 20 < found.runs < call.count


def test_nothing_to_measure_gives_nothing():
    assert measured() == []


def test_one_block_has_no_range():
    assert latency.summary([3.0], 7) == latency.Latency(3.0, None, 7)


@pytest.mark.parametrize("share", [300, 50, 12])
def test_a_call_is_timed_in_every_round_in_which_three_of_it_fit(share):
    """Taking turns is worth nothing if one round uses up the box of all."""
    call = Call(0.3 / share)
    (found,) = measured(call, seconds=0.3)
    rounds = min(latency.ROUNDS, share // 3)
    assert found.runs >= rounds - 1
    assert found.iqr is not None


def of_rounds(*rounds, median=1.0):
    return latency.Latency(median, None, 1, rounds)


def test_a_relative_latency_is_the_median_of_the_ratios_within_rounds():
    # The machine was ten times slower in the second round, and in the third for the base alone.
    base, one = of_rounds(2.0, 20.0, 40.0), of_rounds(1.0, 10.0, 1.0)
    assert latency.relative(one, base) == 0.5
    assert latency.relative(base, base) == 1.0


def test_rounds_without_both_do_not_count():
    base, one = of_rounds(None, 2.0, 4.0), of_rounds(9.0, None, 1.0)
    assert latency.relative(one, base) == 0.25


def test_without_a_common_round_the_medians_are_compared():
    base = of_rounds(1.0, None, median=4.0)
    assert latency.relative(of_rounds(None, 1.0, median=2.0), base) == 0.5
    assert latency.relative(of_rounds(median=1.0), base) == 0.25


def test_a_call_has_a_time_for_every_round_in_which_it_ran():
    slow, fast = measured(Call(2 * BOX), Call())
    assert slow.rounds == ()
    assert len(fast.rounds) == latency.ROUNDS
    # Where the machine stalls in one round, the next ones have no time left.
    assert fast.rounds[0] > 0
    assert all(one is None or one > 0 for one in fast.rounds)
    assert latency.relative(slow, fast) == slow.median / fast.median
