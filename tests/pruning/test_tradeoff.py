"""The best trade-off per layer: as sparse as it can be while it keeps its accuracy."""

from hypothesis import given
from hypothesis import strategies as st

from stages.lib.pruning import tradeoff
from tests.made_up import row
from tests.toys import few_examples


def alone(layer, sparsity, accuracy, test_accuracy=0.5):
    return row(7, "layer_alone", sparsity, accuracy, layer=layer, test_accuracy=test_accuracy)


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
def test_the_sparsest_of_each_layer_that_keeps_the_accuracy_is_best(measured, least):
    expected = []
    for name in dict.fromkeys(layer for layer, _ in measured):
        good = [
            (tenth / 10, share / 10)
            for (layer, tenth), share in measured.items()
            if layer == name and share >= least
        ]
        expected.append((7, name, *max(good, default=(0.0, None))))
    rows = [alone(layer, tenth / 10, share / 10) for (layer, tenth), share in measured.items()]
    assert tradeoff.best_per_layer(rows, least / 10) == expected
