"""The best trade-off per layer: as sparse as it can be while it keeps its accuracy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core.records import Row
from stages.lib.pruning import tradeoff


def alone(layer, sparsity, accuracy, seed=0, test_accuracy=0.5):
    return Row(
        seed=seed, method="layer_alone", layer=layer, weight_bits=32, target_sparsity=sparsity,
        sparsity=sparsity, parameters=10, nonzero_parameters=5, macs=10, extra_epochs=0,
        validation_accuracy=accuracy, test_accuracy=test_accuracy, bytes_on_disk=40,
    )  # fmt: skip


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


def test_layers_come_in_the_order_of_their_first_row():
    rows = [alone("z", 0.5, 0.9), alone("a", 0.5, 0.9), alone("z", 0.75, 0.9)]
    assert [best.layer for best in tradeoff.best_per_layer(rows, 0.5)] == ["z", "a"]
    assert tradeoff.best_per_layer([], 0.9) == []


def test_the_choice_is_made_on_validation_and_never_on_test():
    bad, good = ([alone("a", 0.5, 0.95, test_accuracy=share)] for share in (0, 1))
    assert tradeoff.best_per_layer(bad, 0.9) == tradeoff.best_per_layer(good, 0.9)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9)), st.integers(0, 10), max_size=20
    ),
    st.integers(0, 10),
)
def test_no_sparser_measurement_of_a_layer_keeps_the_accuracy(measured, least):
    rows = [alone(layer, tenth / 10, share / 10) for (layer, tenth), share in measured.items()]
    for best in tradeoff.best_per_layer(rows, least / 10):
        for row in rows:
            if row.layer == best.layer and row.target_sparsity > best.sparsity:
                assert row.validation_accuracy < least / 10
