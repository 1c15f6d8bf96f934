"""The stage that trains the network from which others learn."""

import json
from types import SimpleNamespace

import pytest
import torch

from stages import train_teacher
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.evaluation import inference
from stages.lib.evaluation.context import Context
from stages.lib.models import checkpoints
from tests import toys


def context(tmp_path, name="train_teacher", **teacher):
    """That of a stage, on toy data."""
    options = {"name": "convnet", "width": 8, "weights": "none", "epochs": 1, "learning_rate": 0.01}
    params = SimpleNamespace(
        model=SimpleNamespace(name="convnet", width=4, class_index="none"),
        teacher=SimpleNamespace(**options | teacher),
        training=toys.training_params(),
    )
    made = Context(name, None, params, {paths.stage_directory(name): tmp_path / "out"})
    made.device, made.precision, made.data = torch.device("cpu"), torch.float32, toys.data()
    made._prepared = made.data
    made.without_training_images = False
    return made


def test_the_larger_network_is_trained_and_described(tmp_path):
    first, second = context(tmp_path), context(tmp_path)
    trained = []
    for stage in (first, second):
        assert [arm.function for arm in train_teacher.arms(stage.params)] == [train_teacher.teacher]
        train_teacher.teacher(stage)
        trained.append(checkpoints.load_model(stage.directory / paths.MODEL))
    assert toys.same_state(*trained)
    model, data = trained[0], first.data
    assert model.conv1.out_channels == 8
    assert json.loads((tmp_path / "out" / paths.TEACHER).read_text()) == {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation_accuracy": inference.accuracy(model, data.validation),
        "test_accuracy": inference.accuracy(model, data.test),
    }


def test_with_no_epochs_the_given_weights_teach(tmp_path, monkeypatch):
    given = toys.lived_in(toys.convnet(8))
    torch.save(given.state_dict(), tmp_path / "given.pt")
    stage = context(tmp_path, weights=str(tmp_path / "given.pt"), epochs=0)
    train_teacher.teacher(stage)
    monkeypatch.chdir(tmp_path)
    paths.stage_directory("train_teacher").parent.mkdir(parents=True)
    (tmp_path / "out").rename(paths.stage_directory("train_teacher"))
    pupil = context(tmp_path, "compress", epochs=0)
    assert toys.same_state(pupil.teacher, given)
    assert not pupil.teacher.training


def test_the_baseline_needs_no_training_again(tmp_path):
    stage = context(tmp_path, "compress")
    stage.params.teacher.name = "baseline"
    stage.baseline = toys.convnet()
    assert train_teacher.arms(stage.params) == []
    assert stage.teacher is stage.baseline


def test_weights_for_other_classes_have_to_be_trained(tmp_path):
    torch.save(toys.convnet(8, classes=7).state_dict(), tmp_path / "given.pt")
    with pytest.raises(UserError) as caught:
        train_teacher.teacher(context(tmp_path, weights=str(tmp_path / "given.pt"), epochs=0))
    assert str(caught.value).startswith("teacher.weights: ")
    assert str(caught.value).endswith("set teacher.epochs to 1 or more")
