import pytest

from tests.arms import toy_stage


@pytest.fixture
def toy(tmp_path):
    """A repository with the stage of `toy_stage`."""
    return toy_stage.repository(tmp_path / "repository")
