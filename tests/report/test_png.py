import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from brickyard.report.png import data_uri, encode_png, shrink

SIDES = st.integers(1, 24)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.just(3)))


@settings(max_examples=80, deadline=None)
@given(SHAPES.flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_pillow_reads_back_every_pixel(image):
    read = Image.open(io.BytesIO(encode_png(image)))
    assert read.mode == ("L" if image.ndim == 2 else "RGB")
    assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize("axis", [0, 1])
def test_smooth_images_are_filtered_to_a_fraction(axis):
    steps = np.random.default_rng(0).integers(0, 256, 64)
    slopes = np.arange(64)
    image = (steps[None, :] + slopes[:, None]).astype(np.uint8)  # every row differs by one
    image = image if axis else image.T
    assert len(encode_png(image)) < 0.2 * image.size


def test_a_last_axis_of_one_is_grey():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert encode_png(image) == encode_png(image[..., 0])


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8),
            np.zeros((0, 2), np.uint8)],
)  # fmt: skip
def test_other_shapes_and_types_are_refused(bad):
    with pytest.raises(ValueError, match="must"):
        encode_png(bad)


def test_shrink_averages_whole_blocks_and_bounds_the_size():
    image = np.zeros((400, 300, 3), np.uint8)
    image[::2] = 200
    small = shrink(image, 100)
    assert small.shape == (100, 75, 3)
    assert (small == 100).all()
    assert shrink(image, 400) is image
    assert max(shrink(np.zeros((5000, 1), np.uint8), 100).shape) <= 100


def test_data_uri_holds_the_png():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == encode_png(image)
