"""Types of parameters with their constraints, and errors for people.

pydantic checks values against these types. This module adds constraints that pydantic does not
have, and turns its errors into lines that say what is wrong and what is allowed.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import core_schema


class Section(BaseModel):
    """A section of params.yaml. Values are not converted: true and "1" are not numbers."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True
    )


@dataclass(frozen=True)
class Rule:
    """A constraint of an Annotated type that pydantic does not have.

    allowed: says what it allows; of a text, it completes the sentence "allowed: …".
    problem: what is wrong with a value of the type; empty if nothing is.
    """

    allowed: str
    problem: Callable[[Any], str]

    def _check(self, value: Any) -> Any:
        problem = self.problem(value)
        if problem:
            raise ValueError(problem)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))


def decimals(most: int) -> Rule:
    """The most digits after the decimal point: file names and rows hold no more."""
    return Rule(
        f"of at most {most} decimals",
        lambda value: (
            "" if value == round(value, most) else f"{shown(value)} has too many decimals"
        ),
    )


def string(allowed: str, accepts: Callable[[str], bool], names: Sequence[str] = ()) -> Any:
    """The type of texts that `accepts` returns True for.

    allowed: completes the sentence "allowed: …".
    names: known texts; the nearest is suggested for one that is refused.
    """
    rule = Rule(allowed, lambda value: "" if accepts(value) else _refused(value, names))
    return Annotated[str, rule]


def _doubled(values: list) -> str:
    doubles = sorted({shown(item) for item in values if values.count(item) > 1})
    return f"{', '.join(doubles)} is there more than once" if doubles else ""


def _disordered(values: list) -> str:
    if values == sorted(values):
        return ""
    return f"{shown(values)} is not in ascending order: write {shown(sorted(values))}"


def several(item: Any, least: int = 1) -> Any:
    """The type of lists of `item` without duplicates. least: 0 if an empty list means none."""
    return Annotated[list[item], Len(least), Rule("none twice", _doubled)]


def ascending(item: Any, least: int = 1) -> Any:
    """As `several`, in ascending order."""
    return Annotated[several(item, least), Rule("ascending", _disordered)]


def _split(kind: Any) -> tuple[Any, tuple]:
    """Splits an Annotated type into the type and its constraints."""
    return (kind.__origin__, kind.__metadata__) if get_origin(kind) is Annotated else (kind, ())


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def allowed(kind: Any) -> str:
    """The text that completes "allowed: …" for a type."""
    base, constraints = _split(kind)
    rules = [constraint.allowed for constraint in constraints if isinstance(constraint, Rule)]
    arguments = get_args(base)
    if _is_union(base):
        return ", or ".join(map(allowed, arguments))
    if get_origin(base) is Literal:
        return "one of " + ", ".join(arguments) if len(arguments) > 1 else arguments[0]
    if get_origin(base) is list:
        least = next(one.min_length for one in constraints if isinstance(one, Len))
        many = "of at least one item" if least else "([]: none)"
        return f"a list {many}, {', '.join(rules)}, each {allowed(arguments[0])}"
    if base is str:
        return rules[0]
    if base is bool:
        return "true or false"
    if base is int:
        return f"a whole number from {constraints[0].ge} to {constraints[0].le}"
    if base is float:
        bounds = (("at least", "ge"), ("above", "gt"), ("at most", "le"), ("below", "lt"))
        values = [(word, getattr(constraints[0], name)) for word, name in bounds]
        words = [f"{word} {value}" for word, value in values if value is not None]
        return "a number " + " and ".join(words + rules)
    return "the keys " + ", ".join(base.model_fields)


def shown(value: Any) -> str:
    """A value as it would be typed in YAML, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out an integer of more than 4300 digits
        text = "an enormous number"
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(number: float) -> str:
    """A spelling of `number` that YAML 1.1 and 1.2 both read as a number."""
    if not math.isfinite(number):
        return "a finite number"
    digits = repr(number).removesuffix(".0")
    return digits if "." in digits else digits.replace("e", ".0e")


def _surprise(value: Any, wants_number: bool) -> str:
    """Names the surprise of YAML 1.1 that gave a value the wrong type, if it was one."""
    if isinstance(value, bool):
        return " (YAML reads on, off, yes and no as booleans: quote the word if text was meant)"
    if isinstance(value, str) and wants_number:
        try:
            number = float(value)
        except ValueError:
            return ""
        return f" (YAML reads this as text, not a number: write {_plain(number)} without quotes)"
    return ""


def _refused(value: Any, names: Sequence[str] = (), wants_number: bool = False) -> str:
    near = difflib.get_close_matches(value, names, 1) if isinstance(value, str) else []
    hint = f" (did you mean {near[0]}?)" if near else _surprise(value, wants_number)
    return f"{shown(value)} is not allowed{hint}"


def _wants_number(kind: Any) -> bool:
    base, _ = _split(kind)
    return base in (int, float) or (_is_union(base) and any(map(_wants_number, get_args(base))))


def _problem(kind: Any, value: Any, error: dict[str, Any]) -> str:
    """What is wrong with a value, and what is allowed. error: of pydantic."""
    base, _ = _split(kind)
    if error["type"] == "value_error" and not _is_union(base):
        text = str(error["ctx"]["error"])
    elif error["type"] == "too_short":
        text = "the list is empty"
    elif get_origin(base) is list:
        text = f"{shown(value)} is not a list"
    elif isinstance(base, type) and issubclass(base, BaseModel):
        text = f"{shown(value)} is not a section"
    else:
        names = get_args(base) if get_origin(base) is Literal else ()
        text = _refused(value, names, _wants_number(kind))
    return f"{text}; allowed: {allowed(kind)}"


def _located(kind: Any, value: Any, error: dict[str, Any]) -> tuple[str, str]:
    """The place and the text of an error of pydantic."""
    path = ""
    for step in error["loc"]:
        base, _ = _split(kind)
        if _is_union(base):  # a union has an error for each of its types: one line for all
            break
        if get_origin(base) is list:
            kind, value, path = get_args(base)[0], value[step], f"{path}[{step}]"
            continue
        if step not in base.model_fields:  # YAML 1.1 reads the key `on` as True: 1 here
            step = next((key for key in value if key == step), step)
        path = f"{path}.{step}" if path else str(step)
        if step not in base.model_fields:
            nearest = difflib.get_close_matches(str(step), base.model_fields, 1, cutoff=0.0)
            path = path if path.isprintable() else repr(path)
            return path, f"unknown key; the nearest known one is {nearest[0]}"
        kind = get_type_hints(base, include_extras=True)[step]
        if step not in value:
            return path, f"missing; allowed: {allowed(kind)}"
        value = value[step]
    return path, _problem(kind, value, error)


def problems(model: type[Section], error: ValidationError, values: Any) -> Iterator[str]:
    """A line, beginning with the key's path, for each key that pydantic found wrong in `values`."""
    located = (_located(model, values, detail) for detail in error.errors(include_url=False))
    for path, text in dict(located).items():
        yield f"{path}: {text}"
