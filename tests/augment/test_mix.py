"""Mixup, CutMix and manifold mixup against their formulas, and the targets that losses take."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brickyard import losses
from brickyard.augment import (
    CutMix,
    ManifoldMixup,
    Mixup,
    Pairs,
    _native,
    blend_targets,
    cutmix,
    mixed_loss,
    mixup,
)
from brickyard.augment.base import seeded
from brickyard.augment.blend import _paste


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 6), shift=st.integers(0, 7), seed=st.integers(0, 99))
def test_mixup_is_its_formula(n, shift, seed):
    rng = np.random.default_rng(seed)
    x, y, w = rng.random((n, 2, 3)), rng.integers(0, 3, n), rng.random(n)
    out, soft = mixup(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(w), shift, 3)
    partner = (np.arange(n) - shift) % n
    np.testing.assert_allclose(
        out.numpy(), w[:, None, None] * x + (1 - w)[:, None, None] * x[partner], rtol=1e-12
    )
    hot = np.eye(3)
    wanted = w[:, None] * hot[y] + (1 - w)[:, None] * hot[y[partner]]
    np.testing.assert_allclose(soft.numpy(), wanted, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 5), shift=st.integers(0, 6), seed=st.integers(0, 99))
def test_cutmix_is_its_formula_on_both_paths(n, shift, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.random((n, 2, 5, 7)).astype(np.float32), rng.integers(0, 3, n)
    masks = rng.integers(0, 9, (n, 5, 7))
    low, high = rng.integers(0, 3, (n, 2)), rng.integers(0, 5, (n, 2))
    boxes = np.stack([low[:, 0], low[:, 0] + high[:, 0] % 3, low[:, 1], low[:, 1] + high[:, 1]], 1)
    wanted, cut, w = x.copy(), masks.copy(), np.ones(n)
    for i, (a, b, c, d) in enumerate(boxes):
        j = (i - shift) % n
        wanted[i, :, a:b, c:d], cut[i, a:b, c:d] = x[j, :, a:b, c:d], masks[j, a:b, c:d]
        w[i] = 1 - (b - a) * (d - c) / 35
    t, box = torch.from_numpy, torch.from_numpy(boxes)
    out, soft = cutmix(t(x), t(y), box, shift, 3)
    np.testing.assert_array_equal(out.numpy(), wanted)
    partner = (np.arange(n) - shift) % n
    hot = np.eye(3)
    hard = w[:, None] * hot[y] + (1 - w)[:, None] * hot[y[partner]]
    np.testing.assert_allclose(soft.numpy(), hard, atol=1e-6)
    np.testing.assert_array_equal(cutmix(t(x), t(masks), box, shift)[1].numpy(), cut)
    other = cutmix(t(x).requires_grad_(), t(y), box, shift, 3)[0]  # as on an accelerator
    np.testing.assert_array_equal(other.detach().numpy(), wanted)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 5),
    shift=st.integers(0, 6),
    seed=st.integers(0, 99),
    kind=st.sampled_from([torch.uint8, torch.bfloat16, torch.float32, torch.float64]),
)
def test_every_way_to_paste_is_the_same(n, shift, seed, kind):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(0, 200, (n, 3, 5, 4))).to(kind)
    for count in (1, n):
        ends = [np.sort(rng.integers(0, side + 1, (count, 2))) for side in (5, 4)]
        boxes = torch.from_numpy(np.concatenate(ends, 1))
        own = _paste(x, boxes, shift)
        last = x.contiguous(memory_format=torch.channels_last)  # which the kernel does not take
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_native, "usable", lambda x: False)
            assert torch.equal(own, _paste(x, boxes, shift))
        assert torch.equal(own, _paste(last, boxes, shift))


def test_without_a_compiler_boxes_are_pasted_in_torch(monkeypatch):
    monkeypatch.setenv("BRICKYARD_CC", "")
    _native._library.cache_clear()
    try:
        assert not _native.usable(torch.rand(2, 1, 4, 4))
        out = CutMix()(torch.rand(4, 1, 8, 8), None, gen())[0]
    finally:
        _native._library.cache_clear()
    assert out.shape == (4, 1, 8, 8)


def test_weights_are_beta_and_partners_even():
    n = 4000
    for alpha, variance in ((0.2, 1 / (4 * 1.4)), (1.0, 1 / 12), (3.0, 1 / 28)):
        w, _ = Mixup(alpha)._draw(n, seeded(gen()))
        assert w.mean() == pytest.approx(0.5, abs=0.02)
        assert w.var() == pytest.approx(variance, rel=0.08)
        assert len(np.unique(w)) > n // 2 or alpha < 1
    shifts = [Mixup()._draw(5, seeded(gen(s)))[1] for s in range(800)]
    assert np.bincount(shifts).tolist()[0] == 0, "nobody is his own partner"
    np.testing.assert_allclose(np.bincount(shifts)[1:] / 800, 0.25, atol=0.05)
    tiny, _ = Mixup(1e-4)._draw(n, seeded(gen()))
    assert np.isfinite(tiny).all()
    assert set(tiny.round().tolist()) == {0.0, 1.0}


def test_one_weight_for_the_batch():
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6)
    for kind in (Mixup, CutMix):
        pairs = kind(alpha=1.0, per="batch", targets="pairs")(x, y, gen(2))[1]
        assert len(pairs.weight.unique()) == 1
        assert len(kind(alpha=1.0, targets="pairs")(x, y, gen(2))[1].weight.unique()) > 3


def test_alpha_zero_mixes_nothing():
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6)
    for kind in (Mixup, CutMix):
        out, soft = kind(alpha=0.0, classes=6)(x, y, gen())
        assert torch.equal(out, x)
        assert torch.equal(soft, torch.eye(6))


def test_boxes_have_the_papers_areas_before_the_border_cuts_them():
    x = torch.zeros(3000, 1, 64, 64)
    transform = CutMix(alpha=1.0, targets="pairs")
    pairs = transform(x, torch.arange(3000), gen())[1]
    lost = 1 - pairs.weight
    # E[1 - w] is 1/2, and the border cuts off: for a share s of a side at a uniform centre,
    # the inside is s - s^2/4 a side, so the mean area is E[(s - s^2/4)^2] with s^2 ~ U(0, 1).
    s2 = np.linspace(0, 1, 100_001)
    s = np.sqrt(s2)
    assert lost.mean().item() == pytest.approx(((s - s2 / 4) ** 2).mean(), abs=0.02)
    assert lost.min() >= 0
    assert lost.max() <= 1


def test_targets_of_every_form():
    w = torch.tensor([0.75, 1.0])
    regression = torch.tensor([[4.0], [8.0]])
    assert blend_targets(regression, w, 1).tolist() == [[5.0], [8.0]]
    yes_no = blend_targets(torch.tensor([1, 0]), w, 1, classes=1)
    assert yes_no.tolist() == [0.75, 0.0]
    masks = torch.tensor([[[0, 1]], [[-100, 1]]])
    soft = blend_targets(masks, w, 1, classes=2)
    assert soft.shape == (2, 2, 1, 2)
    assert soft[0, :, 0].tolist() == [[0.75, 0.0], [0.0, 1.0]], "what is ignored costs nothing"
    assert soft[1, :, 0].tolist() == [[0.0, 0.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match="needs the number of classes"):
        blend_targets(torch.tensor([0, 1]), w, 1)
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\), .* got 5"):
        blend_targets(torch.tensor([0, 5]), w, 1, classes=2)
    twice = Mixup(1.0, classes=3)(*CutMix(classes=3)(torch.rand(4, 1, 6, 6), torch.arange(4) % 3,
                                                     gen()), gen(1))[1]  # fmt: skip
    torch.testing.assert_close(twice.sum(1), torch.ones(4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_pairs_and_the_paper_agree_under_cross_entropy(smoothing):
    logits, y = torch.randn(6, 4, generator=gen()), torch.arange(6) % 4
    w, shift = torch.rand(6, generator=gen(1)), 2
    soft = blend_targets(y, w, shift, 4)
    each = losses.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
    wanted = (w * each(logits, y) + (1 - w) * each(logits, y.roll(shift))).mean()
    mean = losses.CrossEntropyLoss(label_smoothing=smoothing)
    torch.testing.assert_close(mean(logits, soft), wanted)
    pairs = Pairs(y, y.roll(shift), w)
    torch.testing.assert_close(mixed_loss(each, logits, pairs), wanted)
    focal = losses.FocalLoss(reduction="none")
    direct = (w * focal(logits, y) + (1 - w) * focal(logits, y.roll(shift))).mean()
    torch.testing.assert_close(mixed_loss(focal, logits, pairs), direct)
    with pytest.raises(ValueError, match='take reduction="none"'):
        mixed_loss(mean, logits, pairs)
    same = Pairs(y, y.roll(shift), torch.full((6,), 0.3))
    torch.testing.assert_close(mixed_loss(mean, logits, same), mixed_loss(each, logits, same))
    binary, logit = losses.BCEWithLogitsLoss(), logits[:, :1]
    half = blend_targets(y % 2, w, shift, 1)[:, None]
    each = losses.BCEWithLogitsLoss(reduction="none")
    parts = w[:, None] * each(logit, y[:, None] % 2) + (1 - w)[:, None] * each(
        logit, y.roll(shift)[:, None] % 2)  # fmt: skip
    torch.testing.assert_close(binary(logit, half), parts.mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(alpha=-1), "alpha must be a number >= 0"),
        (lambda: Mixup(alpha=float("nan")), "alpha must be a number >= 0"),
        (lambda: CutMix(per="pixel"), "per must be one of sample, batch, got 'pixel'"),
        (lambda: CutMix(targets="hard"), "targets must be one of soft, pairs"),
        (lambda: Mixup(classes=0), "classes must be 1 or more, got 0"),
        (lambda: ManifoldMixup(layers="body"), "layers must be a list"),
        (lambda: Mixup()(torch.arange(4)), "floating-point samples"),
        (lambda: CutMix()(torch.rand(4, 3)), r"\(N, C, H, W\), got \(4, 3\)"),
        (lambda: CutMix()(torch.rand(2, 1, 4, 4), torch.zeros(2, 3, 3)), "resize them first"),
        (lambda: cutmix(torch.rand(2, 1, 4, 4), None, torch.tensor([[0, 5, 0, 1]]), 1),
         "within the images, 4 by 4 pixels"),
        (lambda: cutmix(torch.rand(2, 1, 4, 4), None, torch.zeros(3, 4, dtype=torch.long), 1),
         r"boxes must be \(2, 4\), or \(1, 4\) for all, got \(3, 4\)"),
        (lambda: ManifoldMixup()(torch.rand(4, 3)), r"call attach\(model\) first"),
    ],
)  # fmt: skip
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Manifold mixup -------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x))


def test_hidden_features_are_mixed_as_in_the_formula():
    torch.manual_seed(0)
    net, x, y = Net(), torch.rand(6, 4), torch.arange(6) % 3
    mix = ManifoldMixup(layers=["body.0"], classes=3).attach(net)
    share, shift = mix._draw(6, seeded(gen(4)))
    weight = torch.from_numpy(share.copy()).float()
    marked, soft = mix(x, y, gen(4))
    hidden = net.body[0](x)
    wanted = weight[:, None] * hidden + (1 - weight)[:, None] * hidden.roll(shift, 0)
    wanted = net.head(torch.tanh(wanted))
    torch.testing.assert_close(net(marked), wanted)
    torch.testing.assert_close(net(marked), wanted), "the same again on the same batch"
    torch.testing.assert_close(soft, blend_targets(y, weight, shift, 3))
    plain = net.head(net.body(x))
    torch.testing.assert_close(net(x), plain), "the caller's own tensor carries no note"
    net(marked).sum().backward()
    assert net.body[0].weight.grad is not None
    net.eval()
    torch.testing.assert_close(net(marked), plain), "never in evaluation"
    net.train()
    other = copy.deepcopy(net)
    torch.testing.assert_close(other(marked), wanted), "copies work"
    mix.detach()
    torch.testing.assert_close(net(marked), plain)


def test_two_batches_wait_for_one_step():
    net, y = Net(), torch.arange(6) % 3
    mix = ManifoldMixup(layers=["body.1"], classes=3).attach(net)
    first, second = (mix(torch.rand(6, 4), y, gen(s))[0] for s in (1, 2))
    a, b = net(first), net(second)
    torch.testing.assert_close(net(second), b)
    torch.testing.assert_close(net(first), a)


def test_layers_are_drawn_evenly_and_the_output_never():
    net = Net()
    mix = ManifoldMixup(classes=3).attach(net)
    assert mix.found == ("input", "body.0", "body.1")
    drawn = [getattr(mix(torch.rand(2, 4), torch.arange(2), gen(s))[0], "brickyard_mix", None)
             for s in range(300)]  # fmt: skip
    names = ["input" if d is None else d.layer for d in drawn]
    assert all(70 < names.count(name) < 130 for name in mix.found)
    assert ManifoldMixup(layers=["body.*", "input"]).attach(net).found == (
        "body.0", "body.1", "input")  # fmt: skip
    with pytest.raises(ValueError, match="'bod' matches no module; did you mean 'body'"):
        ManifoldMixup(layers=["bod"]).attach(net)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.never, self.rnn = nn.Linear(4, 4), nn.Linear(4, 4), nn.GRU(4, 4)
        self.flat, self.head = nn.Flatten(0), nn.Linear(4, 2)

    def forward(self, x):
        self.rnn(x)
        self.flat(x)
        return self.head(self.first(x))


@pytest.mark.parametrize(
    ("layer", "message"),
    [("never", "chose never, which the model did not run"), ("rnn", "rnn gives tuple"),
     ("flat", r"one row for each of 3 samples, and flat gives shape \(12,\)")],
)  # fmt: skip
def test_layers_that_cannot_be_mixed_are_loud(layer, message):
    net = Odd()
    marked, _ = ManifoldMixup(layers=[layer], classes=2).attach(net)(
        torch.rand(3, 4), torch.arange(3) % 2, gen())  # fmt: skip
    with pytest.raises(ValueError, match=message):
        net(marked)
