"""Each type of a parameter: what it lets through, what it refuses and with which words."""

import math
from typing import Annotated, Literal

import pytest
import yaml
from annotated_types import Interval
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from stages.lib.core import rules
from stages.lib.core.params import Folder, Network, Sparsity, TimesSmaller
from stages.lib.core.rules import Section, ascending, several

INTEGER = Annotated[int, Interval(ge=2, le=16)]
NUMBER = Annotated[float, Interval(gt=0, le=10)]
POSITIVE = Annotated[float, Interval(gt=0)]
CHOICE = Literal["float32", "float16", "bfloat16"]
BITS = ascending(INTEGER)
WORD_OR_NUMBER = Literal["auto"] | INTEGER
WORD_OR_LIST = Literal["all"] | BITS


def texts(kind, value):
    """The problems of a value of this type, each headed by its place in the value."""
    model = create_model("Model", __base__=Section, value=(kind, ...))
    values = {"value": value}
    try:
        model.model_validate(values)
    except ValidationError as error:
        return [line.removeprefix("value") for line in rules.problems(model, error, values)]
    return []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INTEGER, 2),
        (INTEGER, 16),
        (Sparsity, 0),
        (Sparsity, 0.0),
        (Sparsity, 0.9999),
        (TimesSmaller, 999.99),
        (NUMBER, 10),
        (NUMBER, 1e-300),
        (bool, False),
        (CHOICE, "bfloat16"),
        (Literal["digits"], "digits"),
        (BITS, [8]),
        (BITS, [2, 16]),
        (several(CHOICE), ["float16", "bfloat16", "float32"]),
        (WORD_OR_NUMBER, "auto"),
        (WORD_OR_NUMBER, 8),
        (WORD_OR_LIST, "all"),
        (WORD_OR_LIST, [4, 8]),
        (Folder, "my photos"),
        (Network, "resnet18"),
        (Network, "nets/mine.py:build"),
    ],
)
def test_what_is_allowed_yields_no_problem(kind, value):
    assert texts(kind, value) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INTEGER, 1),
        (INTEGER, 17),
        (INTEGER, 8.0),
        (INTEGER, True),
        (INTEGER, None),
        (Sparsity, 1),
        (Sparsity, -0.1),
        (Sparsity, math.nan),
        (Sparsity, False),
        (Sparsity, 0.12345),
        (TimesSmaller, 4.000001),
        (NUMBER, 0),
        (NUMBER, 10.001),
        (POSITIVE, math.inf),
        (Annotated[float, Interval(lt=1)], -math.inf),
        (bool, 1),
        (bool, "true"),
        (CHOICE, "int8"),
        (CHOICE, ["float32"]),
        (CHOICE, None),
        (CHOICE, b"float32"),
        (BITS, []),
        (BITS, 8),
        (BITS, "8"),
        (BITS, {"a": 8}),
        (BITS, (8,)),
        (BITS, [8, 8]),
        (BITS, [16, 8]),
        (several(CHOICE), ["float16", "float16"]),
        (WORD_OR_NUMBER, "own"),
        (WORD_OR_LIST, [99, "x"]),
        *((Folder, text) for text in ("", " ", "a\0b", "a\nb", "\ud800", 3, b"photos")),
    ],
)
def test_what_is_not_allowed_is_one_problem_that_says_what_is(kind, value):
    (problem,) = texts(kind, value)
    assert "allowed: " in problem


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (INTEGER, 99, "99 is not allowed; allowed: a whole number from 2 to 16"),
        (Sparsity, 1.5, "1.5 is not allowed; allowed: a number at least 0 and below 1 and of at"),
        (Sparsity, 0.12345, "0.12345 has too many decimals; allowed: "),
        (NUMBER, -3, "allowed: a number above 0 and at most 10"),
        (bool, "maybe", "'maybe' is not allowed; allowed: true or false"),
        (CHOICE, None, "nothing is not allowed; allowed: one of float32, float16, bfloat16"),
        (CHOICE, "flaot16", "(did you mean float16?)"),
        (
            BITS,
            [],
            "the list is empty; allowed: a list of at least one item, none twice, ascending",
        ),
        (BITS, 8, "8 is not a list; allowed: "),
        (BITS, [4, 8, 4], "4 is there more than once"),
        (BITS, [8, 2, 4], "write [2, 4, 8]"),
        (WORD_OR_NUMBER, "64", "write 64 without quotes"),
        (WORD_OR_LIST, 8, "allowed: all, or a list of at least one item, none twice, ascending"),
        (Network, "resent18", "did you mean resnet18?"),
        (Network, "nets/mine.py", "or path/to/file.py:FUNCTION"),
    ],
)
def test_a_problem_shows_the_value_and_what_is_allowed(kind, value, words):
    (problem,) = texts(kind, value)
    assert words in problem


@pytest.mark.parametrize(
    ("typed", "advised"),
    [("1e-3", "0.001"), ("5e-1", "0.5"), ("1e1", "10"), ("1e-9", "1.0e-09"), ("'7'", "7"),
     ("1.55e-15", "1.55e-15")],
)  # fmt: skip
def test_a_number_that_yaml_reads_as_text_is_told_how_to_write_it(typed, advised):
    (problem,) = texts(POSITIVE, str(yaml.safe_load(typed)))
    assert f"YAML reads this as text, not a number: write {advised} " in problem


@settings(deadline=None, derandomize=True)
@given(st.floats(min_value=1e-18, max_value=1e18))
def test_the_advised_spelling_is_a_number_in_yaml(number):
    (problem,) = texts(POSITIVE, f"{number!r}")
    advised = problem.partition("write ")[2].partition(" ")[0]
    assert yaml.safe_load(advised) == pytest.approx(number, rel=0.1)


@pytest.mark.parametrize("typed", ["on", "off", "yes", "no", "true"])
@pytest.mark.parametrize("kind", [CHOICE, INTEGER, Sparsity])
def test_a_word_that_yaml_reads_as_boolean_is_told_so(kind, typed):
    (problem,) = texts(kind, yaml.safe_load(typed))
    assert "YAML reads on, off, yes and no as booleans" in problem


@pytest.mark.parametrize("value", ["fast", "", "0,5", "1 000"])
def test_plain_text_gets_no_number_hint(value):
    (problem,) = texts(Sparsity, value)
    assert "YAML" not in problem


def test_each_bad_item_of_a_list_is_named_by_its_place():
    problems = texts(BITS, [8, 99, "x"])
    assert [problem.partition(":")[0] for problem in problems] == ["[1]", "[2]"]


@pytest.mark.parametrize(("kind", "digits"), [(Sparsity, 400), (Sparsity, 6000), (INTEGER, 6000)])
def test_an_enormous_integer_is_a_problem_and_no_crash(kind, digits):
    assert len(texts(kind, 10**digits)) == 1


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000))])
def test_a_long_value_is_cut(value):
    assert len(rules.shown(value)) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), (True, "true"), (False, "false"), (1, "1"), (0, "0"), ("a", "'a'"),
     ("a\nb", r"'a\nb'")],
)  # fmt: skip
def test_a_value_is_shown_as_typed_and_on_one_line(value, text):
    assert rules.shown(value) == text
