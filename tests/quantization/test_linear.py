"""Linear quantization: half a step of error, known codes, torch's own arithmetic, stored files."""

import copy
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from stages.lib.core.errors import UserError
from stages.lib.models import checkpoints, prunable, registry
from stages.lib.quantization import linear
from tests import toys

BITS = list(range(2, 17))
SCHEMES = ["affine", "symmetric"]
GRANULARITIES = ["tensor", "channel"]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)
each_granularity = pytest.mark.parametrize("granularity", GRANULARITIES)

# float32's whole usable range: both signs, zeros of both signs, denormals, outliers.
values = st.one_of(
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 1e30, -1e30, 0.5, 127.5]),
)
tensors = st.one_of(
    st.lists(values, min_size=1, max_size=24),
    st.lists(values.map(abs), min_size=1, max_size=8),
    st.lists(values.map(lambda value: -abs(value)), min_size=1, max_size=8),
    st.builds(lambda value, count: [value] * count, values, st.integers(1, 8)),
).map(torch.tensor)
bits_of_any_width, any_scheme = st.sampled_from(BITS), st.sampled_from(SCHEMES)


@st.composite
def matrices(draw):
    """[channels, n], some channels all zero."""
    count = draw(st.integers(1, 6))
    row = st.one_of(st.just([0.0] * count), st.lists(values, min_size=count, max_size=count))
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=5)))


def weights(shape=(8, 4, 3, 3), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_sound(tensor, bits, scheme, granularity):
    """What holds for every tensor, whatever its values."""
    quantized = linear.quantize(tensor, bits, scheme, granularity)
    lowest, highest = linear.limits(bits, scheme)
    integers = torch.int8 if bits <= 8 else torch.int16
    shape = tensor.shape[:1] if granularity == "channel" else ()
    assert [part.dtype for part in quantized] == [integers, torch.float32, torch.int32]
    assert [part.shape for part in quantized] == [tensor.shape, shape, shape]
    for part in (quantized.Q, quantized.Z):
        assert lowest <= int(part.min()) <= int(part.max()) <= highest
    assert (torch.isfinite(quantized.S) & (quantized.S > 0)).all()
    if scheme == "symmetric":
        assert not quantized.Z.any()
    again = linear.dequantize(quantized)
    assert again.dtype == torch.float32
    assert not again[tensor == 0].any()
    if not tensor.any():
        assert (quantized.S == 1).all()
        error = linear.layer_error(tensor, quantized)
        assert (error.mse, error.theory, error.ratio) == (0, 0, None)
    step = linear.along(quantized.S.double(), tensor)
    exact = step * (quantized.Q.double() - linear.along(quantized.Z.double(), tensor))
    # Half a step. S is rounded to float32, by a share of 2^-24, so that the affine range may be
    # short by that share of its steps: an end of it that then rounds past the limits is clamped.
    clamped = (highest - lowest) * 2**-24 if scheme == "affine" else 0
    assert ((tensor.double() - exact).abs() <= step * (0.5 + 1e-9 + clamped)).all()
    assert ((again.double() - exact).abs() <= exact.abs() * 2**-24).all()


@given(tensors, bits_of_any_width, any_scheme)
@example(torch.zeros(3), 8, "affine")
@example(torch.tensor(0.3), 4, "affine")
@example(torch.tensor([1e-45]), 16, "affine")
@example(torch.tensor([-1.5, 253.5]), 8, "affine")
@example(torch.tensor([0.5, 1.0]), 8, "affine")
@example(torch.tensor([-0.5, -1.0]), 8, "affine")
@example(weights((10_000,)), 16, "affine")
@example(weights((10_000,)), 16, "symmetric")
@toys.few_examples
def test_any_tensor_is_quantized_to_half_a_step_in_its_order(tensor, bits, scheme):
    assert_sound(tensor, bits, scheme, "tensor")
    again = linear.dequantize(linear.quantize(tensor, bits, scheme, "tensor")).flatten()
    flat = tensor.flatten()
    assert ((again == 0) | (again.sign() == flat.sign())).all()
    assert (again[flat.argsort()].diff() >= 0).all()


@given(matrices(), bits_of_any_width, any_scheme)
@toys.few_examples
def test_a_channel_is_quantized_to_half_its_own_step_as_if_it_were_alone(tensor, bits, scheme):
    assert_sound(tensor, bits, scheme, "channel")
    together = linear.quantize(tensor, bits, scheme, "channel")
    for index, channel in enumerate(tensor):
        alone = linear.quantize(channel, bits, scheme, "tensor")
        assert all(torch.equal(part[index], own) for part, own in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("tensor", "bits", "scheme", "scale", "zero", "codes"),
    [
        ([-1.2, -0.4, 0.0, 2.0], 3, "symmetric", 2 / 3, 0, [-2, -1, 0, 3]),
        ([-1.0, 0.0, 0.26, 0.5], 4, "affine", 0.1, 2, [-8, 2, 5, 7]),
        # A range is widened to hold zero.
        ([1.0, 1.5], 4, "affine", 0.1, -8, [2, 7]),
        ([-1.0, -1.5], 4, "affine", 0.1, 7, [-3, -8]),
    ],
)
def test_codes_of_known_tensors(tensor, bits, scheme, scale, zero, codes):
    quantized = linear.quantize(torch.tensor(tensor), bits, scheme, "tensor")
    assert float(quantized.S) == pytest.approx(scale)
    assert int(quantized.Z) == zero
    assert quantized.Q.tolist() == codes


@pytest.mark.parametrize("bits", BITS)
def test_affine_uses_every_code_of_a_one_sided_range(bits):
    quantized = linear.quantize(torch.linspace(0, 1, 2**bits), bits, "affine", "tensor")
    assert quantized.Q.tolist() == list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))


@pytest.mark.parametrize("bits", BITS)
@each_scheme
def test_it_equals_torchs_fake_quantization(bits, scheme):
    limits = linear.limits(bits, scheme)
    tensor = weights() * torch.logspace(-3, 2, 8).view(-1, 1, 1, 1) + 0.01
    quantized = linear.quantize(tensor, bits, scheme, "channel")
    scale, zero = quantized.S, quantized.Z
    reference = torch.fake_quantize_per_channel_affine(tensor, scale, zero, 0, *limits)
    again = linear.dequantize(quantized)
    # Float32 arithmetic cannot tell on which side of a tie x is.
    steps = (tensor.double() / linear.along(scale.double(), tensor)).frac().abs()
    tie = (steps - 0.5).abs() < 0.02
    assert tie.double().mean() < 0.1
    assert torch.equal(again[~tie], reference[~tie])
    assert ((again - reference).abs() <= linear.along(scale, tensor) * 1.001).all()


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@each_scheme
def test_the_error_on_uniform_data_is_that_of_theory(bits, scheme):
    """S²/12, so that eight more bits divide it by 2^16."""
    tensor = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    error = linear.layer_error(tensor, linear.quantize(tensor, bits, scheme, "tensor"))
    assert error.ratio == pytest.approx(1, rel=0.05)
    lowest, highest = linear.limits(bits, scheme)
    assert error.theory == pytest.approx((2 / (highest - lowest)) ** 2 / 12, rel=1e-3)


def test_a_layers_row_gives_ranges_and_error():
    # A channel of zeros has S = 1, which stands for no error.
    tensor = torch.tensor([[0.0, 1.0], [-4.0, 0.0], [0.0, 0.0]])
    error = linear.layer_error(tensor, linear.quantize(tensor, 2, "affine", "channel"))
    assert (error.scale_least, error.scale_most) == pytest.approx((1 / 3, 4 / 3))
    assert (error.zero_point_least, error.zero_point_most) == (-2, 1)
    assert error.mse == pytest.approx(0, abs=1e-12)
    assert error.theory == pytest.approx((1 / 9 + 16 / 9) / 3 / 12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_raise(value):
    with pytest.raises(ValueError, match="infinite or undefined"):
        linear.quantize(torch.tensor([[1.0, value]]), 8, "affine", "channel")


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


def test_prunable_weights_are_replaced_in_a_copy(model):
    before = copy.deepcopy(model)
    quantized = linear.quantize_weights(model, 4, "affine", "channel")
    assert list(quantized) == list(prunable.weights(model))
    coarse = linear.with_weights(model, quantized)
    assert toys.same_state(model, before)
    replaced = {name: linear.dequantize(parts) for name, parts in quantized.items()}
    assert toys.same_tensors(coarse.state_dict(), model.state_dict() | replaced)


@pytest.mark.parametrize("bits", [2, 8, 16])
@each_scheme
@each_granularity
def test_a_stored_network_comes_back_bit_for_bit(model, tmp_path, bits, scheme, granularity):
    quantized = linear.quantize_weights(model, bits, scheme, granularity)
    path, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    size = linear.save_model(path, model, quantized)
    assert size == path.stat().st_size
    loaded, parts = linear.load_model(path)
    assert toys.same_state(loaded, linear.with_weights(model, quantized))
    assert set(parts) == set(quantized)
    for name, stored in parts.items():
        assert all(map(torch.equal, stored, quantized[name]))
        assert [part.dtype for part in stored] == [part.dtype for part in quantized[name]]
    assert not any(module.training for module in loaded.modules())
    # The same codes give the same bytes.
    linear.save_model(other, model, dict(reversed(quantized.items())))
    assert other.read_bytes() == path.read_bytes()


@pytest.fixture
def path(model, tmp_path):
    """A sound file."""
    path = tmp_path / "model.safetensors"
    linear.save_model(path, model, linear.quantize_weights(model, 8, "affine", "tensor"))
    return path


WIDE = registry.architecture("convnet", 8, 1, 3)


@pytest.mark.parametrize(
    ("header", "tensors"),
    [
        (lambda sound: None, {}),
        (lambda sound: [], {}),
        (lambda sound: {"weights": sound["weights"]}, {}),
        (lambda sound: sound | {"weights": 3}, {}),
        (lambda sound: sound | {"weights": ["conv9.weight"]}, {}),
        (lambda sound: sound | {"weights": []}, {}),
        (lambda sound: sound | {"architecture": WIDE}, {}),
        (lambda sound: sound | {"architecture": None}, {}),
        (lambda sound: sound, {"conv1.weight.S": torch.ones(3)}),
        (lambda sound: sound, {"conv1.weight.Z": torch.zeros(3, dtype=torch.int32)}),
        (lambda sound: sound, {"conv1.weight.Q": torch.ones(2, 2)}),
    ],
)
def test_a_file_that_does_not_fit_is_refused(path, header, tensors):
    stored, sound = checkpoints.load_tensors(path, linear.KEY)
    checkpoints.save_tensors(path, stored | tensors, {linear.KEY: header(sound)})
    with pytest.raises(UserError, match=r"model\.safetensors: .*dvc repro"):
        linear.load_model(path)


def test_a_missing_file_and_a_float32_network_are_refused(model, tmp_path):
    checkpoints.save_model(model, tmp_path / "float.safetensors")
    for name in ("missing", "float"):
        with pytest.raises(UserError, match=rf"{name}\.safetensors: .*dvc repro"):
            linear.load_model(tmp_path / f"{name}.safetensors")
