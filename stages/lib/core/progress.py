"""What a person sees of a loop while it runs: a bar on a terminal, a line a minute in a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
# Whether loops show anything. In the worker of a stage they do not, but note in a file how far they
# are, if there is one: the stage shows it.
visible = True
notes: Path | None = None
# Seconds between two lines of a loop in a log, two notes, and two looks at what is at work.
PAUSE, NOTE_PAUSE, TICK = 60.0, 1.0, 5.0


def duration(seconds: float) -> str:
    """A time for people: 2.2 s, 40 s, 3 min, 2.5 h."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5370 else f"{seconds / 3600:.1f} h"


def shown(
    items: Iterable[Item],
    label: str,
    unit: str,
    total: int | None = None,
    at_work: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """The items. Of a loop that is done within a minute, a log shows nothing.

    label: what the loop does.
    unit: what an item is.
    total: the number of items, if they cannot be counted.
    at_work: says how far an item is that takes long; called in a thread.
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if visible and sys.stderr.isatty():
        bar = tqdm(items, label, total, unit=unit, leave=False)
        with _repeated(1, at_work and (lambda: bar.set_postfix_str(at_work()))):
            yield from bar
        return
    if not visible and notes is None:
        yield from items
        return
    pause, begun, done = (PAUSE if visible else NOTE_PAUSE), time.monotonic(), 0
    told = begun

    def tell() -> None:
        nonlocal told
        now = time.monotonic()
        if now - told < pause:
            return
        told, place = now, f"{unit} {done}{f' of {total}' if total else ''}"
        if done and total:
            place += f", about {duration((now - begun) / done * (total - done))} left"
        if visible:
            more = at_work() if at_work else ""
            print(f"{label}: {'; '.join(filter(None, (place, more)))}", flush=True)
        else:
            notes.write_text(place, encoding="utf-8")

    with _repeated(TICK, at_work and tell):
        for item in items:
            tell()
            yield item
            done += 1


@contextmanager
def _repeated(seconds: float, action: Callable[[], None] | None) -> Iterator[None]:
    """Calls the action, if there is one, again and again, in a thread, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True) if action else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread:
            thread.join()
