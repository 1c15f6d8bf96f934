"""What compression costs each class, on predictions whose answer is plain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from stages.lib.analysis import class_costs
from tests import toys

LABELS = np.array([0, 0, 0, 0, 1, 1, 3])
BEFORE = np.array([[0, 0, 0, 1, 1, 1, 3], [0, 0, 0, 0, 1, 0, 3]])
AFTER = np.array([[0, 0, 1, 1, 1, 1, 0], [0, 0, 1, 3, 1, 1, 0]])


def test_each_class_that_has_images_gets_a_line():
    lines = class_costs.by_class(LABELS, BEFORE, AFTER, classes=5, confidence=0.95)
    assert lines.label.tolist() == [0, 1, 3]
    assert lines.images.tolist() == [4, 2, 1]
    assert lines.before.tolist() == [7 / 8, 3 / 4, 1]
    assert lines.after.tolist() == [1 / 2, 1, 0]
    assert (lines.low <= lines.after - lines.before).all()
    assert (lines.after - lines.before <= lines.high).all()


def test_added_confusions_are_counted_a_seed_most_added_first():
    lines = class_costs.confusions(LABELS, BEFORE, AFTER)
    assert list(lines.itertuples(index=False, name=None)) == [
        (0, 1, 0.5, 1.5, 1.0), (3, 0, 0.0, 1.0, 1.0), (0, 3, 0.0, 0.5, 0.5),
    ]  # fmt: skip
    assert class_costs.confusions(LABELS, BEFORE, BEFORE).empty


def test_changed_images_are_lost_ones_then_won_ones_then_others():
    found = class_costs.changed(LABELS, BEFORE[1], np.array([0, 0, 1, 3, 1, 1, 3]))
    assert [(one.index, one.kind) for one in found] == [(2, "lost"), (3, "lost"), (5, "won")]
    both_wrong = class_costs.changed(np.array([0]), np.array([1]), np.array([2]))
    assert [one.kind for one in both_wrong] == ["neither"]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40))
def test_the_classes_together_are_the_whole(images):
    labels, before, after = np.array(images).T
    lines = class_costs.by_class(labels, before[None], after[None], 4, 0.9)
    assert lines.images.sum() == len(images)
    for column, found in (("before", before), ("after", after)):
        assert round((lines[column] * lines.images).sum()) == (found == labels).sum()
    changed = class_costs.changed(labels, before, after)
    assert len(changed) == (before != after).sum()
    lost, won = (sum(one.kind == kind for one in changed) for kind in ("lost", "won"))
    assert (after == labels).sum() - (before == labels).sum() == won - lost


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
