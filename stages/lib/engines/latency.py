"""How long a call takes: torch's own benchmark timer, within a box of time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch.utils import benchmark

ROUNDS = 5
MOST_BOXES = 6


@dataclass(frozen=True)
class Latency:
    """Seconds per call: median and interquartile range over blocks of calls (None for one block);
    runs: calls timed; rounds: the median of each round, None where it was not this call's turn.
    """

    median: float
    iqr: float | None
    runs: int
    rounds: tuple[float | None, ...] = field(default=(), compare=False)

    @property
    def median_ms(self) -> float:
        """The median in milliseconds."""
        return self.median * 1e3

    @property
    def iqr_ms(self) -> float | None:
        """The interquartile range in milliseconds."""
        return None if self.iqr is None else self.iqr * 1e3


def relative(one: Latency, base: Latency) -> float:
    """How many times as long as `base` one call takes, both of one call of `interleaved`: the
    median over the rounds of the ratio within a round, so that a machine which is slow in some
    rounds slows both sides. Where no round has both, the ratio of the medians.
    """
    ratios = [
        mine / its for mine, its in zip(one.rounds, base.rounds, strict=False) if mine and its
    ]
    return median(ratios) if ratios else one.median / base.median


def summary(blocks: Sequence[float], runs: int) -> Latency:
    """Median and interquartile range of block means, in seconds; one block has no range."""
    values = torch.tensor(blocks, dtype=torch.float64)
    low, median, high = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    return Latency(median, high - low if len(blocks) > 1 else None, runs)


def seconds_of_one(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class _Series:
    """One call's measurements: warmed up when made, then timed in blocks as time is allotted."""

    def __init__(self, call: Callable[[], object], device: torch.device, seconds: float) -> None:
        # The first call also chooses and compiles kernels: it counts only where it takes too long.
        self.expected = seconds_of_one(call, device)
        if self.expected < MOST_BOXES * seconds:
            self.expected = min(seconds_of_one(call, device) for _ in range(2))
        # The timer sets the thread count it is told and synchronises CUDA around every block.
        self.timer = benchmark.Timer(
            "call()", globals={"call": call}, num_threads=torch.get_num_threads()
        )
        self.means: list[float] = []
        self.rounds: list[float | None] = []
        self.runs = 0
        self.left = 0.0

    def take(self, seconds: float) -> None:
        """Uses up `seconds` more, and what was left of earlier allotments, in one block or four."""
        self.left += seconds
        fitting = int(self.left / max(self.expected, 1e-7))
        blocks = 4 if fitting >= 100 else 1
        # Before each block timeit makes two calls, or a hundredth of the block, that do not count.
        number = fitting // blocks - max(2, fitting // blocks // 100)
        if number < 1:
            self.rounds.append(None)
            return
        start = time.perf_counter()
        found = [self.timer.timeit(number).mean for _ in range(blocks)]
        self.left -= time.perf_counter() - start
        self.expected = min(found)
        self.means += found
        self.rounds.append(median(found))
        self.runs += number * blocks

    def latency(self) -> Latency:
        if not self.means:
            return Latency(self.expected, None, 1)
        return replace(summary(self.means, self.runs), rounds=tuple(self.rounds))


def interleaved(
    calls: Sequence[Callable[[], object]],
    *,
    device: torch.device,
    threads: int,
    seconds: float,
) -> list[Latency]:
    """Latency of each call, about `seconds` for each, taken in turns over several rounds.

    A machine that slows down for a while slows all of them, so their ratios stay right. Three
    calls warm up (one, where it takes longer than MOST_BOXES boxes). A call that takes longer than
    its whole box is not repeated: its last warm-up is the measurement, and `runs` is 1. The thread
    count holds meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        series = [_Series(call, device, seconds) for call in calls]
        for _ in range(ROUNDS):
            for one in series:
                one.take(seconds / ROUNDS)
    finally:
        torch.set_num_threads(before)
    return [one.latency() for one in series]


def measure(
    call: Callable[[], object], *, device: torch.device, threads: int, seconds: float
) -> Latency:
    """Latency of one call within about `seconds`; as `interleaved`."""
    return interleaved([call], device=device, threads=threads, seconds=seconds)[0]
