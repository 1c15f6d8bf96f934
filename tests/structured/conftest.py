import pytest

from stages.lib.structured import analysis
from tests import toys


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet(8))


@pytest.fixture(scope="module")
def plan(model):
    """Which of its channels fall together."""
    return analysis.analyse(model, (1, 8, 8))
