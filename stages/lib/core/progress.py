"""What a person sees of a loop while it runs: a bar on a terminal, a line a minute in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
# Whether loops show anything. In the worker of a stage they do not: the stage shows what is done.
visible = True
# In a log: seconds between two lines of a loop.
PAUSE = 60.0


def duration(seconds: float) -> str:
    """A time for people: 2.2 s, 40 s, 3 min, 2.5 h."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5370 else f"{seconds / 3600:.1f} h"


def shown(items: Iterable[Item], label: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items. Of a loop that is done within a minute, a log shows nothing.

    label: what the loop does.
    unit: what an item is.
    total: the number of items, if they cannot be counted.
    """
    if not visible:
        yield from items
        return
    if sys.stderr.isatty():
        yield from tqdm(items, label, total, unit=unit, leave=False)
        return
    total = len(items) if total is None and hasattr(items, "__len__") else total
    begun = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - told >= PAUSE:
            told, left = now, ""
            if total:
                left = f" of {total}, about {duration((now - begun) / done * (total - done))} left"
            print(f"{label}: {unit} {done}{left}", flush=True)
        yield item
