"""Equal pixels in two parts or with two labels are counted, and nothing else is."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core.paths import PARTS
from stages.lib.core.prepared import Part
from stages.lib.data import duplicates


def part(images):
    """images: (grey level, label) pairs."""
    levels, labels = zip(*images, strict=True)
    pixels = np.array(levels, np.uint8)[:, None, None, None].repeat(4, 3)
    return Part(pixels, np.array(labels))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1),
        min_size=3,
        max_size=3,
    )
)
def test_what_is_said_is_what_a_comparison_of_all_pairs_finds(images):
    said = duplicates.notes(dict(zip(PARTS, map(part, images), strict=True)))
    expected = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        levels = {level for level, _ in images[first]}
        shared = sum(level in levels for level, _ in images[second])
        if shared:
            expected.append(
                f"{shared} of {len(images[second])} {PARTS[second]} images have the same"
            )
    everything = [image for part in images for image in part]
    torn = sum(
        any(level == other and label != its for other, its in everything)
        for level, label in everything
    )
    if torn:
        expected.append(f"{torn} images have the same pixels as an image of another class")
    assert len(said) == len(expected)
    assert all(line.startswith(words) for line, words in zip(said, expected, strict=True))


def test_images_that_differ_in_one_pixel_are_no_duplicates():
    parts = {name: part([(index, 0)]) for index, name in enumerate(PARTS)}
    assert duplicates.notes(parts) == []
    parts["test"].images[:] = parts["train"].images
    parts["test"].images[0, 0, 0, 3] ^= 1
    assert duplicates.notes(parts) == []
    parts["test"].images[0, 0, 0, 3] ^= 1
    assert [line.split(":")[0] for line in duplicates.notes(parts)] == [
        "1 of 1 test images have the same pixels as images in train"
    ]
