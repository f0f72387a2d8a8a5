"""Image augmentation: per-sample randomness, statistics, identities, exact moves."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.augment import RandomAffine, RandomCropFlip
from brickyard.catalog import shelf


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=2, h=9, w=7):
    return torch.rand(n, c, h, w, generator=gen(1))


CARDS = [pytest.param(card, id=card.key) for card in shelf("augmentation")
         if card.source == "brickyard/augment/image"]  # fmt: skip


@pytest.mark.parametrize("card", CARDS)
def test_contract_of_image_transforms(card):
    transform = card.load()()
    x, y = images(), torch.arange(6)
    before = x.clone()
    out, same = transform(x, y, gen())
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert same is y, "the targets are the trainer's"
    assert torch.equal(x, before), "the input was changed in place"
    again, _ = transform(x, y, gen())
    assert torch.equal(out, again), "the generator is the only source of randomness"
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    transform(x, y, gen())
    assert torch.equal(torch.rand(1), first), "torch's default generator was used"
    other, _ = transform(x, y, gen(5))
    assert not torch.equal(out, other)
    twins, _ = transform(x[:1].expand(6, -1, -1, -1), y, gen())
    assert len({t.numpy().tobytes() for t in twins}) > 1, "all samples moved alike"
    names = list(inspect.signature(transform.__call__).parameters)
    assert names == ["x", "y", "generator"]
    assert type(transform).__name__ in repr(transform)


@pytest.mark.parametrize("card", CARDS)
def test_without_a_generator_the_default_one_serves(card):
    torch.manual_seed(3)
    first, _ = card.load()()(images())
    torch.manual_seed(3)
    assert torch.equal(first, card.load()()(images())[0])


@pytest.mark.parametrize("transform", [RandomCropFlip(), RandomAffine()])
def test_only_batches_of_images_are_taken(transform):
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(3, 8, 8\)"):
        transform(torch.zeros(3, 8, 8))


def crop_flip(x, padding, mode, fill, generator):
    """Return the same moves made one image at a time with NumPy."""
    n, _, h, w = x.shape
    top = torch.randint(2 * padding + 1, (n,), generator=generator).numpy()
    left = torch.randint(2 * padding + 1, (n,), generator=generator).numpy()
    mirrored = torch.rand(n, generator=generator).numpy() < 0.5
    how = {"constant": {"constant_values": fill}}.get(mode, {})
    out = []
    for i, image in enumerate(x.numpy()):
        wide = np.pad(image, ((0, 0), (padding,) * 2, (padding,) * 2), mode=mode, **how)
        crop = wide[:, top[i] : top[i] + h, left[i] : left[i] + w]
        out.append(crop[:, :, ::-1] if mirrored[i] else crop)
    return np.stack(out)


@settings(max_examples=40, deadline=None)
@given(
    padding=st.integers(0, 4),
    mode=st.sampled_from(["constant", "edge", "reflect"]),
    fill=st.sampled_from([0.0, -1.5]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(5, 9), st.integers(5, 9)),
    seed=st.integers(0, 99),
)
def test_crop_flip_equals_numpy_one_image_at_a_time(padding, mode, fill, shape, seed):
    fill = fill if mode == "constant" else 0.0
    x = torch.rand(shape, generator=gen(seed))
    out, _ = RandomCropFlip(padding, 0.5, mode, fill)(x, None, gen(seed))
    np.testing.assert_array_equal(out.numpy(), crop_flip(x, padding, mode, fill, gen(seed)))


def test_no_padding_and_no_flip_change_nothing():
    x = images()
    assert torch.equal(RandomCropFlip(padding=0, flip=0.0)(x, None, gen())[0], x)
    assert torch.equal(RandomCropFlip(padding=0, flip=1.0)(x, None, gen())[0], x.flip(3))


def test_flips_come_at_their_rate_and_shifts_are_even():
    n, x = 20_000, torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 1] = 1.0
    flipped, _ = RandomCropFlip(padding=0, flip=0.3)(x.expand(n, -1, -1, -1), None, gen())
    assert flipped[:, 0, 2, 3].mean().item() == pytest.approx(0.3, abs=0.015)
    moved, _ = RandomCropFlip(padding=1, flip=0.0)(x.expand(n, -1, -1, -1), None, gen())
    share = moved.mean(0)[0]
    np.testing.assert_allclose(share[1:4, 0:3].numpy(), 1 / 9, atol=0.012)
    assert share[1:4, 0:3].sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": -1}, "padding must be a whole number of pixels >= 0, got -1"),
        ({"padding": 1.5}, "padding must be a whole number of pixels >= 0, got 1.5"),
        ({"flip": 1.2}, r"flip is a probability .* got 1.2"),
        ({"mode": "wrap"}, "mode must be one of constant, edge, reflect, got 'wrap'"),
        ({"mode": "edge", "fill": 1.0}, "fill=1.0 has no effect with mode='edge'"),
    ],
)
def test_crop_flip_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        RandomCropFlip(**options)


def test_reflection_needs_room():
    with pytest.raises(ValueError, match="padding below the image's sides, got padding=4"):
        RandomCropFlip(padding=4, mode="reflect")(torch.zeros(1, 1, 4, 4))


STILL = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def test_an_affine_of_zero_amounts_is_the_identity():
    x = images().double()
    torch.testing.assert_close(RandomAffine(**STILL)(x, None, gen())[0], x, rtol=0, atol=1e-6)


def spot(h=41, w=61, row=12, column=40):
    """Return one smooth spot; its centre of mass is at ``(row, column)``."""
    r, c = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.exp(-((r - row) ** 2 + (c - column) ** 2) / 8.0).double()[None, None]


def centre(image):
    """Return the centre of mass (right and down of the middle, in pixels) and the mass."""
    h, w = image.shape[-2:]
    r = torch.arange(h) - (h - 1) / 2
    c = torch.arange(w) - (w - 1) / 2
    mass = image.sum((1, 2, 3))
    right = (image.sum((1, 2)) * c).sum(1) / mass
    down = (image.sum((1, 3)) * r).sum(1) / mass
    return right.numpy(), down.numpy(), mass.numpy()


def moved(n=200, **options):
    out, _ = RandomAffine(**{**STILL, **options})(spot().expand(n, -1, -1, -1), None, gen())
    return centre(out), [float(v[0]) for v in centre(spot())]


def test_turning_keeps_distances_on_images_that_are_not_square():
    (right, down, mass), (right0, down0, mass0) = moved(degrees=20)
    np.testing.assert_allclose(np.hypot(right, down), np.hypot(right0, down0), rtol=2e-3)
    np.testing.assert_allclose(mass, mass0, rtol=2e-3)
    angle = np.degrees(np.arctan2(down, right) - np.arctan2(down0, right0))
    assert np.abs(angle).max() <= 20.1
    assert np.abs(angle).max() > 18
    assert abs(angle.mean()) < 2


def test_scaling_is_the_same_in_both_directions():
    (right, down, mass), (right0, down0, mass0) = moved(scale=0.25)
    factor = right / right0
    np.testing.assert_allclose(down / down0, factor, rtol=5e-3)
    np.testing.assert_allclose(mass / mass0, factor**2, rtol=3e-2)
    assert factor.min() >= 1 / 1.25 - 1e-3
    assert factor.max() <= 1.25 + 1e-3
    assert factor.max() - factor.min() > 0.35
    assert abs(np.log(factor).mean()) < 0.03


def test_shear_slants_by_the_height():
    (right, down, _), (right0, down0, _) = moved(shear=0.2)
    np.testing.assert_allclose(down, down0, atol=0.01)
    slant = (right - right0) / down0
    assert np.abs(slant).max() <= 0.2 + 1e-3
    assert np.abs(slant).max() > 0.17
    assert abs(slant.mean()) < 0.03


def test_shifts_are_fractions_of_the_side_and_of_mean_zero():
    (right, down, _), (right0, down0, _) = moved(n=2000, shift=0.1)
    for offset, side in [(right - right0, 61), (down - down0, 41)]:
        assert np.abs(offset).max() <= 0.1 * side + 1e-3
        assert np.abs(offset).max() > 0.095 * side
        assert abs(offset.mean()) < 4 * 0.1 * side / math.sqrt(3 * 2000)
    assert abs(np.corrcoef(right, down)[0, 1]) < 0.1


def test_border_says_what_lies_outside():
    x = torch.ones(50, 1, 8, 8)
    assert torch.allclose(RandomAffine(shift=0.3)(x, None, gen())[0], x)
    assert RandomAffine(shift=0.3, border="zeros")(x, None, gen())[0].min() == 0
    ramp = torch.arange(8.0).expand(50, 1, 8, 8)
    edge, reflect = (
        RandomAffine(shift=0.3, border=b)(ramp, None, gen())[0] for b in ("edge", "reflect")
    )
    assert not torch.allclose(edge, reflect)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degrees": -1}, "degrees is a largest amount and must be >= 0, got -1"),
        ({"scale": math.nan}, "scale is a largest amount"),
        ({"shear": -0.1}, "shear is a largest amount"),
        ({"shift": math.inf}, "shift is a largest amount"),
        ({"border": "wrap"}, "border must be one of edge, zeros, reflect, got 'wrap'"),
    ],
)
def test_affine_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        RandomAffine(**options)


def test_affine_resamples_floats_alone():
    with pytest.raises(ValueError, match=r"floating-point images, got torch\.uint8"):
        RandomAffine()(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
