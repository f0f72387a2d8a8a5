"""What every augmentation on the shelf promises: driven by the cards."""

import inspect

import pytest
import torch
from torch import nn

from brickyard.augment import ManifoldMixup, Transform
from brickyard.catalog import shelf

GIVEN = {
    "token_mask": {"mask_id": 1}, "mixup": {"classes": 4}, "cutmix": {"classes": 4},
    "manifold_mixup": {"classes": 4}, "spec_augment": {"freq_width": 5},
    "word_drop": {"p": 0.4}, "cutout": {"size": 3},
    "time_shift": {"limit": 0.5},
}  # fmt: skip
TEXT = ("token_mask", "word_drop")
CARDS = [pytest.param(card, id=card.key) for card in shelf("augmentation")]


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def samples(key, n=8):
    if key in TEXT:
        return torch.randint(2, 50, (n, 12), generator=gen(1))
    return torch.rand(n, 3, 12, 16, generator=gen(1))


def made(card):
    transform = card.load()(**GIVEN.get(card.key, {}))
    if isinstance(transform, ManifoldMixup):
        transform.layers = ["input"]
        transform.attach(nn.Identity())
    return transform


@pytest.mark.parametrize("card", CARDS)
def test_contract(card):
    transform, x, y = made(card), samples(card.key), torch.arange(8) % 4
    assert isinstance(transform, Transform)
    before, labels = x.clone(), y.clone()
    out, new = transform(x, y, gen())
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert (new.shape == (8, 4) and new.dtype == torch.float32) if transform.mixes else new is y
    assert torch.equal(x, before), "the samples were changed in place"
    assert torch.equal(y, labels), "the targets were changed in place"
    again = transform(x, y, gen())
    assert torch.equal(out, again[0]), "the generator is the only source of randomness"
    assert torch.equal(new, again[1])
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    transform(x, y, gen())
    assert torch.equal(torch.rand(1), first), "torch's default generator was used"
    assert not torch.equal(out, transform(x, y, gen(5))[0])
    assert list(inspect.signature(transform.__call__).parameters) == ["x", "y", "generator"]
    assert f"{type(transform).__name__}(" in repr(transform)
    torch.manual_seed(3)
    first = transform(x, y)[0]
    torch.manual_seed(3)
    assert torch.equal(first, transform(x, y)[0]), "without a generator, the default one serves"


@pytest.mark.parametrize("card", CARDS)
def test_every_sample_draws_its_own_change(card):
    if card.key in ("mixup", "cutmix", "manifold_mixup"):
        pytest.skip("equal samples mix into equal samples; their weights are tested beside")
    x = samples(card.key)[:1].expand(8, *(-1,) * (samples(card.key).ndim - 1))
    out, _ = made(card)(x, torch.arange(8) % 4, gen())
    assert len({t.numpy().tobytes() for t in out}) > 4, "all samples changed alike"


@pytest.mark.parametrize("card", CARDS)
def test_p_zero_changes_nothing_and_p_is_a_share(card):
    transform = made(card)
    if not hasattr(transform, "p"):
        pytest.skip("no p")
    x, y = samples(card.key, 400), torch.arange(400) % 4
    transform.p = 0.0
    out, new = transform(x, y, gen())
    assert torch.equal(out, x)
    if transform.mixes:
        assert torch.equal(new, nn.functional.one_hot(y, 4).float())
    if card.key in TEXT:
        return
    transform.p = 0.3
    out, _ = transform(x, y, gen())
    changed = (out != x).flatten(1).any(1).float().mean().item()
    assert 0.15 < changed <= 0.4
    with pytest.raises(ValueError, match="p is a probability"):
        card.load()(**{**GIVEN.get(card.key, {}), "p": 1.5})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("card", CARDS)
def test_precision_and_memory_layout(card, dtype):
    if card.key in TEXT:
        pytest.skip("tokens")
    transform, x, y = made(card), samples(card.key), torch.arange(8) % 4
    wanted, targets = transform(x, y, gen())
    last = x.to(dtype).to(memory_format=torch.channels_last)
    out, new = transform(last, y, gen())
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last), "the layout was lost"
    if card.key != "gaussian_noise":  # draws in another type are other draws
        rough = 1e-5 if dtype == torch.float64 else 2e-2
        torch.testing.assert_close(out.float(), wanted, rtol=rough, atol=rough)
    if transform.mixes:
        torch.testing.assert_close(new, targets, rtol=0, atol=1e-2)


@pytest.mark.parametrize("card", CARDS)
def test_batches_of_one_and_none(card):
    transform = made(card)
    for n in (1, 0):
        x, y = samples(card.key)[:n], torch.arange(n)
        out, new = transform(x, y, gen())
        assert out.shape == x.shape
        assert len(new) == n
        if n and transform.mixes:
            assert torch.equal(out, x), "there is nobody to mix with"
            assert new.tolist() == [[1, 0, 0, 0]]
