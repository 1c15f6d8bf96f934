"""Measures latencies: calls in turns, each within a time box, and again if one is unsteady."""

import timeit
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from stages.lib.core.records import MOST_IQR

# A time box is spent in this many turns, each in this many blocks of calls.
ROUNDS = 5
BLOCKS = 4
# A call that takes longer than this many boxes is made once.
MOST_BOXES = 6

Call = Callable[[], object]
Clock = Callable[[], float]


class Latency(NamedTuple):
    """The latency of one call.

    median, iqr: over blocks of calls, in seconds; the IQR of a single block is None.
    repetitions: the number of calls timed.
    """

    median: float
    iqr: float | None
    repetitions: int

    @property
    def is_steady(self) -> bool:
        """Whether the IQR, if known, is small enough for a ranking."""
        return self.iqr is None or self.iqr <= MOST_IQR * self.median


def summary(blocks: Sequence[float], repetitions: int) -> Latency:
    """The median and the IQR of the blocks' mean seconds per call."""
    low, middle, high = np.quantile(blocks, [0.25, 0.5, 0.75]).tolist()
    return Latency(middle, high - low if len(blocks) > 1 else None, repetitions)


class _Series:
    """The timings of one call. Creating it warms the call up."""

    def __init__(self, call: Call, clock: Clock, seconds: float) -> None:
        self.timer = timeit.Timer(call, timer=clock)
        # The first call also chooses kernels. It counts only if it is the only one.
        self.warm_up = [self.timer.timeit(1)]
        if self.warm_up[0] < MOST_BOXES * seconds:
            self.warm_up = [self.timer.timeit(1) for _ in range(2)]
        self.expected, self.left = min(self.warm_up), 0.0
        self.blocks: list[float] = []
        self.repetitions = 0

    def take(self, seconds: float) -> None:
        """Times as many calls as fit into `seconds` and what earlier turns left."""
        self.left += seconds
        fitting = int(self.left / max(self.expected, 1e-7))
        # Other calls have filled the caches meanwhile.
        warm_up = max(1, fitting // 100)
        blocks = min(BLOCKS, fitting - warm_up)
        if blocks < 1:
            return
        number = (fitting - warm_up) // blocks
        self.left -= self.timer.timeit(warm_up)
        means = [self.timer.timeit(number) / number for _ in range(blocks)]
        self.left -= number * sum(means)
        self.expected = median(means)
        self.blocks += means
        self.repetitions += number * blocks

    def latency(self) -> Latency:
        if len(self.blocks) > 1:
            return summary(self.blocks, self.repetitions)
        few = [*self.warm_up, *self.blocks]  # a block of one call, if any
        return summary(few, len(few))


def interleaved(calls: Sequence[Call], seconds: float, clock: Clock) -> list[Latency]:
    """The latency of each call, with about `seconds` for each, in turns over several rounds. A
    machine that is slow for a while slows all calls, so that their ratios stay right.

    Each call is warmed up three times. If no more than one further call fits into the box, it and
    the last two of these are the measurement. A call that takes longer than MOST_BOXES boxes is
    made once.
    """
    series = [_Series(call, clock, seconds) for call in calls]
    for _ in range(ROUNDS):
        for one in series:
            one.take(seconds / ROUNDS)
    return [one.latency() for one in series]


def steady(calls: Sequence[Call], seconds: float, clock: Clock = perf_counter) -> list[Latency]:
    """As `interleaved`. If one is unsteady, all are measured again, once, in twice the time."""
    latencies = interleaved(calls, seconds, clock)
    if all(latency.is_steady for latency in latencies):
        return latencies
    return interleaved(calls, 2 * seconds, clock)


def clock_of(device: torch.device) -> Clock:
    """A clock in seconds that waits until the device has finished its work."""

    def read() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return read if device.type == "cuda" else perf_counter
