"""Model files: what comes back is what was saved, and nothing else is taken for one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, registry
from stages.lib.models.origins import copied
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
    """A path, and the bytes of a sound file that stands there."""
    file = tmp_path_factory.mktemp("whole") / "model.safetensors"
    checkpoints.save_model(model, file)
    return file, file.read_bytes()


def refused(path, *words, expected=None):
    with pytest.raises(UserError) as caught:
        checkpoints.load_model(path, expected)
    for part in (str(path), "dvc repro", *words):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("expected", [None, DESCRIPTION])
def test_what_is_loaded_is_what_was_saved_bit_for_bit(model, path, expected):
    checkpoints.save_model(copied(model).train(), path)
    loaded = checkpoints.load_model(path, expected)
    assert toys.same_state(loaded, model)
    assert not any(module.training for module in loaded.modules())
    batch = toys.noise(5)
    assert torch.equal(loaded(batch), model(batch))


def test_the_same_network_gives_the_same_bytes_in_any_layout_and_is_left_alone(model, whole, path):
    for layout in (torch.contiguous_format, torch.channels_last):
        other = copied(model).train().to(memory_format=layout)
        size = checkpoints.save_model(other, path)
        assert path.read_bytes() == whole[1]
        assert size == len(whole[1]) == checkpoints.serialized_bytes(other)
        assert other.training
        assert toys.same_state(other, model)
        assert all(parameter.requires_grad for parameter in other.parameters())


SHAPES = st.lists(st.integers(0, 40), max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(NAMES, st.tuples(DTYPES, SHAPES), max_size=12), NAMES)
@toys.few_examples
def test_the_size_of_a_file_is_known_without_its_values(kinds, architecture):
    shapes = tuple((name, dtype, tuple(shape)) for name, (dtype, shape) in kinds.items())
    tensors = {name: torch.zeros(shape, dtype=dtype) for name, dtype, shape in shapes}
    whole = save(tensors, {checkpoints.KEY: architecture})
    assert checkpoints._serialized_bytes(shapes, architecture) == len(whole)


@pytest.mark.parametrize("header", [None, {"about": {"bits": 8}}])
def test_tensors_and_their_header_entry_round_trip(path, header):
    tensors = {"Q": torch.arange(-4, 4, dtype=torch.int8), "S": torch.tensor(0.5)}
    checkpoints.save_tensors(path, tensors, header)
    found, about = checkpoints.load_tensors(path, "about" if header else None)
    assert about == (header and header["about"])
    assert toys.same_tensors(found, tensors)
    with pytest.raises(ValueError, match="one header entry"):
        checkpoints.save_tensors(path, tensors, {"a": 1, "b": 2})


def test_a_missing_file_or_a_folder_in_its_place_is_refused(path):
    refused(path, "not found")
    path.mkdir()
    refused(path)


@given(st.data())
@toys.few_examples
def test_a_file_torn_anywhere_is_refused(whole, data):
    path, content = whole
    lengths = st.sampled_from([0, 1, 7, 8, 9, 100, len(content) - 1])
    length = data.draw(lengths | st.integers(0, len(content) - 1))
    path.write_bytes(content[:length])
    refused(path, "cut short")


@pytest.mark.parametrize("content", ["tail", "text", "zipped pickle", "pickle"])
def test_another_kind_of_file_is_refused_and_no_pickle_is_run(whole, path, content):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the pickle was run",)

    if "pickle" in content:
        torch.save(Trap(), path, _use_new_zipfile_serialization="zipped" in content)
    else:
        path.write_bytes(whole[1] + b"tail" if content == "tail" else b"not a network\n" * 100)
    refused(path)


@pytest.mark.parametrize("header", [None, {checkpoints.KEY: "{cut"}])
def test_a_safetensors_file_of_somebody_else_is_refused(model, path, header):
    save_file(model.state_dict(), path, header)
    refused(path, "not written by this pipeline")


@pytest.mark.parametrize(
    "description",
    [
        None, 7, "convnet", ["name", "convnet"], {}, {"name": "convnet"},
        *(
            {**DESCRIPTION, **wrong}
            for wrong in (
                {"name": "vgg"}, {"depth": 3}, {"channels": "444444"}, {"in_channels": 1.5},
                {"channels": [4, 4, 8, 8, 16, -16]}, {"channels": [4, 4, 8, 8, 16, 0]},
                {"hidden": 10**30}, {"hidden": 10**15}, {"hidden": 47}, {"classes": [3]},
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_tensors_that_do_not_fit_the_architecture_are_refused(model, path, description):
    checkpoints.save_tensors(path, model.state_dict(), {checkpoints.KEY: description})
    refused(path, "do not fit")
    refused(path, "another architecture", expected=DESCRIPTION)


def test_a_tensor_too_few_or_too_many_is_refused(model, path):
    tensors = model.state_dict()
    fewer = {name: tensor for name, tensor in tensors.items() if name != "norm3.running_var"}
    for others in (fewer, {**tensors, "norm9.weight": torch.ones(3)}):
        checkpoints.save_tensors(path, others, {checkpoints.KEY: DESCRIPTION})
        refused(path, "do not fit")


def test_another_architecture_than_expected_is_refused_and_told_apart(model, path):
    checkpoints.save_model(model, path)
    expected = registry.architecture("convnet", 8, 1, 10)
    refused(path, "differs in channels, classes, hidden)", expected=expected)


def test_a_small_file_that_names_a_huge_network_is_refused_before_it_is_built(
    tmp_path, monkeypatch
):
    description = registry.architecture("convnet", 2**12, 3, 9)
    path = tmp_path / "x.safetensors"
    checkpoints.save_tensors(path, {"a": torch.ones(3)}, {checkpoints.KEY: description})
    monkeypatch.setattr(registry, "rebuild", None)
    with pytest.raises(UserError, match="its tensors do not fit its architecture"):
        checkpoints.load_model(path)
