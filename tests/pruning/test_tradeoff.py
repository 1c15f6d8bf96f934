"""The best trade-off per layer: as sparse as it can be while it keeps its accuracy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.pruning import tradeoff
from tests.made_up import row
from tests.toys import few_examples


def alone(layer, sparsity, accuracy, seed=0, test_accuracy=0.5):
    return row(seed, "layer_alone", sparsity, accuracy, layer=layer, test_accuracy=test_accuracy)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.25, 0.95), (0.5, 0.91), (0.75, 0.4)], (0.5, 0.91)),
        ([(0.5, 0.9)], (0.5, 0.9)),  # exactly the least accuracy
        ([(0.25, 0.95), (0.5, 0.2), (0.75, 0.93)], (0.75, 0.93)),  # a dip on the way
        ([(0.75, 0.4), (0.5, 0.91), (0.25, 0.95)], (0.5, 0.91)),  # in another order
        ([(0.25, 0.3)], (0.0, None)),  # nowhere
    ],
)
def test_the_sparsest_that_keeps_the_accuracy_is_best(points, expected):
    rows = [alone("a", *point, seed=7) for point in points]
    assert tradeoff.best_per_layer(rows, 0.9) == [(7, "a", *expected)]


def test_the_choice_is_made_on_validation_and_never_on_test():
    bad, good = ([alone("a", 0.5, 0.95, test_accuracy=share)] for share in (0, 1))
    assert tradeoff.best_per_layer(bad, 0.9) == tradeoff.best_per_layer(good, 0.9)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9)), st.integers(0, 10), max_size=20
    ),
    st.integers(0, 10),
)
@few_examples
def test_no_sparser_measurement_of_a_layer_keeps_the_accuracy(measured, least):
    rows = [alone(layer, tenth / 10, share / 10) for (layer, tenth), share in measured.items()]
    bests = tradeoff.best_per_layer(rows, least / 10)
    # In the order of their first rows.
    assert [best.layer for best in bests] == list(dict.fromkeys(layer for layer, _ in measured))
    for best in bests:
        sparser = [
            one for one in rows if (one.layer == best.layer and one.target_sparsity > best.sparsity)
        ]
        assert all(one.validation_accuracy < least / 10 for one in sparser)
