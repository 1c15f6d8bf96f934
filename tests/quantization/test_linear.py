import copy
import math
import warnings

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from stages.lib.core.errors import UserError
from stages.lib.evaluation import counting
from stages.lib.models import checkpoints, prunable, registry
from stages.lib.pruning import masks
from stages.lib.pruning.criteria import magnitude
from stages.lib.quantization import linear
from tests import toys

BITS = list(range(2, 17))
SCHEMES = ["affine", "symmetric"]
GRANULARITIES = ["tensor", "channel"]

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


@st.composite
def matrices(draw):
    """[channels, n], some channels all zero."""
    count = draw(st.integers(1, 6))
    row = st.one_of(st.just([0.0] * count), st.lists(values, min_size=count, max_size=count))
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=5)))


def along(vector, tensor):
    return vector.view(-1, *[1] * (tensor.dim() - 1)) if vector.dim() else vector


def weights(shape=(8, 4, 3, 3), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_sound(tensor, bits, scheme, granularity):
    """What holds for every tensor, whatever its values."""
    found = linear.quantize(tensor, bits, scheme, granularity)
    lowest, highest = linear.limits(bits, scheme)
    assert found.Q.shape == tensor.shape
    assert found.Q.dtype == (torch.int8 if bits <= 8 else torch.int16)
    assert found.S.dtype == torch.float32
    assert found.Z.dtype == torch.int32
    assert found.S.shape == found.Z.shape == (tensor.shape[:1] if granularity == "channel" else ())
    for integers in (found.Q, found.Z):
        assert lowest <= int(integers.min()) <= int(integers.max()) <= highest
    assert torch.isfinite(found.S).all()
    assert (found.S > 0).all()
    if scheme == "symmetric":
        assert not found.Z.any()
    again = linear.dequantize(found)
    assert again.dtype == torch.float32
    assert not again[tensor == 0].any()
    step = along(found.S.double(), tensor)
    exact = step * (found.Q.double() - along(found.Z.double(), tensor))
    # Half a step. S is rounded to float32, by a share of 2^-24, so that the affine range may be
    # short by that share of its steps: an end of it that then rounds past the limits is clamped.
    clamped = (highest - lowest) * 2**-24 if scheme == "affine" else 0
    assert ((tensor.double() - exact).abs() <= step * (0.5 + 1e-9 + clamped)).all()
    assert ((again.double() - exact).abs() <= exact.abs() * 2**-24).all()


@given(tensors, st.sampled_from(BITS), st.sampled_from(SCHEMES))
@example(torch.zeros(3), 8, "affine")
@example(torch.tensor(0.3), 4, "affine")
@example(torch.tensor([1e-45]), 16, "affine")
@example(torch.tensor([-1.5, 253.5]), 8, "affine")
@example(torch.tensor([0.5, 1.0]), 8, "affine")
@example(torch.tensor([-0.5, -1.0]), 8, "affine")
@example(weights((10_000,)), 16, "affine")
@example(weights((10_000,)), 16, "symmetric")
@toys.few_examples
def test_any_tensor_is_quantized_to_half_a_step(tensor, bits, scheme):
    assert_sound(tensor, bits, scheme, "tensor")


@given(matrices(), st.sampled_from(BITS), st.sampled_from(SCHEMES))
@toys.few_examples
def test_any_channels_are_quantized_to_half_their_own_steps(tensor, bits, scheme):
    assert_sound(tensor, bits, scheme, "channel")


@given(matrices(), st.sampled_from(BITS), st.sampled_from(SCHEMES))
@toys.few_examples
def test_a_channel_is_quantized_as_if_it_were_alone(tensor, bits, scheme):
    together = linear.quantize(tensor, bits, scheme, "channel")
    for index, channel in enumerate(tensor):
        alone = linear.quantize(channel, bits, scheme, "tensor")
        assert torch.equal(together.Q[index], alone.Q)
        assert together.S[index] == alone.S
        assert together.Z[index] == alone.Z


@given(tensors, st.sampled_from(BITS), st.sampled_from(SCHEMES))
@toys.few_examples
def test_signs_and_order_are_kept(tensor, bits, scheme):
    again = linear.dequantize(linear.quantize(tensor, bits, scheme, "tensor"))
    assert ((again == 0) | (again.sign() == tensor.sign())).all()
    assert (again[tensor.argsort()].diff() >= 0).all()


@pytest.mark.parametrize(
    ("bits", "scheme", "limits"),
    [
        (2, "affine", (-2, 1)),
        (2, "symmetric", (-1, 1)),
        (8, "affine", (-128, 127)),
        (8, "symmetric", (-127, 127)),
        (16, "affine", (-32768, 32767)),
        (16, "symmetric", (-32767, 32767)),
    ],
)
def test_limits_of_known_widths(bits, scheme, limits):
    assert linear.limits(bits, scheme) == limits


def test_symmetric_codes_of_a_known_tensor():
    found = linear.quantize(torch.tensor([-1.2, -0.4, 0.0, 2.0]), 3, "symmetric", "tensor")
    assert float(found.S) == pytest.approx(2 / 3)
    assert found.Q.tolist() == [-2, -1, 0, 3]


@pytest.mark.parametrize(("sign", "zero", "codes"), [(1, -8, [2, 7]), (-1, 7, [-3, -8])])
def test_an_affine_range_is_widened_to_hold_zero(sign, zero, codes):
    found = linear.quantize(sign * torch.tensor([1.0, 1.5]), 4, "affine", "tensor")
    assert float(found.S) == pytest.approx(0.1)
    assert int(found.Z) == zero
    assert found.Q.tolist() == codes


def test_affine_codes_of_a_known_tensor():
    found = linear.quantize(torch.tensor([-1.0, 0.0, 0.26, 0.5]), 4, "affine", "tensor")
    assert float(found.S) == pytest.approx(0.1)
    assert int(found.Z) == 2
    assert found.Q.tolist() == [-8, 2, 5, 7]


@pytest.mark.parametrize("bits", BITS)
def test_affine_uses_every_code_of_a_one_sided_range(bits):
    found = linear.quantize(torch.linspace(0, 1, 2**bits), bits, "affine", "tensor")
    assert found.Q.tolist() == list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_zeros_get_scale_one_and_code_zero(scheme, granularity):
    found = linear.quantize(torch.zeros(3, 4), 8, scheme, granularity)
    assert (found.S == 1).all()
    assert not found.Q.any()
    assert not found.Z.any()


def assert_equal_but_for_ties(found, reference, tensor):
    """Equal bit for bit, but where float32 arithmetic cannot tell on which side of a tie x is."""
    again = linear.dequantize(found)
    steps = (tensor.double() / along(found.S.double(), tensor)).frac().abs()
    tie = (steps - 0.5).abs() < 0.02
    assert tie.double().mean() < 0.1
    assert torch.equal(again[~tie], reference[~tie])
    difference = (again - reference).abs()
    assert (difference <= along(found.S, tensor) * 1.001).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_per_tensor_equals_torchs_fake_quantization(bits, scheme):
    tensor = weights() + 0.3
    found = linear.quantize(tensor, bits, scheme, "tensor")
    reference = torch.fake_quantize_per_tensor_affine(
        tensor, float(found.S), int(found.Z), *linear.limits(bits, scheme)
    )
    assert_equal_but_for_ties(found, reference, tensor)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_per_channel_equals_torchs_fake_quantization(bits, scheme):
    tensor = weights() * torch.logspace(-3, 2, 8).view(-1, 1, 1, 1) + 0.01
    found = linear.quantize(tensor, bits, scheme, "channel")
    reference = torch.fake_quantize_per_channel_affine(
        tensor, found.S, found.Z, 0, *linear.limits(bits, scheme)
    )
    assert_equal_but_for_ties(found, reference, tensor)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_eight_bit_codes_equal_those_of_torchs_quantized_tensors(scheme, granularity):
    tensor = weights() - 0.2
    found = linear.quantize(tensor, 8, scheme, granularity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if granularity == "tensor":
                reference = torch.quantize_per_tensor(
                    tensor, float(found.S), int(found.Z), torch.qint8
                )
            else:
                reference = torch.quantize_per_channel(tensor, found.S, found.Z, 0, torch.qint8)
        except (AttributeError, NotImplementedError) as error:
            pytest.skip(f"this torch has no quantized tensors: {error}")
    codes = reference.int_repr()
    assert codes.dtype == found.Q.dtype
    steps = (tensor.double() / along(found.S.double(), tensor)).frac().abs()
    tie = (steps - 0.5).abs() < 1e-3
    assert torch.equal(codes[~tie], found.Q[~tie])


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_error_on_uniform_data_is_that_of_theory(bits, scheme):
    tensor = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    error = linear.layer_error(tensor, linear.quantize(tensor, bits, scheme, "tensor"))
    assert error.ratio == pytest.approx(1, rel=0.05)
    lowest, highest = linear.limits(bits, scheme)
    assert error.theory == pytest.approx((2 / (highest - lowest)) ** 2 / 12, rel=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_eight_more_bits_divide_the_error_by_two_to_the_sixteen(scheme):
    tensor = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) * 2 - 1
    coarse, fine = (
        linear.mean_squared_error(tensor, linear.quantize(tensor, bits, scheme, "tensor"))
        for bits in (8, 16)
    )
    assert fine / coarse == pytest.approx(2**-16, rel=0.05)


def test_theory_is_the_mean_over_channels():
    found = linear.Quantized(
        torch.ones(2, 3, dtype=torch.int8), torch.tensor([0.5, 2.0]), torch.tensor([0, 0])
    )
    assert linear.theoretical_error(found) == pytest.approx((0.25 + 4) / 2 / 12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_theory_expects_no_error_of_zeros(scheme):
    tensor = torch.rand(4, 50, generator=torch.Generator().manual_seed(0)) * 2e-3 - 1e-3
    tensor[1] = 0
    found = linear.quantize(tensor, 8, scheme, "channel")
    # The channel of zeros has S = 1, a thousand times the others' ranges.
    assert linear.layer_error(tensor, found).ratio == pytest.approx(1, rel=0.3)
    for granularity in GRANULARITIES:
        found = linear.quantize(torch.zeros(2, 3), 8, scheme, granularity)
        error = linear.layer_error(torch.zeros(2, 3), found)
        assert (error.mse, error.theory, error.ratio) == (0, 0, None)


def test_a_layers_row_gives_ranges_and_error():
    tensor = torch.tensor([[0.0, 1.0], [-4.0, 0.0]])
    found = linear.quantize(tensor, 2, "affine", "channel")
    error = linear.layer_error(tensor, found)
    assert (error.scale_least, error.scale_most) == pytest.approx((1 / 3, 4 / 3))
    assert (error.zero_point_least, error.zero_point_most) == (-2, 1)
    assert error.mse == pytest.approx(0, abs=1e-12)
    assert error.theory == pytest.approx((1 / 9 + 16 / 9) / 2 / 12)


def test_more_bits_and_finer_granularity_lose_less():
    tensor = weights() * torch.logspace(-1, 1, 8).view(-1, 1, 1, 1)

    def error(bits, granularity):
        found = linear.quantize(tensor, bits, "symmetric", granularity)
        return linear.mean_squared_error(tensor, found)

    for bits in BITS[:-1]:
        assert error(bits + 1, "tensor") < error(bits, "tensor")
        assert error(bits, "channel") < error(bits, "tensor")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_values_that_are_not_finite_raise(bad, scheme, granularity):
    with pytest.raises(ValueError, match="infinite or undefined"):
        linear.quantize(torch.tensor([[1.0, bad]]), 8, scheme, granularity)


@pytest.mark.parametrize(
    ("bits", "scheme", "granularity", "word"),
    [
        (1, "affine", "tensor", "1 bits"),
        (17, "affine", "tensor", "17 bits"),
        (8, "logarithmic", "tensor", "logarithmic"),
        (8, "affine", "group", "group"),
    ],
)
def test_settings_that_are_not_there_raise(bits, scheme, granularity, word):
    with pytest.raises(ValueError, match=word):
        linear.quantize(torch.ones(2), bits, scheme, granularity)


def test_channels_last_weights_get_the_same_codes():
    tensor = weights()
    last = tensor.to(memory_format=torch.channels_last)
    for granularity in GRANULARITIES:
        first, second = (linear.quantize(one, 8, "affine", granularity) for one in (tensor, last))
        assert all(map(torch.equal, first, second))


@pytest.fixture(scope="module")
def model():
    return toys.lived_in(toys.convnet())


def test_every_prunable_weight_of_a_network_is_quantized(model):
    quantized = linear.quantize_weights(model, 8, "symmetric", "channel")
    assert list(quantized) == list(prunable.weights(model))
    assert all(parts.S.shape == parts.Q.shape[:1] for parts in quantized.values())


def test_with_weights_replaces_them_in_a_copy_and_leaves_the_rest(model):
    before = copy.deepcopy(model)
    quantized = linear.quantize_weights(model, 4, "affine", "tensor")
    coarse = linear.with_weights(model, quantized)
    assert toys.same_state(model, before)
    for name, tensor in coarse.state_dict().items():
        original = model.state_dict()[name]
        if name in quantized:
            assert torch.equal(tensor, linear.dequantize(quantized[name]))
            assert not torch.equal(tensor, original)
        else:
            assert torch.equal(tensor, original)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_quantizing_keeps_a_pruned_network_as_sparse(model, scheme, granularity):
    pruned = masks.masked(model, masks.global_(magnitude.scores(model), 0.7))
    quantized = linear.quantize_weights(pruned, 8, scheme, granularity)
    coarse = linear.with_weights(pruned, quantized)
    assert counting.nonzero_weights(coarse) <= counting.nonzero_weights(pruned)
    assert all(
        not weight[prunable.weights(pruned)[name] == 0].any()
        for name, weight in prunable.weights(coarse).items()
    )


@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_stored_network_comes_back_bit_for_bit(model, tmp_path, bits, scheme, granularity):
    quantized = linear.quantize_weights(model, bits, scheme, granularity)
    path = tmp_path / "model.safetensors"
    size = linear.save_model(path, model, quantized)
    assert size == path.stat().st_size
    loaded, parts = linear.load_model(path)
    assert toys.same_state(loaded, linear.with_weights(model, quantized))
    assert set(parts) == set(quantized)
    for name, stored in parts.items():
        for one, other in zip(stored, quantized[name], strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    assert not any(module.training for module in loaded.modules())


def test_the_same_codes_give_the_same_bytes(model, tmp_path):
    quantized = linear.quantize_weights(model, 8, "affine", "channel")
    contents = set()
    for order in (list(quantized), list(reversed(quantized))):
        path = tmp_path / "model.safetensors"
        linear.save_model(path, model, {name: quantized[name] for name in order})
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_eight_bits_take_a_quarter_and_sixteen_half_of_the_weights(tmp_path):
    model = toys.convnet(16)
    whole = checkpoints.serialized_bytes(model)
    weights_bytes = 4 * counting.prunable_weights(model)
    for bits, share in ((8, 1 / 4), (16, 1 / 2)):
        quantized = linear.quantize_weights(model, bits, "symmetric", "tensor")
        size = linear.save_model(tmp_path / "model.safetensors", model, quantized)
        assert whole - size == pytest.approx((1 - share) * weights_bytes, rel=0.02)


def test_a_smaller_network_is_stored_with_its_sizes(tmp_path):
    description = {
        "name": "convnet",
        "in_channels": 1,
        "channels": [2, 3, 4, 5, 6, 7],
        "hidden": 9,
        "classes": 3,
    }
    small = registry.build_seeded(description, 0)
    path = tmp_path / "small.safetensors"
    linear.save_model(path, small, linear.quantize_weights(small, 8, "symmetric", "tensor"))
    assert registry.architecture_of(linear.load_model(path)[0]) == description


def assert_refused(path):
    with pytest.raises(UserError) as caught:
        linear.load_model(path)
    assert str(path) in str(caught.value)
    assert "dvc repro" in str(caught.value)


@pytest.mark.parametrize("length", [0, 7, 8, 100, 1500, -1])
def test_a_torn_file_is_refused(model, tmp_path, length):
    path = tmp_path / "model.safetensors"
    quantized = linear.quantize_weights(model, 8, "affine", "tensor")
    linear.save_model(path, model, quantized)
    path.write_bytes(path.read_bytes()[:length])
    assert_refused(path)


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(tmp_path / "model.safetensors")


def test_a_float32_network_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoints.save_model(model, path)
    assert_refused(path)


@pytest.mark.parametrize(
    "header",
    [
        None,
        [],
        7,
        {},
        {"weights": ["conv1.weight"]},
        {"weights": 3, "architecture": registry.architecture("convnet", 4, 1, 3)},
        {"weights": ["conv9.weight"], "architecture": registry.architecture("convnet", 4, 1, 3)},
        {"weights": [], "architecture": registry.architecture("convnet", 4, 1, 3)},
        {"weights": ["conv1.weight"], "architecture": registry.architecture("convnet", 8, 1, 3)},
        {"weights": ["conv1.weight"], "architecture": None},
    ],
)
def test_a_header_that_does_not_fit_is_refused(model, tmp_path, header):
    path = tmp_path / "model.safetensors"
    quantized = linear.quantize_weights(model, 8, "affine", "tensor")
    chosen = {"conv1.weight": quantized["conv1.weight"]}
    stored = linear.tensors(model, chosen)
    checkpoints.save_tensors(path, stored, {linear.KEY: header})
    assert_refused(path)


@pytest.mark.parametrize(
    ("field", "other"),
    [("S", torch.ones(3)), ("Z", torch.zeros(3, dtype=torch.int32)), ("Q", torch.ones(2, 2))],
)
def test_parts_that_do_not_fit_each_other_are_refused(model, tmp_path, field, other):
    path = tmp_path / "model.safetensors"
    quantized = linear.quantize_weights(model, 8, "affine", "tensor")
    stored = linear.tensors(model, quantized) | {f"conv1.weight.{field}": other}
    header = {"architecture": registry.architecture_of(model), "weights": sorted(quantized)}
    checkpoints.save_tensors(path, stored, {linear.KEY: header})
    assert_refused(path)
