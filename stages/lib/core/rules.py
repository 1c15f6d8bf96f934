"""What a parameter's value may be, each rule with the sentence that tells a person so."""

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """`allowed` completes "allowed: …"; `problems(value)` yields (key suffix, text) per problem."""

    allowed: str
    problems: Callable[[Any], Iterator[tuple[str, str]]]


def _surprise(value: Any, wants_number: bool) -> str:
    """Names the YAML 1.1 trap behind a value of the wrong type, if there is one."""
    if isinstance(value, bool):
        return " (YAML reads on, off, yes and no as booleans: quote the word if text was meant)"
    if isinstance(value, str) and wants_number:
        try:
            number = float(value)
        except ValueError:
            return ""
        return f" (YAML reads this as text, not a number: write {_plain(number)} without quotes)"
    return ""


def _plain(number: float) -> str:
    """A spelling of `number` that YAML 1.1 and 1.2 both read as a number."""
    if not math.isfinite(number):
        return "a finite number"
    text = f"{number:.12f}".rstrip("0").rstrip(".")
    if len(text) <= 20 and float(text) == number:
        return text
    mantissa, _, exponent = repr(number).partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if exponent else mantissa


def shown(value: Any) -> str:
    """A value as a person would have typed it, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out an integer of more than 4300 digits
        text = "an enormous number"
    return text if len(text) <= 80 else text[:77] + "..."


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the largest float
        return False


def _simple(allowed: str, accepts: Callable[[Any], bool], wants_number: bool = False) -> Rule:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not accepts(value):
            surprise = _surprise(value, wants_number)
            yield "", f"{shown(value)} is not allowed{surprise}; allowed: {allowed}"

    return Rule(allowed, problems)


def integer(least: int, most: int) -> Rule:
    """A whole number in [least, most]; true and false are no numbers."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return _simple(f"a whole number from {least} to {most}", accepts, wants_number=True)


def number(
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    decimals: int | None = None,
) -> Rule:
    """A finite number within the bounds given (`least` and `most` included, `above` and `below`
    not), with no more than so many `decimals`.
    """
    bounds = [
        text
        for bound, text in (
            (least, f"at least {least}"),
            (above, f"above {above}"),
            (most, f"at most {most}"),
            (below, f"below {below}"),
            (decimals, f"of at most {decimals} decimals"),
        )
        if bound is not None
    ]

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and _is_finite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
            and (decimals is None or value == round(value, decimals))
        )

    return _simple("a number " + " and ".join(bounds), accepts, wants_number=True)


# File names and rows write a sparsity with as many digits as tell any two of these apart.
SPARSITY = number(least=0, below=1, decimals=4)
POSITIVE_SPARSITY = number(above=0, below=1, decimals=4)


def boolean() -> Rule:
    """true or false."""
    return _simple("true or false", lambda value: isinstance(value, bool))


def text() -> Rule:
    """A text of at least one character, all of them printable."""

    def accepts(value: Any) -> bool:
        return isinstance(value, str) and value.strip() != "" and value.isprintable()

    return _simple("a text, not empty and on one line", accepts)


def _named(names: Sequence[str], allowed: str, accepts: Callable[[str], bool]) -> Rule:
    """Text that `accepts`; a near miss is told which of `names` was probably meant."""

    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, str) and accepts(value):
            return
        near = difflib.get_close_matches(value, names, 1) if isinstance(value, str) else []
        hint = f" (did you mean {near[0]}?)" if near else _surprise(value, wants_number=False)
        yield "", f"{shown(value)} is not allowed{hint}; allowed: {allowed}"

    return Rule(allowed, problems)


def choice(*names: str) -> Rule:
    """One of `names`; a near miss is told which name was probably meant."""
    allowed = "one of " + ", ".join(names) if len(names) > 1 else names[0]

    return _named(names, allowed, lambda value: value in names)


def word_or(word: str, rule: Rule) -> Rule:
    """`word` itself, or what `rule` takes."""
    allowed = f"{word}, or {rule.allowed}"

    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if value != word and next(rule.problems(value), None):
            surprise = _surprise(value, wants_number=True)
            yield "", f"{shown(value)} is not allowed{surprise}; allowed: {allowed}"

    return Rule(allowed, problems)


def file(*suffixes: str) -> Rule:
    """The path of a file that ends in one of `suffixes`."""
    return _simple(
        f"the path of a file that ends in {' or '.join(suffixes)}",
        lambda value: isinstance(value, str) and value.endswith(suffixes),
    )


def network(names: Sequence[str], is_own: Callable[[str], bool]) -> Rule:
    """The name of a network: one of `names`, or what `is_own` accepts; a file without its factory
    is told what to add."""
    allowed = (
        "convnet, resnet20, resnet56, a classification model of torchvision (resnet18,"
        " mobilenet_v3_small, …) or path/to/file.py:factory"
    )

    named = _named(names, allowed, lambda value: value in names or is_own(value))

    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, str) and value.endswith(".py"):
            yield (
                "",
                f"{shown(value)} names no factory (did you mean {value}:FUNCTION, with the"
                f" function that returns the network?); allowed: {allowed}",
            )
        else:
            yield from named.problems(value)

    return Rule(allowed, problems)


def listing(item: Rule, *, ascending: bool = False) -> Rule:
    """A list of at least one item, none twice, in ascending order where that is asked for."""
    allowed = f"a list of at least one item, none twice{', ascending' if ascending else ''}"

    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, list):
            yield (
                "",
                f"{shown(value)} is not a list; allowed: {allowed}, each {item.allowed}",
            )
            return
        if not value:
            yield "", f"the list is empty; allowed: {allowed}, each {item.allowed}"
        bad = False
        for index, element in enumerate(value):
            for suffix, text in item.problems(element):
                bad = True
                yield f"[{index}]{suffix}", text
        if bad:
            return
        doubles = sorted({shown(element) for element in value if value.count(element) > 1})
        if doubles:
            yield (
                "",
                f"{', '.join(doubles)} is there more than once; allowed: {allowed}",
            )
        elif ascending and value != sorted(value):
            yield (
                "",
                f"{shown(value)} is not in ascending order; allowed: {shown(sorted(value))}",
            )

    return Rule(allowed, problems)
