"""Cutout, colours, noise, text and sound against NumPy, and every option of them."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.augment import (
    ColorJitter,
    Cutout,
    GaussianNoise,
    RandomAffine,
    RandomCropFlip,
    SpecAugment,
    TimeShift,
    TokenMask,
    WordDrop,
    drop_tokens,
    erase,
    recolor,
    shift_time,
    warp_time,
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Masks move with their images -----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_crops_and_flips_move_masks_with_images(mode):
    x = torch.randint(1, 9, (6, 1, 9, 7), generator=gen())
    y = x[:, 0].clone()
    images, masks = RandomCropFlip(3, 0.5, mode)(x.float(), y, gen(1))
    inside = masks != -100
    assert torch.equal(images[:, 0][inside].long(), masks[inside])
    assert (images[:, 0][~inside] == 0).all()
    assert bool((~inside).any()) is (mode == "constant")
    other = RandomCropFlip(3, 0.5, mask_fill=11)(x.float(), y, gen(1))[1]
    assert (mode != "constant") or torch.equal(other == 11, masks == -100)
    soft = torch.rand(6, 4, 9, 7)
    assert RandomCropFlip(3, 0.5, mode)(x.float(), soft, gen(1))[1].shape == soft.shape


@pytest.mark.parametrize("border", ["edge", "zeros", "reflect"])
def test_affine_moves_masks_by_the_nearest_pixel(border):
    x = torch.zeros(20, 1, 32, 40)
    x[:, :, 8:24, 10:30] = 7.0
    y = x[:, 0].long()
    images, masks = RandomAffine(degrees=30, shift=0.3, border=border)(x, y, gen())
    assert set(masks.unique().tolist()) <= {0, 7, -100}, "labels never blend"
    assert bool((masks == -100).any()) is (border == "zeros")
    sure = (images[:, 0] > 6.5) | (images[:, 0] < 0.5)
    close = torch.where(masks[sure] == -100, 0, masks[sure]) == images[:, 0][sure].round()
    assert close.float().mean() > 0.995
    if border == "zeros":
        filled = RandomAffine(degrees=30, shift=0.3, border=border, mask_fill=3)(x, y, gen())[1]
        assert torch.equal(filled == 3, masks == -100)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCropFlip()(torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8).byte()),
         "cannot hold mask_fill=-100"),
        (lambda: RandomCropFlip(mode="edge", mask_fill=1), "mask_fill=1 has no effect"),
        (lambda: RandomAffine(mask_fill=1), "mask_fill=1 has no effect"),
        (lambda: RandomAffine()(torch.rand(2, 1, 8, 8), torch.zeros(2, 4, 4)), "resize them first"),
        (lambda: Cutout(size=0), "size must be a whole number >= 1, got 0"),
        (lambda: Cutout(holes=1.5), "holes must be a whole number >= 1, got 1.5"),
        (lambda: ColorJitter(hue=0.6), "hue .* at most 0.5, got 0.6"),
        (lambda: ColorJitter(brightness=-1), "brightness is a largest amount"),
        (lambda: ColorJitter()(torch.rand(2, 1, 8, 8)), "give saturation=0 and hue=0"),
        (lambda: ColorJitter()(torch.zeros(2, 3, 8, 8).byte()), "floating-point images"),
        (lambda: GaussianNoise(std=-1), "std is a largest amount"),
        (lambda: GaussianNoise()(torch.zeros(3, dtype=torch.long)), "floating-point samples"),
        (lambda: TokenMask(1, random=0.6, unchanged=0.6, vocabulary=9), "sum must be at most 1"),
        (lambda: TokenMask(1, random=0.1), "vocabulary go together"),
        (lambda: TokenMask(1, vocabulary=9), "vocabulary go together"),
        (lambda: TokenMask(1)(torch.rand(2, 3)), r"token indices of shape \(N, T\)"),
        (lambda: WordDrop()(torch.zeros(2, 3, 4).long()), r"token indices of shape \(N, T\)"),
        (lambda: SpecAugment()(torch.rand(2, 20, 50)), "freq_width=27 is wider than all 20"),
        (lambda: SpecAugment(freq_masks=0, warp=9)(torch.rand(2, 4, 18)), "more than 18 frames"),
        (lambda: SpecAugment()(torch.rand(2, 20)), r"\(N, F, T\) or"),
        (lambda: TimeShift(label_fill=3), "has no effect without frames"),
        (lambda: TimeShift(frames=True)(torch.rand(2, 9), torch.zeros(2, 8)), "N=2 and T=9, got"),
        (lambda: TimeShift()(torch.rand(9)), r"\(N, ..., T\), got \(9,\)"),
    ],
)  # fmt: skip
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Values ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 9), holes=st.integers(1, 3), seed=st.integers(0, 99))
def test_cutout_blanks_squares_cut_off_at_the_border(size, holes, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((4, 2, 6, 8)).astype(np.float32)
    at = np.stack([rng.integers(-1, 6, (4, holes)), rng.integers(0, 8, (4, holes))], -1)
    wanted = x.copy()
    for i in range(4):
        for r, c in at[i]:
            if r >= 0:
                top, left = r - size // 2, c - size // 2
                wanted[i, :, max(top, 0) : top + size, max(left, 0) : left + size] = 0.5
    out = erase(torch.from_numpy(x), torch.from_numpy(at), size, 0.5)
    np.testing.assert_array_equal(out.numpy(), wanted)


def test_cutouts_options():
    x = torch.ones(2000, 1, 16, 16)
    lost = [1 - Cutout(4, holes)(x, None, gen())[0].mean().item() for holes in (1, 3)]
    # A side of 4 around a uniform centre keeps (16 * 4 - 2 - 1 - 1) / 16 pixels inside.
    assert lost[0] == pytest.approx((61 / 16 / 16) ** 2, rel=0.03)
    assert lost[1] > 2.5 * lost[0]
    assert Cutout(4, fill=9.0)(x[:9], None, gen())[0].max() == 9.0


def test_colours_by_their_definitions():
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=gen())
    one, zero = torch.ones(2), torch.zeros(2)
    gray = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    light = torch.einsum("nchw,c->nhw", x, gray)[:, None]
    two = torch.full((2,), 2.0)
    same = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(recolor(x, one, one, one, zero), x, **same)
    torch.testing.assert_close(recolor(x, two, one, one, zero), 2 * x, **same)
    mean = light.mean((2, 3), keepdim=True)
    torch.testing.assert_close(recolor(x, one, two, one, zero), 2 * x - mean, **same)
    torch.testing.assert_close(recolor(x, one, one, zero, zero), light.expand_as(x), **same)
    turned = recolor(x, one, one, one, torch.full((2,), 0.25))
    torch.testing.assert_close(torch.einsum("nchw,c->nhw", turned, gray)[:, None], light, **same)
    back = recolor(turned, one, one, one, torch.full((2,), -0.25))
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)
    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
    third = recolor(red, one[:1], one[:1], one[:1], torch.full((1,), 1 / 3))
    hue = colorsys.rgb_to_hsv(*third.flatten().tolist())[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.1, "a third of a turn changes red's name"
    flat = recolor(x[:, :1], two, two, one, zero)
    torch.testing.assert_close(flat, 4 * x[:, :1] - 2 * x[:, :1].mean((1, 2, 3), True), **same)


def test_colour_jitters_options():
    x = 0.5 + 0.2 * torch.rand(500, 3, 4, 4, generator=gen())
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    assert torch.allclose(ColorJitter(**still)(x, None, gen())[0], x, atol=1e-6)
    out, _ = ColorJitter(**{**still, "brightness": 0.3})(x, None, gen())
    factor = (out / x).flatten(1)
    assert factor.std(1).max() < 1e-5
    assert (factor[:, 0].min() < 0.72) & (factor[:, 0].max() > 1.28)
    assert factor.min() >= 0.7 - 1e-5
    for name in ("contrast", "saturation", "hue"):
        assert not torch.allclose(ColorJitter(**{**still, name: 0.3})(x, None, gen())[0], x)
    wild, kept = (ColorJitter(3.0, clip=c)(x, None, gen())[0] for c in (False, True))
    assert wild.max() > 1.5
    torch.testing.assert_close(wild.clamp(0, 1), kept)


def test_noise_has_its_deviation():
    x = torch.zeros(300, 400)
    assert GaussianNoise(0.3)(x, None, gen())[0].std().item() == pytest.approx(0.3, rel=0.01)
    each = GaussianNoise(0.3, random=True)(x, None, gen())[0].std(1)
    assert each.mean().item() == pytest.approx(0.15, rel=0.1)
    assert each.max() < 0.33


# --- Text -----------------------------------------------------------------------------------------


def test_masked_tokens_follow_berts_shares():
    x = torch.randint(0, 1000, (400, 100), generator=gen())
    hide = TokenMask(1000, 0.15, (0, 1), 0.1, 0.2, 1000, "tokens")
    out, y = hide(x, None, gen())
    picked = y != -100
    assert torch.equal(y[picked], x[picked])
    assert torch.equal(out[~picked], x[~picked])
    assert picked.float().mean().item() == pytest.approx(0.15 * 0.998, abs=0.006)
    assert not bool(((x < 2) & picked).any()), "special tokens are never chosen"
    became = out[picked]
    assert (became == 1000).float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert (became == x[picked]).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert not torch.equal(TokenMask(1000, 0.15, ())(x, None, gen())[0] == 1000, out == 1000)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_dropped_tokens_leave_no_gaps(rows):
    dropped = torch.tensor(rows)
    x = torch.arange(1, dropped.numel() + 1).view(dropped.shape)
    out = drop_tokens(x, dropped, 0).tolist()
    for got, tokens, gone in zip(out, x.tolist(), rows, strict=True):
        left = [t for t, g in zip(tokens, gone, strict=True) if not g]
        assert got == left + [0] * (6 - len(left))


def test_word_drops_options():
    x = torch.randint(2, 99, (300, 40), generator=gen())
    x[:, 0], x[:, 30:] = 1, 0
    labels = torch.where(x > 0, x * 10, -100)
    out, moved = WordDrop(0.3, special=(1,))(x, labels, gen())
    kept = (out > 1).sum(1).float()
    assert kept.mean().item() == pytest.approx(0.7 * 29, rel=0.03)
    assert (out[:, 0] == 1).all(), "special tokens stay"
    assert torch.equal(moved, torch.where(out > 0, out * 10, -100)), "labels move with tokens"
    alone, _ = WordDrop(1.0, special=(1,))(x, None, gen())
    assert ((alone > 1).sum(1) == 1).all(), "one word stays"
    other, filled = WordDrop(0.3, pad_id=7, label_fill=-1)(x, labels, gen())
    assert (other == 7).any()
    assert (filled == -1).any()


# --- Sound ----------------------------------------------------------------------------------------


def test_spectrogram_masks_are_bands_and_stretches():
    x = torch.ones(400, 40, 100)
    out, _ = SpecAugment(1, 10, 0, 0)(x, None, gen())
    rows = (out == 0).all(2)
    assert torch.equal((out == 0).any(2), rows), "bands reach over all frames"
    assert rows.sum(1).max() == 10
    assert rows.sum(1).float().mean().item() == pytest.approx(5, abs=0.4)
    assert ((rows[:, 1:] & ~rows[:, :-1]).sum(1) + rows[:, 0] <= 1).all(), "one band each"
    out, _ = SpecAugment(0, 0, 1, 100, 0.3)(x, None, gen())
    columns = (out == 0).all(1)
    assert columns.sum(1).max() == 30, "time_share bounds the stretch"
    assert (SpecAugment(0, 0, 1, 12)(x, None, gen())[0] == 0).all(1).sum(1).max() == 12
    several = SpecAugment(3, 10, 0, 0)(x, None, gen())[0]
    assert (several == 0).float().mean() > 2 * 5 / 40
    ramp = torch.rand(5, 2, 40, 100, generator=gen())
    mean = SpecAugment(1, 20, 1, 50, fill="mean")(ramp, None, gen())[0]
    zero = SpecAugment(1, 20, 1, 50)(ramp, None, gen())[0]
    hidden = zero == 0
    wanted = ramp.mean((1, 2, 3), keepdim=True).expand_as(ramp)
    torch.testing.assert_close(mean[hidden], wanted[hidden])


def test_warped_time_runs_through_its_point():
    x = torch.arange(101.0).expand(2, 3, 101)
    out = warp_time(x, torch.tensor([40.0, 60.0]), torch.tensor([50.0, 55.0]))
    for row, c, m in ((out[0, 1], 40, 50.0), (out[1, 2], 60, 55.0)):
        assert row[0] == 0
        assert row[-1] == 100
        assert row[c].item() == pytest.approx(m, abs=1e-4)
        wanted = np.interp(np.arange(101), [0, c, 100], [0, m, 100])
        np.testing.assert_allclose(row.numpy(), wanted, atol=1e-3)
    free = SpecAugment(0, 0, 0, 0, warp=10)(x, None, gen())[0]
    assert (free.diff(dim=-1) >= 0).all(), "time never runs back"
    assert (free - x).abs().max() <= 10.01
    assert (free - x).abs().max() > 0.5


@pytest.mark.parametrize("fill", ["zeros", "edge", "roll"])
def test_shifts_equal_numpy(fill):
    x = np.arange(1, 15).reshape(2, 7)
    steps = [2, -3]
    out = shift_time(torch.from_numpy(x), torch.tensor(steps), fill).numpy()
    for row, got, s in zip(x, out, steps, strict=True):
        mode = {"zeros": "constant", "edge": "edge", "roll": "wrap"}[fill]
        np.testing.assert_array_equal(got, np.pad(row, 7, mode=mode)[7 - s : 14 - s])


def test_time_shifts_options():
    x = torch.arange(1.0, 21.0).expand(500, 20)
    out, y = TimeShift(0.25, frames=True)(x, x.long(), gen())
    moved = out.argmax(1) - 19
    assert torch.equal(y.clamp_min(0), out.long()), "labels of steps move with them"
    assert (y == -100).any()
    assert moved.min() == -5
    assert len(out[:, 10].unique()) == 11, "every shift from -5 to 5"
    other = TimeShift(0.25, frames=True, label_fill=-1)(x, x.long(), gen())[1]
    assert torch.equal(other == -1, y == -100)
    assert (TimeShift(0.25, "roll")(x, None, gen())[0].sum(1) == 210).all()
