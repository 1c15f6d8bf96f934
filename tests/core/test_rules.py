"""Each rule of a parameter: what it lets through, what it refuses and with which words."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core import rules


def texts(rule, value):
    return [f"{suffix}: {text}" for suffix, text in rule.problems(value)]


INTEGER = rules.integer(2, 16)
CHOICE = rules.choice("float32", "float16", "bfloat16")
BITS = rules.listing(rules.integer(2, 16), ascending=True)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (INTEGER, 2),
        (INTEGER, 16),
        (rules.SPARSITY, 0),
        (rules.SPARSITY, 0.0),
        (rules.SPARSITY, 0.9999),
        (rules.number(above=0, most=10), 10),
        (rules.number(above=0, most=10), 1e-300),
        (rules.boolean(), False),
        (CHOICE, "bfloat16"),
        (rules.choice("digits"), "digits"),
        (BITS, [8]),
        (BITS, [2, 16]),
        (rules.listing(CHOICE), ["float16", "bfloat16", "float32"]),
    ],
)
def test_what_is_allowed_yields_no_problem(rule, value):
    assert texts(rule, value) == []


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (INTEGER, 1),
        (INTEGER, 17),
        (INTEGER, 8.0),
        (INTEGER, True),
        (INTEGER, None),
        (rules.SPARSITY, 1),
        (rules.SPARSITY, -0.1),
        (rules.SPARSITY, math.nan),
        (rules.SPARSITY, False),
        (rules.number(above=0, most=10), 0),
        (rules.number(above=0, most=10), 10.001),
        (rules.number(above=0), math.inf),
        (rules.number(below=1), -math.inf),
        (rules.boolean(), 1),
        (rules.boolean(), "true"),
        (CHOICE, "int8"),
        (CHOICE, ["float32"]),
        (CHOICE, None),
        (BITS, []),
        (BITS, 8),
        (BITS, "8"),
        (BITS, {"a": 8}),
        (BITS, [8, 8]),
        (BITS, [16, 8]),
        (rules.listing(CHOICE), ["float16", "float16"]),
    ],
)
def test_what_is_not_allowed_is_one_problem_that_says_what_is(rule, value):
    (problem,) = texts(rule, value)
    assert "allowed: " in problem


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        (INTEGER, 99, "99 is not allowed; allowed: a whole number from 2 to 16"),
        (rules.SPARSITY, 1.5, "1.5 is not allowed; allowed: a number at least 0 and below 1"),
        (rules.number(above=0, most=10), -3, "allowed: a number above 0 and at most 10"),
        (rules.boolean(), "maybe", "'maybe' is not allowed; allowed: true or false"),
        (CHOICE, None, "nothing is not allowed; allowed: one of float32, float16, bfloat16"),
        (CHOICE, "flaot16", "(did you mean float16?)"),
        (BITS, [], "the list is empty"),
        (BITS, 8, "8 is not a list"),
        (BITS, [4, 8, 4], "4 is there more than once"),
        (BITS, [8, 2, 4], "allowed: [2, 4, 8]"),
    ],
)
def test_a_problem_shows_the_value_and_what_is_allowed(rule, value, words):
    (problem,) = texts(rule, value)
    assert words in problem


@pytest.mark.parametrize(
    ("typed", "advised"),
    [("1e-3", "0.001"), ("5e-1", "0.5"), ("1e1", "10"), ("1e-9", "0.000000001"), ("'7'", "7")],
)
def test_a_number_that_yaml_reads_as_text_is_told_how_to_write_it(typed, advised):
    value = yaml.safe_load(typed)
    assert isinstance(value, str)
    (problem,) = texts(rules.number(above=0), value)
    assert f"YAML reads this as text, not a number: write {advised} " in problem


@settings(deadline=None, derandomize=True)
@given(st.floats(min_value=1e-18, max_value=1e18))
def test_the_advised_spelling_is_a_number_in_yaml(number):
    (problem,) = texts(rules.number(below=0), f"{number!r}")
    advised = problem.partition("write ")[2].partition(" ")[0]
    assert yaml.safe_load(advised) == pytest.approx(number, rel=0.1)


def test_the_advised_spelling_is_the_same_number():
    (problem,) = texts(rules.number(below=0), "1.55e-15")
    assert "write 1.55e-15 " in problem


@pytest.mark.parametrize("typed", ["on", "off", "yes", "no", "true"])
@pytest.mark.parametrize("rule", [CHOICE, INTEGER, rules.SPARSITY])
def test_a_word_that_yaml_reads_as_boolean_is_told_so(rule, typed):
    (problem,) = texts(rule, yaml.safe_load(typed))
    assert "YAML reads on, off, yes and no as booleans" in problem


@pytest.mark.parametrize("value", ["fast", "", "0,5", "1 000"])
def test_plain_text_gets_no_number_hint(value):
    (problem,) = texts(rules.SPARSITY, value)
    assert "YAML" not in problem


def test_each_bad_item_of_a_list_is_named_by_its_place():
    problems = texts(BITS, [8, 99, "x"])
    assert [problem.partition(":")[0] for problem in problems] == ["[1]", "[2]"]


def test_items_inside_nested_lists_are_named_by_both_places():
    nested = rules.listing(rules.listing(INTEGER))
    assert [suffix for suffix, _ in nested.problems([[2], [3, 99]])] == ["[1][1]"]


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000))])
def test_a_long_value_is_cut(value):
    assert len(rules.shown(value)) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), (True, "true"), (False, "false"), (1, "1"), (0, "0"), ("a", "'a'")],
)
def test_a_value_is_shown_as_typed(value, text):
    assert rules.shown(value) == text


def test_a_shown_value_stays_on_one_line():
    assert "\n" not in rules.shown("a\nb")


@pytest.mark.parametrize(
    ("rule", "digits"), [(rules.SPARSITY, 400), (rules.SPARSITY, 6000), (INTEGER, 6000)]
)
def test_an_enormous_integer_is_a_problem_and_no_crash(rule, digits):
    assert len(texts(rule, 10**digits)) == 1
