"""Each type of a parameter: what it lets through, what it refuses and with which words."""

import math
from typing import Annotated, Literal

import pytest
import yaml
from annotated_types import Interval
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from stages.lib.core import rules
from stages.lib.core.params import Network, Sparsity, Text, TimesSmaller
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
    ("kind", "values"),
    [
        (INTEGER, [2, 16]),
        (Sparsity, [0, 0.0, 0.9999]),
        (TimesSmaller, [999.99]),
        (NUMBER, [10, 1e-300]),
        (bool, [False]),
        (CHOICE, ["bfloat16"]),
        (BITS, [[8], [2, 16]]),
        (several(CHOICE), [["float16", "bfloat16", "float32"]]),
        (WORD_OR_NUMBER, ["auto", 8]),
        (WORD_OR_LIST, ["all", [4, 8]]),
        (Text, ["my photos"]),
        (Network, ["resnet18", "nets/mine.py:build"]),
    ],
)
def test_what_is_allowed_yields_no_problem(kind, values):
    assert [texts(kind, value) for value in values] == [[]] * len(values)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (INTEGER, [1, 17, 8.0, True], "is not allowed"),
        (INTEGER, [99], "99 is not allowed; allowed: a whole number from 2 to 16"),
        (Sparsity, [1, -0.1, math.nan, False], "a number at least 0 and below 1 and of at most 4"),
        (Sparsity, [0.12345], "0.12345 has too many decimals; allowed: "),
        (NUMBER, [0, 10.001, -3], "allowed: a number above 0 and at most 10"),
        (POSITIVE, [math.inf], "inf is not allowed"),
        (bool, [1, "true", "maybe"], "is not allowed; allowed: true or false"),
        (
            CHOICE,
            ["int8", ["float32"], None],
            "is not allowed; allowed: one of float32, float16, b",
        ),
        (CHOICE, ["flaot16"], "(did you mean float16?)"),
        (BITS, [[]], "the list is empty; allowed: a list of at least one item, none twice, asc"),
        (BITS, [8, "8", {"a": 8}, (8,)], "is not a list; allowed: "),
        (BITS, [[8, 8], [8, 4, 8]], "8 is there more than once"),
        (BITS, [[8, 2, 4]], "write [2, 4, 8]"),
        (several(CHOICE), [["float16", "float16"]], "'float16' is there more than once"),
        (WORD_OR_NUMBER, ["own"], "allowed: auto, or a whole number"),
        (WORD_OR_NUMBER, ["64"], "write 64 without quotes"),
        (WORD_OR_LIST, [8, [99, "x"]], "allowed: all, or a list of at least one item, none twice"),
        (Text, ["", " ", "a\0b", "a\nb", "\ud800", 3, b"photos"], "a text, not empty"),
        (Network, ["resent18"], "did you mean resnet18?"),
        (Network, ["nets/mine.py"], "or path/to/file.py:FUNCTION"),
        (Sparsity, [10**400, 10**6000], "is not allowed"),
        *(
            (kind, [True], "YAML reads on, off, yes and no as booleans")
            for kind in (CHOICE, NUMBER)
        ),
    ],
)
def test_what_is_not_allowed_is_one_problem_that_says_what_is(kind, values, words):
    for value in values:
        (problem,) = texts(kind, value)
        assert words in problem
        assert "allowed: " in problem


@settings(deadline=None, derandomize=True)
@given(st.floats(min_value=1e-18, max_value=1e18))
@example(1e-9)
@example(1e1)
def test_the_advised_spelling_is_that_number_in_yaml(number):
    (problem,) = texts(POSITIVE, f"{number!r}")
    advised = problem.partition("YAML reads this as text, not a number: write ")[2]
    assert yaml.safe_load(advised.partition(" ")[0]) == number


def test_plain_text_gets_no_number_hint_and_each_bad_item_of_a_list_is_named_by_its_place():
    assert all("YAML" not in texts(Sparsity, value)[0] for value in ("fast", "", "0,5", "1 000"))
    problems = texts(BITS, [8, 99, "x"])
    assert [problem.partition(":")[0] for problem in problems] == ["[1]", "[2]"]


def test_a_value_is_shown_as_typed_on_one_line_of_readable_length():
    values = (None, True, 1, "a\nb", "x" * 10_000)
    expected = ["nothing", "true", "1", r"'a\nb'", f"'{'x' * 76}..."]
    assert list(map(rules.shown, values)) == expected
