"""The texts of both reports. words.j2 has a macro for each figure and for each text in both
reports; the templates of the reports have the rest.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from stages.lib.analysis import selection_file, tables
from stages.lib.core import paths
from stages.lib.core.engines import ENGINES
from stages.lib.core.records import MOST_IQR
from stages.lib.report import columns


def loss(share: float) -> str:
    """A loss of accuracy: 0.01 → 1 percentage point."""
    return f"{100 * share:.4g} percentage point{'' if share == 0.01 else 's'}"


def test(found: Mapping[str, float]) -> str:
    """The text of a test accuracy with its interval."""
    return tables.estimate(found["accuracy"], found["low"], found["high"])


def latency(choice: Mapping[str, Any]) -> str:
    """The text of a latency in selection.json, with its engine and speedup."""
    if choice["latency_ms"] is None:
        return "not timed"
    engine = ENGINES[choice["engine"]].title
    return f"{tables.milliseconds(choice['latency_ms'])} ms in {engine} ({speed(choice)})"


def speed(choice: Mapping[str, Any]) -> str:
    """How much faster a network of selection.json is, or why that is not known."""
    if choice["speedup"] is not None:
        return f"{tables.factor(choice['speedup'])} faster"
    iqr = choice["latency_iqr_ms"]
    ranked = iqr is not None and iqr <= MOST_IQR * choice["latency_ms"]
    whose = "the baseline's is not" if ranked else "not"
    return f"{whose} ranked: the IQR passes {100 * MOST_IQR:g} %"


def engine(name: str) -> str:
    """An engine's name for people, with its number format: torch bfloat16."""
    return ENGINES[name].title if name in ENGINES else name


def instructions(isa: Sequence[str]) -> str:
    """A CPU's instruction sets without those that every CPU has."""
    return ", ".join(name for name in isa if not name.startswith("sse")) or "none known"


FILTERS = {
    "percent": tables.percent, "accuracy": columns.accuracy, "change": tables.points,
    "loss": loss, "instructions": instructions, "interval": tables.loss, "test": test,
    "latency": latency, "speed": speed, "of_engine": selection_file.of_engine,
    "size": tables.size, "count": tables.count, "times": tables.times,
    "suffix": lambda file: Path(file).suffix, "milliseconds": tables.milliseconds,
    "factor": tables.factor, "smaller": tables.smaller, "engine": engine,
}  # fmt: skip


def environment(**options: Any) -> jinja2.Environment:
    """The environment of all templates. A missing value is an error."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    found.filters |= FILTERS
    return found


def one_line(value: Any) -> Any:
    """A text without line breaks, so that a name from the user's data cannot end a paragraph."""
    return " ".join(value.splitlines()) if isinstance(value, str) else value


@cache
def _macros() -> Any:
    return environment(finalize=one_line).get_template(paths.WORDS).module


def paragraphs(macro: str, **values: Any) -> list[str]:
    """The paragraphs of a macro, each on one line, as plain text. The caller escapes them."""
    rendered = getattr(_macros(), macro)(**values)
    joined = [" ".join(part.split()) for part in rendered.split("\n--\n")]
    return [part for part in joined if part]


def text(macro: str, **values: Any) -> str:
    """The text of a macro with one paragraph, or empty."""
    return " ".join(paragraphs(macro, **values))
