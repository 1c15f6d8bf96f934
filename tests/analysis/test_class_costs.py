"""Balanced accuracy is told where classes differ much in size, and is scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from stages.lib.analysis import class_costs
from tests import toys


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(0, 99))
@toys.few_examples
def test_balanced_accuracy_is_the_mean_over_classes_where_sizes_differ(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    generator = np.random.default_rng(seed)
    before, after = (generator.integers(0, len(counts), (1, len(labels))) for _ in range(2))
    found = class_costs.balanced(
        class_costs.by_class(labels, before, after, len(counts), confidence=0.95)
    )
    if max(counts) <= 2 * min(counts):
        assert found is None
    else:
        expected = [balanced_accuracy_score(labels, one[0]) for one in (before, after)]
        assert found == pytest.approx(expected)
