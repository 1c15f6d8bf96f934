"""Packed networks: what comes out is what went in, in few bytes, and hostile files are refused."""

import hashlib
import json
import tracemalloc
from contextlib import contextmanager

import pytest
import torch
import torchvision  # noqa: F401 - its own memory is not what a file is charged with
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.compression import container, entropy, packed
from stages.lib.core.errors import UserError
from stages.lib.models import prunable, registry
from stages.lib.models.origins import copied
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.quantization import linear
from stages.lib.structured import analysis, ranking, removal
from stages.tools import packed as tool
from tests import toys
from tests.structured.networks import units_of


def quantized_of(model, bits=4, granularity="channel"):
    return linear.quantize_weights(model, bits, "symmetric", granularity)


def assert_round_trip(model, quantized):
    data = packed.pack(model, quantized)
    again, parts = packed.unpack(data, network=registry.architecture_of(model)["name"])
    assert toys.same_state(again, linear.with_weights(model, quantized))
    assert registry.architecture_of(again) == registry.architecture_of(model)
    assert not any(module.training for module in again.modules())
    assert list(parts) == [name for name in model.state_dict() if name in quantized]
    for name, own in parts.items():
        assert all(map(torch.equal, own, quantized[name]))
    assert packed.pack(again, parts) == data
    return data


@torch.no_grad()
def in_halves(model, quantized):
    """The same with values that float16 holds."""
    for name, tensor in model.state_dict().items():
        if name not in quantized and tensor.is_floating_point():
            tensor.copy_(tensor.half())
    return model, {
        name: parts._replace(S=parts.S.half().float()) for name, parts in quantized.items()
    }


@st.composite
def any_network(draw):
    """A network of any width and sparsity, and its weights as integers: all, only those of
    convolutions, or none.
    """
    sizes = {
        "channels": draw(st.lists(st.integers(1, 9), min_size=6, max_size=6)),
        "hidden": draw(st.integers(1, 12)),
    }
    bits, sparsity = draw(st.integers(2, 16)), draw(st.sampled_from([0.0, 0.5, 0.92, 0.999]))
    granularity = draw(st.sampled_from(["tensor", "channel"]))
    chosen, half = draw(st.sampled_from(["", "conv", "weight"])), draw(st.booleans())
    description = registry.architecture("convnet", 1, 3, 5) | sizes
    model = toys.lived_in(registry.build_seeded(description, 0), draw(st.integers(0, 2**32)))
    model = masks.masked(model, masks.global_(magnitude.scores(model), sparsity))
    quantized = {
        name: parts
        for name, parts in quantized_of(model, bits, granularity).items()
        if chosen and chosen in name
    }
    return in_halves(model, quantized) if half else (model, quantized)


@given(any_network())
@toys.few_examples
def test_any_network_comes_back_bit_for_bit(network):
    assert_round_trip(*network)


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


@pytest.fixture(scope="module")
def file(model):
    """The bytes of a sound file."""
    return packed.pack(model, quantized_of(model))


@torch.no_grad()
def test_floats_come_back_to_the_bit(model):
    odd = copied(model)
    for module in (odd.norm1, odd.norm2):
        values = [0.0, -0.0, float("inf"), float("nan")]
        module.weight.copy_(torch.tensor(values))
    odd.norm3.weight[:4] = torch.tensor([1e-45, -3e38, 65504.0, 6e-8])
    again = packed.unpack(packed.pack(odd, quantized_of(odd)))[0]
    for name, tensor in odd.state_dict().items():
        if "norm" in name and tensor.dim():
            other = again.state_dict()[name]
            assert torch.equal(tensor.view(torch.int32), other.view(torch.int32)), name


def test_networks_of_zeros_and_of_extremes():
    model = toys.lived_in(toys.convnet())
    quantized = quantized_of(model, 8)
    for name, parts in quantized.items():
        parts.Q.zero_()
        if name == "conv2.weight":
            parts.Q.view(-1)[:2] = torch.tensor([-128, 127])
    assert_round_trip(model, quantized)


def test_a_network_that_lost_filters_comes_back():
    unpruned = toys.lived_in(registry.build_seeded(registry.architecture("resnet20", 0, 1, 3), 0))
    plan = analysis.analyse(unpruned, (1, 8, 8))
    small = removal.remove(unpruned, plan, ranking.choose(unpruned, plan, 0.6, "global"))
    assert registry.RESIZED in registry.architecture_of(small)
    contents = packed.decode(assert_round_trip(small, quantized_of(small)))
    assert contents.file_bytes - contents.payload_bytes < 600


TIED = """
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first = nn.Linear(in_channels, 6, bias=False)
        self.inner = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.inner.weight
        self.head = nn.Linear(6, num_classes)
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("brain", torch.arange(4).to(torch.bfloat16))
        self.register_buffer("wide", torch.tensor([0.1, -1e300], dtype=torch.float64))
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.register_buffer("one", torch.tensor(0.25))

    def forward(self, images):
        return self.head(self.again(self.inner(self.first(images.mean((2, 3))))))
"""


@pytest.fixture
def name(tmp_path):
    """A network of the user's own, with tied weights and buffers of many types."""
    (tmp_path / "net.py").write_text(TIED, encoding="utf-8")
    return f"{tmp_path / 'net.py'}:Network"


@pytest.fixture
def own(name):
    return registry.build_seeded(registry.architecture(name, 0, 1, 3, (8, 8)), 0).eval()


def test_tied_weights_are_stored_once_and_come_back_tied(own, name):
    data = assert_round_trip(own, quantized_of(own))
    again, _ = packed.unpack(data, network=name)
    assert again.inner.weight is again.again.weight
    rows = {row[0]: row for row in tool.rows(packed.decode(data, network=name))}
    assert rows["again.weight"][2:] == ("as inner.weight", rows["inner.weight"][3], 0)
    # Also where the quantized one comes second, and where none is quantized.
    parts = linear.quantize(own.again.weight, 4, "symmetric", "tensor")
    data = packed.pack(own, {"again.weight": parts})
    state = packed.unpack(data, network=name)[0].state_dict()
    assert torch.equal(state["inner.weight"], linear.dequantize(parts))
    assert_round_trip(own, {})


@torch.no_grad()
def numbered(model):
    """The network with numbers that no random stream makes, some of which float16 holds."""
    for index, tensor in enumerate(model.state_dict().values()):
        if tensor.is_floating_point():
            numbers = torch.arange(tensor.numel()) * (37 + index) % 101 - 50
            tensor.copy_((numbers / (64 if index % 3 else 67)).reshape(tensor.shape))
    return model


@pytest.mark.parametrize(
    ("kind", "bits", "granularity", "digest"),
    [
        ("own", 4, "channel", "e834ef2fe94bde2c34c4908af9389208c1fcb86afb719903582c99dee9cca469"),
        ("small", 4, "channel", "630210f243f30c6481ed3bd48c5b0b4228e36cc109f17304a94019199273a2c2"),
        ("small", 12, "tensor", "dbb2caf67e9eeeff0910909ffd16c0d250617d8c4ee0bbdfb294d0500d309b31"),
        ("float", None, None, "871f5e6af86fffdc2126317f873f5b9c0a0713dddf0cd4c92dcfbd80742cae60"),
    ],
)
def test_the_format_has_not_changed(own, kind, bits, granularity, digest):
    """Digests of what revision fb34b14 wrote: all but the description and the frame, which name a
    file and depend on zlib's version. Another digest means another version number.
    """
    model = numbered(own if kind == "own" else toys.convnet())
    if kind == "small":
        plan = analysis.analyse(model, (1, 8, 8))
        model = removal.remove(model, plan, units_of(plan, {"conv1": [0, 3], "hidden": [1]}))
    data = packed.pack(model, quantized_of(model, bits, granularity) if bits else {})
    about, payload = container.unwrap(data)
    text, rest = description_of(about)
    assert json.loads(text) == registry.portable(
        registry.dense_architecture(registry.architecture_of(model))
    )
    assert hashlib.sha256(rest + payload).hexdigest() == digest


@pytest.mark.parametrize(
    "change",
    [
        {"Q": torch.zeros(3, 3, dtype=torch.int8)},
        {"Q": torch.zeros(4, 1, 3, 3)},
        {"S": torch.ones(4, dtype=torch.float64)},
        {"S": torch.ones(3)},
        {"S": torch.full((4,), torch.inf)},
        {"Z": torch.ones(4, dtype=torch.int32)},
    ],
)
def test_what_cannot_be_packed_is_refused(model, change):
    parts = quantized_of(model)["conv1.weight"]
    for quantized in ({"conv1.weight": parts._replace(**change)}, {"conv9.weight": parts}):
        with pytest.raises(ValueError, match="not a symmetric quantization"):
            packed.pack(model, quantized)


def test_types_of_another_network_are_refused(model):
    with pytest.raises(ValueError, match="other types"):
        packed.pack(copied(model).half(), {})


# Size


@pytest.mark.parametrize("sparsity", [0, 0.92])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_file_is_within_two_per_cent_of_its_bound(bits, sparsity, half):
    """A ConvNet of 0.13 M parameters, its weights distributed as those of trained networks."""
    model = registry.build_seeded(registry.architecture("convnet", 20, 3, 10), 0)
    model = toys.lived_in(model)
    for weight in prunable.weights(model).values():
        weight.copy_(toys.laplace(*weight.shape))
    model = masks.masked(model, masks.global_(magnitude.scores(model), sparsity))
    quantized = quantized_of(model, bits)
    if half:
        model, quantized = in_halves(model, quantized)
    data = packed.pack(model, quantized)
    width = 2 if half else 4
    scales = sum(width * parts.S.numel() for parts in quantized.values())
    integers = sum(entropy.bound_bits(parts.Q.numpy()) / 8 for parts in quantized.values())
    others = sum(
        tensor.numel() * (width if tensor.is_floating_point() else 8)
        for name, tensor in model.state_dict().items()
        if name not in quantized
    )
    bound = integers + scales + others
    assert len(data) <= 1.02 * bound
    contents = packed.decode(data)
    assert sum(row[-1] for row in tool.rows(contents)) == pytest.approx(bound)
    assert contents.file_bytes - contents.payload_bytes <= (800 if bits == 8 else 450)


# Files


def test_the_same_network_gives_the_same_bytes(model, file):
    other = copied(model).to(memory_format=torch.channels_last).train()
    quantized = quantized_of(other)
    assert packed.pack(other, dict(reversed(quantized.items()))) == file


def refusal(data, where="some/file.packed", **options):
    with pytest.raises(UserError) as caught:
        packed.unpack(data, where, **options)
    text = str(caught.value)
    assert text.startswith(f"{where}: ")
    assert "\n" not in text
    return text


# Hostile files: the checksum is right


@contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def forged(file, metadata=lambda about: about, payload=lambda coded: coded):
    """A file with other contents, sealed again."""
    about, coded = container.unwrap(file)
    return container.wrap(metadata(about), payload(coded))


def description_of(about):
    """The text that describes the network, and the rest of the metadata."""
    end = 4 + int.from_bytes(about[:4], "little")
    return about[4:end], about[end:]


def described(file, text):
    """A file that describes another network."""
    start = len(text).to_bytes(4, "little")
    return forged(file, lambda about: start + text + description_of(about)[1])


OTHER = {"channels": None, "hidden": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": 7},
        {"hidden": 10**15},
        {"hidden": -5},
        {"hidden": 49},
        {"hidden": 1.5},
        {"classes": [3]},
        {"channels": [4] * 7},
        {"channels": [10**6] * 6},
        {"resized": {"conv1": {"out_channels": 1}}},
        {"name": "resnet20", **OTHER},
        {"name": "resnet20", **OTHER, "classes": 10**12},
        {"name": "vit_h_14", **OTHER, "image_size": [224, 224]},
        {"name": "no/such/file.py:net", **OTHER, "image_size": [8, 8]},
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_description_that_does_not_fit_is_refused_in_little_memory(file, changes):
    stated = json.loads(description_of(container.unwrap(file)[0])[0]) | changes
    stated = {key: value for key, value in stated.items() if value is not None}
    with little_memory():
        text = refusal(described(file, json.dumps(stated).encode()))
        for no_object in (b"", b"[]", b"\xff", b"[" * 100_000, b"1" * 100_000):
            refusal(described(file, no_object))
    if str(changes.get("name")).startswith("no/such"):
        assert "--network" in text
    if changes.get("hidden") == 10**15 or "vit_h_14" in changes.values():
        assert "--max-elements" in text


# Some bytes are replaced by others: where (as a share of all), how many, and by what.
mutations = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4
)


def mutated(content, changes):
    content = bytearray(content)
    for place, count, piece in changes:
        at = int(place * len(content))
        content[at : at + count] = piece
    return bytes(content)


def assert_rebuilt_or_refused(data):
    """Whatever a file says: a network, or a UserError, in bounded memory."""
    problem = "fuzzed: "
    with little_memory():
        try:
            contents = packed.decode(data, "fuzzed")
            tool.rows(contents)
            packed.rebuilt(contents)
        except UserError as error:
            problem = str(error)
    assert problem.startswith("fuzzed: ")
    assert "\n" not in problem


@given(mutations)
@toys.fewer_examples
def test_metadata_and_payload_of_any_kind_are_read_or_refused(file, changes):
    def after_the_description(about):
        text, rest = description_of(about)
        return about[: 4 + len(text)] + mutated(rest, changes)

    assert_rebuilt_or_refused(forged(file, lambda about: mutated(about, changes)))
    # Most mutations of all metadata break the description alone.
    assert_rebuilt_or_refused(forged(file, after_the_description))
    assert_rebuilt_or_refused(forged(file, payload=lambda coded: mutated(coded, changes)))


def test_scales_that_are_not_finite_are_refused(model):
    parts = quantized_of(model)["conv1.weight"]
    parts.S[1] = torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_check", lambda *_: None)
        data = packed.pack(model, {"conv1.weight": parts})
    assert "not finite" in refusal(data)
