"""Changes at the start of the pipeline, which rerun nearly all of it."""

import pytest
from conftest import ALWAYS, EVERYTHING

pytestmark = pytest.mark.xdist_group("start of the pipeline")

CHANGES = [
    ("compute.threads", 2, EVERYTHING - {"prepare_data"}),
    ("model.width", 5, EVERYTHING - {"prepare_data"}),
    ("training.momentum", 0.8, EVERYTHING - {"prepare_data"}),
    ("train_baseline.epochs", 1, EVERYTHING - {"prepare_data"}),
    ("data.split_seed", 1, EVERYTHING),
]


# The one that is really made; tests/test_pipeline.py follows all of them through dvc.yaml.
RUN = "model.width"


def test_a_change_at_the_start_reruns_all_that_follows(tiny):
    value, expected = next((value, found) for key, value, found in CHANGES if key == RUN)
    tiny.change(RUN, value)
    assert tiny.repro() == expected | ALWAYS
