"""What the benchmark programs share: their arguments, their clock and the repository's place."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parser(description: str) -> argparse.ArgumentParser:
    """For the arguments of the program that a module's docstring describes."""
    return argparse.ArgumentParser(description=description.partition("\n")[0])


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Notes the seconds that pass while it is entered."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
