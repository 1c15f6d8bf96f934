"""Wherever arms run, their stage leaves the same bytes."""

import hashlib
import shutil

import pytest

from tests.conftest import TINY, Repository

STAGES = ("finetune", "iterative_prune", "controls", "structured_prune", "compress")


def hashes(repository):
    """SHA-256 of every output of STAGES, by path."""
    found = {}
    for stage in STAGES:
        folder = repository.path / "artifacts" / stage
        for file in folder.glob("seed-*/*"):
            name = str(file.relative_to(repository.path))
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A repository of two seeds whose arms ran one after the other, and its outputs' hashes."""
    repository = Repository(tmp_path_factory.mktemp("arms") / "repository", TINY)
    repository.change("seeds", [0, 1])
    repository.change("sparsities", [0.6])
    repository.stages(
        "probe", "prepare_data", "train_baseline", "train_teacher", "global_prune", *STAGES
    )
    return repository, hashes(repository)


def without_outputs(repository):
    """The repository as it was before STAGES ran."""
    for stage in STAGES:
        shutil.rmtree(repository.path / "artifacts" / stage)
    return repository


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_leaves_the_same_bytes(alone, workers):
    repository, expected = alone
    assert {name.split("/")[1] for name in expected} == set(STAGES)
    without_outputs(repository).change("engine.workers", workers)
    repository.stages(*STAGES)
    assert hashes(repository) == expected
