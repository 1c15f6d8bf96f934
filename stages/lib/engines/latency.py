"""How long calls take: in turns, within a time box each, and again where one is unsteady."""

import timeit
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from stages.lib.core.records import MOST_IQR

# A box is spent in so many turns, each in so many blocks of calls.
ROUNDS = 5
BLOCKS = 4
# A call that takes longer than so many boxes is made once.
MOST_BOXES = 6
# Unsteady latencies are measured again, each time with twice the time, at most so often.
MOST_REPEATS = 2

Call = Callable[[], object]
Clock = Callable[[], float]


class Latency(NamedTuple):
    """Of one call, in seconds: median and interquartile range over blocks of calls (None for one
    block); repetitions: calls timed.
    """

    median: float
    iqr: float | None
    repetitions: int

    @property
    def is_steady(self) -> bool:
        """Whether the IQR, where it is known, is small enough to rank by."""
        return self.iqr is None or self.iqr <= MOST_IQR * self.median


def summary(blocks: Sequence[float], repetitions: int) -> Latency:
    """Median and IQR of the blocks' mean seconds per call."""
    low, middle, high = np.quantile(blocks, [0.25, 0.5, 0.75]).tolist()
    return Latency(middle, high - low if len(blocks) > 1 else None, repetitions)


class _Series:
    """The timings of one call. It warms up when it is made."""

    def __init__(self, call: Call, clock: Clock, seconds: float) -> None:
        self.timer, self.clock = timeit.Timer(call, timer=clock), clock
        # The first call also chooses kernels: it counts only where there is no other.
        self.warm_up = [self.timer.timeit(1)]
        if self.warm_up[0] < MOST_BOXES * seconds:
            self.warm_up = [self.timer.timeit(1) for _ in range(2)]
        self.expected, self.left = min(self.warm_up), 0.0
        self.blocks: list[float] = []
        self.repetitions = 0

    def take(self, seconds: float) -> None:
        """Times calls for `seconds` and what was left of earlier turns, as far as they fit."""
        self.left += seconds
        fitting = int(self.left / max(self.expected, 1e-7))
        # The other calls took the caches meanwhile.
        warm_up = max(1, fitting // 100)
        blocks = min(BLOCKS, fitting - warm_up)
        if blocks < 1:
            return
        start, number = self.clock(), (fitting - warm_up) // blocks
        self.timer.timeit(warm_up)
        means = [self.timer.timeit(number) / number for _ in range(blocks)]
        self.left -= self.clock() - start
        self.expected = median(means)
        self.blocks += means
        self.repetitions += number * blocks

    def latency(self) -> Latency:
        if self.blocks:
            return summary(self.blocks, self.repetitions)
        return summary(self.warm_up, len(self.warm_up))


def interleaved(calls: Sequence[Call], seconds: float, clock: Clock) -> list[Latency]:
    """Latency of each call, about `seconds` for each, taken in turns over several rounds: a machine
    that slows down for a while slows all of them, so that their ratios stay right.

    Three calls warm up; of a call of which no more fit into its box, the last two of them are the
    measurement; a call that takes longer than MOST_BOXES boxes is made once.
    """
    series = [_Series(call, clock, seconds) for call in calls]
    for _ in range(ROUNDS):
        for one in series:
            one.take(seconds / ROUNDS)
    return [one.latency() for one in series]


def steady(calls: Sequence[Call], seconds: float, clock: Clock = perf_counter) -> list[Latency]:
    """As `interleaved`; where one is not steady, all are measured again with twice the time, at
    most MOST_REPEATS times: some may stay unsteady.
    """
    for repeat in range(MOST_REPEATS + 1):
        latencies = interleaved(calls, seconds * 2**repeat, clock)
        if all(latency.is_steady for latency in latencies):
            break
    return latencies


def clock_of(device: torch.device) -> Clock:
    """Seconds, read when the device has done what it was given."""

    def read() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return read if device.type == "cuda" else perf_counter
