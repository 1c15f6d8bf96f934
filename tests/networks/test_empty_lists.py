"""An empty list in params.yaml asks for nothing: the run goes through, and the report says so."""

from typing import get_args

import pytest

from stages.lib.core import params, paths, records
from tests.conftest import params_with
from tests.networks import test_odd, whole

# The lists that must not be empty: without a seed there is no run.
NEEDED = ["seeds"]


def lists(values):
    """The params that may be lists, as (section, key); the key of a bare section is empty."""
    for name, field in params.Params.model_fields.items():
        fields = getattr(field.annotation, "model_fields", {"": field})
        for key, one in fields.items():
            kinds = (one.annotation, *get_args(one.annotation))
            if any("list" in str(kind) for kind in kinds):
                yield name, key


def with_empty(empty):
    values = params_with(test_odd.PARAMS)
    values["model"]["width"] = 2
    for section, key in empty:
        if key:
            values[section][key] = []
        else:
            values[section] = []
    return values


EVERY = [one for one in lists(params_with({})) if one[0] not in NEEDED]


def test_every_list_but_the_seeds_may_be_empty():
    assert ("sparsities", "") in EVERY
    assert len(EVERY) >= 18
    for one in EVERY:
        params.validate(with_empty([one]))
    params.validate(with_empty(EVERY))


@pytest.mark.parametrize(
    "empty",
    [
        EVERY,
        [("sparsities", "")],
        [("latency_bench", "batch_sizes"), ("export_onnx", "calibration")],
    ],
    ids=["all", "sparsities", "latencies"],
)
def test_what_is_not_asked_for_is_left_out_and_the_report_says_so(tmp_path, monkeypatch, empty):
    whole.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    whole.run(tmp_path, with_empty(empty))
    told = paths.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert "**Left out:**" in told
    for section, key in empty:
        name = f"`{section}.{key}`" if key else f"`{section}`"
        assert name in told
    there = {
        stage: bool(records.read(paths.stage_directory(stage, 0) / paths.ROWS))
        for stage in whole.methods.stages()
    }
    unstructured = ("layerwise_sweep", "global_prune", "finetune", "iterative_prune", "controls")
    if ("sparsities", "") in empty:
        assert not any(there[stage] for stage in unstructured)
    assert there["compress"] == (("compress", "arms") not in empty)
    assert there["train_baseline"]
    assert there["export_onnx"]
