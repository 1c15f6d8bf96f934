from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.evaluation import images as augmentation
from stages.lib.evaluation.images import fixed_normalize
from tests import toys


def random_images(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def augmented(images, shift=0, mirror=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    moves = augmentation.moves(len(images), shift=shift, mirror=mirror, generator=generator)
    return augmentation.moved(images, moves)


def moved(image, down, right):
    """The image moved pixel by pixel, its edge repeated."""
    _, height, width = image.shape
    result = torch.empty_like(image)
    for row, column in product(range(height), range(width)):
        source_row = min(max(row - down, 0), height - 1)
        source_column = min(max(column - right, 0), width - 1)
        result[:, row, column] = image[:, source_row, source_column]
    return result


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_images_are_moved_and_mirrored_in_every_allowed_way_about_equally_often(shift, mirror):
    image = random_images(1, 3, 4, 5)
    steps = range(-shift, shift + 1)
    candidates = [moved(image[0], *by) for by in product(steps, repeat=2)]
    candidates += [candidate.flip(2) for candidate in candidates] if mirror else []
    expected = 200
    found = augmented(image.expand(expected * len(candidates), -1, -1, -1), shift, mirror)
    counts = [int((found == candidate).flatten(1).all(1).sum()) for candidate in candidates]
    assert sum(counts) == len(found)
    assert all(abs(count - expected) < 80 for count in counts)


def test_the_generator_decides_alone_and_the_input_is_not_changed():
    images = random_images(30, 3, 4, 5)
    before = images.clone()
    torch.manual_seed(1)
    first = augmented(images, 2, mirror=True, seed=5)
    torch.manual_seed(2)
    assert torch.equal(augmented(images, 2, mirror=True, seed=5), first)
    assert not torch.equal(augmented(images, 2, mirror=True, seed=6), first)
    assert torch.equal(augmented(images), images)
    assert torch.equal(images, before)


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 8),
    st.booleans(),
    st.sampled_from([torch.uint8, torch.float32]),
)
@toys.few_examples
def test_shape_and_dtype_are_kept_and_no_colour_is_invented(shape, shift, mirror, dtype):
    images = random_images(*shape).to(dtype)
    found = augmented(images, shift, mirror)
    assert found.shape == images.shape
    assert found.dtype == dtype
    for before, after in zip(images, found, strict=True):
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())


@pytest.mark.parametrize(
    ("name", "channels", "black", "white"),
    [
        ("half", 1, [-1], [1]),
        ("none", 3, [0, 0, 0], [1, 1, 1]),
        # The published constants, and their means over the colours.
        (
            "imagenet",
            3,
            [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
            [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225],
        ),
        ("imagenet", 1, [-0.449 / 0.226], [0.551 / 0.226]),
    ],
)
def test_fixed_normalizations_of_black_and_white(name, channels, black, white):
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(-1, channels, 2, 2)
    found = fixed_normalize(name, channels, torch.device("cpu"))(images)
    assert found.shape == images.shape
    expected = torch.tensor([black, white], dtype=torch.float32)
    torch.testing.assert_close(found[..., 0, 0], expected, rtol=1e-5, atol=1e-6)
