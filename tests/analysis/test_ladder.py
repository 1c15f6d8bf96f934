"""The ladder of sizes and the Pareto front: what a network takes, and what no other beats."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from kept_networks import Kept
from made_up import formats

from stages.lib.analysis import ladder, pareto, selection, tables


def networks():
    return (
        Kept()
        .add("iterative", 0.8, bytes=40_000, accuracy=0.945)
        .add("iterative", 0.9, bytes=40_000, accuracy=0.93)
        .add("structured_layer_finetune", 0.4, bytes=20_000, accuracy=0.95)
        .add("structured_global_finetune", 0.8, bytes=9_000, accuracy=0.944)
        .add("structured_global_finetune", 0.9, bytes=5_000, accuracy=0.93)
        .add("affine_tensor", bits=8, bytes=10_500, accuracy=0.95)
        .packed(10.0, bytes=4_000, accuracy=0.945)
    )


def sizes(rows):
    """Of every network; a masked one's forms go with what is left of it."""
    lines = []
    for row in rows:
        left = round((1 - row.target_sparsity) * 40_000)
        lines.append(
            selection.key_of(row)._asdict() | {
                "seed": row.seed, "dense_bytes": 40_000, "nonzero_bytes": left,
                "index_value_bytes": left + 1_000, "entropy_bytes": left - 100,
                "zip_bytes": left + 2_000, "file_bytes": row.bytes_on_disk, "model": row.model,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def rungs(max_drop, measured=slice(None)):
    rows = networks().rows
    return ladder.rungs(
        tables.summary(pd.DataFrame(rows)), sizes(rows)[measured], formats(), max_drop
    )


def test_the_ladder_descends_and_its_numbers_are_those_of_the_table():
    found = rungs(0.01)
    assert list(found.bytes) == sorted(found.bytes, reverse=True)
    assert dict(zip(found.name, zip(found.bytes, found.kind, strict=True), strict=True)) == {
        "float32, baseline": (40_000, ladder.FILE),
        "int8, affine, per tensor": (10_500, ladder.FILE),
        "structured, global + fine-tuning, 80 %": (9_000, ladder.FILE),
        "float32, zipped": (10_000, ladder.FILE),
        "float32, nonzeros with their places": (9_000, ladder.ESTIMATE),
        "float32, nonzeros alone": (8_000, ladder.ESTIMATE),
        "float32, entropy bound": (7_900, ladder.ESTIMATE),
        "pruned, quantized and packed, 10 ×": (4_000, ladder.FILE),
        "float16, baseline": (2_700, ladder.FILE),
        "bfloat16, baseline": (2_700, ladder.FILE),
    }  # fmt: skip
    assert "iterative, 80 %, 90.0 % on test" in set(found.note)


def test_the_ladder_has_no_network_that_lost_more_and_none_where_nothing_was_kept():
    strict = set(rungs(0.0).name)
    assert not any("nonzeros" in name or "packed" in name for name in strict)
    assert "structured, per layer + fine-tuning, 40 %" in strict
    assert set(rungs(0.01, slice(0)).name) == {
        "float32, baseline", "float16, baseline", "bfloat16, baseline",
    }  # fmt: skip


# Few values, so that ties of one and of both are frequent.
POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30)


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(POINTS, st.randoms())
def test_the_front_is_what_no_point_dominates_in_any_order(points, random):
    on_front = pareto.pareto_front(*np.array(points, float).T)
    for point, on in zip(points, on_front, strict=True):
        assert on != any(dominates(other, point) for other in points)
    shuffled = random.sample(range(len(points)), len(points))
    again = pareto.pareto_front(*np.array([points[i] for i in shuffled], float).T)
    assert list(on_front[shuffled]) == list(again)
