"""Architectures: plain data from which a network is built, and which is read off it again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.core.errors import UserError
from stages.lib.models import convnet, registry
from tests import toys

DESCRIPTION = registry.architecture("convnet", 4, 1, 3)


def test_the_architecture_is_plain_data_of_the_width():
    assert DESCRIPTION == {
        "name": "convnet", "in_channels": 1, "channels": [4, 4, 8, 8, 16, 16], "hidden": 48,
        "classes": 3,
    }  # fmt: skip
    assert convnet.sizes(16) == {"channels": [16, 16, 32, 32, 64, 64], "hidden": 192}


@given(st.lists(st.integers(1, 6), min_size=6, max_size=6), st.integers(1, 6))
@toys.fewer_examples
def test_architecture_of_reads_off_what_build_was_given(channels, hidden):
    description = DESCRIPTION | {"channels": channels, "hidden": hidden}
    before = dict(description)
    assert registry.architecture_of(registry.build(description)) == before == description


def test_seeded_weights_depend_on_the_seed_alone_and_leave_the_global_random_stream():
    first = registry.build_seeded(DESCRIPTION, 7)
    torch.rand(5)
    before = torch.get_rng_state()
    assert toys.same_state(first, registry.build_seeded(DESCRIPTION, 7))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first.conv1.weight, registry.build_seeded(DESCRIPTION, 8).conv1.weight)


@pytest.mark.parametrize(("size", "offered"), [((8, 12), (8, 12)), ([6, 6], 6)])
def test_an_own_network_is_offered_its_size_once_where_it_is_square(tmp_path, size, offered):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, num_classes, in_channels, image_size):\n"
        "        super().__init__(in_channels, num_classes)\n"
        "        self.given = image_size\n",
        encoding="utf-8",
    )
    model = registry.build(registry.architecture(f"{file}:Net", 4, 2, 3, size))
    assert model.given == offered
    assert (model.in_features, model.out_features) == (2, 3)


def test_what_makes_no_network_is_refused(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("def make():\n    return 3\n", encoding="utf-8")
    description = registry.architecture(f"{file}:make", 4, 1, 3)
    with pytest.raises(UserError, match=r"returned no torch.nn.Module"):
        registry.build(description)
    file.unlink()
    with pytest.raises(UserError, match=r"net\.py: not found"):
        registry.architecture(f"{file}:make", 4, 1, 3)
    with pytest.raises(ValueError, match="vgg"):
        registry.architecture("vgg", 4, 1, 3)
