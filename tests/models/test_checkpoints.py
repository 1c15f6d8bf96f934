import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, registry
from tests import toys

DESCRIPTION = registry.architecture("convnet", 4, 1, 3)


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The bytes of a sound file."""
    file = tmp_path_factory.mktemp("whole") / "model.safetensors"
    checkpoints.save_model(model, file)
    return file.read_bytes()


def assert_refused(path, *also):
    with pytest.raises(UserError) as caught:
        checkpoints.load_model(path)
    for part in (str(path), "dvc repro", *also):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_loaded_is_what_was_saved_bit_for_bit(model, path):
    checkpoints.save_model(model, path)
    assert toys.same_state(checkpoints.load_model(path), model)


def test_outputs_survive_the_round_trip(model, path):
    checkpoints.save_model(model, path)
    batch = toys.noise(5)
    assert torch.equal(checkpoints.load_model(path)(batch), model(batch))


def test_a_loaded_network_is_in_evaluation_mode(model, path):
    checkpoints.save_model(copy.deepcopy(model).train(), path)
    assert not any(module.training for module in checkpoints.load_model(path).modules())


def test_a_network_of_other_sizes_is_rebuilt_from_its_file_alone(path):
    description = {**DESCRIPTION, "channels": [1, 2, 3, 4, 5, 6], "hidden": 7}
    checkpoints.save_model(registry.build_seeded(description, 0), path)
    assert registry.architecture_of(checkpoints.load_model(path)) == description


def test_the_same_network_gives_the_same_bytes(model, whole, tmp_path):
    for index in range(5):
        file = tmp_path / f"{index}.safetensors"
        checkpoints.save_model(copy.deepcopy(model), file)
        assert file.read_bytes() == whole


def test_memory_format_does_not_change_the_bytes(model, whole, path):
    checkpoints.save_model(copy.deepcopy(model).to(memory_format=torch.channels_last), path)
    assert path.read_bytes() == whole


def test_sizes_reported_are_those_of_the_file(model, path):
    written = checkpoints.save_model(model, path)
    assert written == path.stat().st_size == checkpoints.serialized_bytes(model)


def test_saving_leaves_the_network_alone(model, path):
    training = copy.deepcopy(model).train()
    checkpoints.save_model(training, path)
    assert training.training
    assert toys.same_state(training, model)
    assert all(parameter.requires_grad for parameter in training.parameters())


def test_tensors_and_their_header_entry_round_trip(path):
    tensors = {"Q": torch.arange(-4, 4, dtype=torch.int8), "S": torch.tensor(0.5)}
    checkpoints.save_tensors(path, tensors, {"about": {"bits": 8}})
    found, about = checkpoints.load_tensors(path, "about")
    assert about == {"bits": 8}
    assert set(found) == {"Q", "S"}
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
        for name, tensor in tensors.items()
    )


def test_tensors_without_a_header_round_trip(path):
    checkpoints.save_tensors(path, {"x": torch.ones(2)})
    found, about = checkpoints.load_tensors(path)
    assert about is None
    assert torch.equal(found["x"], torch.ones(2))


def test_a_second_header_entry_is_refused(path):
    with pytest.raises(ValueError, match="one header entry"):
        checkpoints.save_tensors(path, {"x": torch.ones(2)}, {"a": 1, "b": 2})
    assert not path.exists()


def test_a_missing_file_is_named_with_the_remedy(path):
    assert_refused(path, "not found")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 1000, -1000, -1])
def test_a_torn_file_is_refused(whole, path, length):
    path.write_bytes(whole[:length])
    assert_refused(path, "cut short")


@given(st.data())
@toys.few_examples
def test_a_file_torn_anywhere_is_refused(whole, tmp_path_factory, data):
    length = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.getbasetemp() / "torn.safetensors"
    path.write_bytes(whole[:length])
    assert_refused(path, "cut short")


@given(st.binary(max_size=64))
@toys.few_examples
def test_any_other_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(content)
    assert_refused(path)


def test_a_file_with_a_tail_is_refused(whole, path):
    path.write_bytes(whole + b"tail")
    assert_refused(path)


def test_a_text_file_is_refused(path):
    path.write_text("not a network\n" * 100, encoding="utf-8")
    assert_refused(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_never_run(path, zipped):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the pickle was run",)

    torch.save(
        {"weights": torch.ones(3), "trap": Trap()}, path, _use_new_zipfile_serialization=zipped
    )
    assert_refused(path)


def test_a_folder_in_its_place_is_refused(path):
    path.mkdir()
    assert_refused(path)


def test_a_safetensors_file_of_somebody_else_is_refused(model, path):
    save_file(model.state_dict(), path)
    assert_refused(path, "not written by this pipeline")


def test_a_header_that_is_not_json_is_refused(model, path):
    save_file(model.state_dict(), path, {checkpoints.KEY: "{cut"})
    assert_refused(path, "not written by this pipeline")


@pytest.mark.parametrize(
    "description",
    [
        None,
        7,
        "convnet",
        [],
        ["name", "convnet"],
        {},
        {"name": "convnet"},
        {**DESCRIPTION, "name": "vgg"},
        {**DESCRIPTION, "depth": 3},
        {**DESCRIPTION, "channels": "444444"},
        {**DESCRIPTION, "channels": [4, 4, 8, 8, 16, -16]},
        {**DESCRIPTION, "channels": [4, 4, 8, 8, 16, 0]},
        {**DESCRIPTION, "in_channels": 0},
        {**DESCRIPTION, "in_channels": 1.5},
        {**DESCRIPTION, "in_channels": None},
        {**DESCRIPTION, "hidden": 10**30},
        {**DESCRIPTION, "hidden": 10**15},
        {**DESCRIPTION, "classes": [3]},
        {**DESCRIPTION, "hidden": 47},
        registry.architecture("convnet", 8, 1, 3),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_tensors_that_do_not_fit_the_architecture_are_refused(model, path, description):
    checkpoints.save_tensors(path, model.state_dict(), {checkpoints.KEY: description})
    assert_refused(path, "do not fit")


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_tensor_too_few_or_too_many_is_refused(model, path, change):
    tensors = dict(model.state_dict())
    if change == "missing":
        del tensors["norm3.running_var"]
    else:
        tensors["norm9.weight"] = torch.ones(3)
    checkpoints.save_tensors(path, tensors, {checkpoints.KEY: DESCRIPTION})
    assert_refused(path, "do not fit")


def test_the_expected_architecture_is_accepted(model, path):
    checkpoints.save_model(model, path)
    assert toys.same_state(checkpoints.load_model(path, DESCRIPTION), model)


@pytest.mark.parametrize(
    ("expected", "differing"),
    [
        (registry.architecture("convnet", 8, 1, 3), "channels, hidden"),
        (registry.architecture("convnet", 4, 3, 3), "in_channels"),
        (registry.architecture("convnet", 4, 1, 10), "classes"),
    ],
)
def test_another_architecture_than_expected_is_refused_and_told_apart(
    model, path, expected, differing
):
    checkpoints.save_model(model, path)
    with pytest.raises(UserError) as caught:
        checkpoints.load_model(path, expected)
    text = str(caught.value)
    assert str(path) in text
    assert "dvc repro" in text
    assert f"differs in {differing})" in text


@pytest.mark.parametrize("description", [None, 7, [], "convnet"])
def test_a_foreign_description_is_refused_where_another_is_expected(model, path, description):
    checkpoints.save_tensors(path, model.state_dict(), {checkpoints.KEY: description})
    with pytest.raises(UserError, match="dvc repro"):
        checkpoints.load_model(path, DESCRIPTION)
