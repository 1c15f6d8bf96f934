import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.evaluation import counting
from stages.lib.models import convnet, registry
from tests import toys

DESCRIPTION = registry.architecture("convnet", 4, 1, 3)


def test_the_architecture_is_plain_data():
    assert DESCRIPTION == {
        "name": "convnet",
        "in_channels": 1,
        "channels": [4, 4, 8, 8, 16, 16],
        "hidden": 48,
        "classes": 3,
    }


@given(
    st.integers(1, 3),
    st.lists(st.integers(1, 6), min_size=6, max_size=6),
    st.integers(1, 6),
    st.integers(2, 5),
)
@toys.few_examples
def test_architecture_of_reads_off_what_build_was_given(in_channels, channels, hidden, classes):
    description = {
        "name": "convnet",
        "in_channels": in_channels,
        "channels": channels,
        "hidden": hidden,
        "classes": classes,
    }
    assert registry.architecture_of(registry.build(description)) == description


def test_build_leaves_its_description_alone():
    description = registry.architecture("convnet", 4, 1, 3)
    registry.build(description)
    assert description == DESCRIPTION


def test_seeded_weights_depend_on_the_seed_alone():
    first = registry.build_seeded(DESCRIPTION, 7)
    torch.rand(5)
    assert toys.same_state(first, registry.build_seeded(DESCRIPTION, 7))
    assert not torch.equal(first.conv1.weight, registry.build_seeded(DESCRIPTION, 8).conv1.weight)


def test_seeded_building_leaves_the_global_random_stream_alone():
    before = torch.get_rng_state()
    registry.build_seeded(DESCRIPTION, 7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(4, 4), (4, 9), (8, 8), (13, 7), (32, 32)])
def test_images_from_4_by_4_give_a_logit_per_class(size):
    model = toys.convnet(classes=5).eval()
    assert model(toys.noise(2, (1, *size))).shape == (2, 5)


def test_the_image_is_halved_after_the_second_and_the_fourth_convolution():
    model, seen = toys.convnet().eval(), []
    for index in range(1, 7):
        model.get_submodule(f"conv{index}").register_forward_hook(
            lambda *call: seen.append(tuple(call[2].shape[2:]))
        )
    model(toys.noise(1, (1, 8, 12)))
    assert seen == [(8, 12), (8, 12), (4, 6), (4, 6), (2, 3), (2, 3)]


def test_one_class_score_does_not_depend_on_the_rest_of_the_batch():
    model = toys.lived_in(toys.convnet())
    batch = toys.noise(6)
    torch.testing.assert_close(model(batch)[:2], model(batch[:2]))


def test_hidden_and_widths_follow_the_width():
    assert convnet.sizes(16) == {"channels": [16, 16, 32, 32, 64, 64], "hidden": 192}
    narrow, wide = toys.convnet(4), toys.convnet(8)
    assert counting.parameters(narrow) < counting.parameters(wide)


@pytest.mark.parametrize(
    "wrong",
    [
        {**DESCRIPTION, "name": "vgg"},
        {key: value for key, value in DESCRIPTION.items() if key != "name"},
        {key: value for key, value in DESCRIPTION.items() if key != "hidden"},
        {**DESCRIPTION, "depth": 3},
        {**DESCRIPTION, "channels": [4, 4, 8, 8, 16]},
        {**DESCRIPTION, "channels": 4},
        {**DESCRIPTION, "hidden": "48"},
        [],
        None,
        7,
    ],
)
def test_a_description_that_is_not_ours_raises(wrong):
    with pytest.raises((ValueError, TypeError)):
        registry.build(wrong)


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="vgg"):
        registry.architecture("vgg", 4, 1, 3)
