"""Batch norms of several processes against torch's own on the joined batch."""

import pytest
import torch
from ranks import on_ranks
from torch import nn

from brickyard.train.batch_norms import join_batch_norms, joined, part_batch_norms

SHAPES = {nn.BatchNorm1d: (5,), nn.BatchNorm2d: (5, 4, 3), nn.BatchNorm3d: (5, 2, 3, 2)}
CASES = {
    **{kind.__name__: (kind, shape, {}, torch.float64) for kind, shape in SHAPES.items()},
    "sequences": (nn.BatchNorm1d, (5, 7), {}, torch.float64),
    "mean of all": (nn.BatchNorm1d, (5,), {"momentum": None}, torch.float64),
    "no weight": (nn.BatchNorm1d, (5,), {"affine": False}, torch.float64),
    "no bias": (nn.BatchNorm1d, (5,), {"bias": False}, torch.float64),
    "no statistics": (nn.BatchNorm1d, (5,), {"track_running_stats": False}, torch.float64),
    "large eps": (nn.BatchNorm2d, (5, 4, 3), {"eps": 0.5, "momentum": 0.7}, torch.float64),
    "single": (nn.BatchNorm2d, (5, 4, 3), {}, torch.float32),
    "bfloat16": (nn.BatchNorm2d, (5, 4, 3), {}, torch.bfloat16),
}  # fmt: skip
#: Samples of each of three processes, of two batches: one of them has a single one.
PARTS = ([1, 4, 3], [5, 1, 2])
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def made(name):
    """Return a layer after one that has weights too, two batches and what gradients begin with."""
    kind, shape, options, dtype = CASES[name]
    generator = torch.Generator().manual_seed(7)
    layer = kind(shape[0], **options).to(torch.float64 if dtype == torch.float64 else torch.float32)
    for p in layer.parameters():
        nn.init.normal_(p, 1.0, 0.3, generator)

    def draw(scale, shift):
        many = [
            torch.randn(sum(p), *shape, generator=generator, dtype=torch.float64) for p in PARTS
        ]
        return [(x * scale + shift).to(dtype) for x in many]

    return layer, draw(3.0, 100.0 if dtype == torch.float64 else 2.0), draw(1.0, 0.3)


def results(layer, batches, slopes, rows=lambda number: slice(None)):
    """Return outputs, gradients and buffers after two steps and an evaluation."""
    found = {}
    for number, (x, slope) in enumerate(zip(batches, slopes, strict=True)):
        own = x[rows(number)].clone().requires_grad_()
        layer.train()
        y = layer(own)
        y.backward(slope[rows(number)])
        found |= {f"output {number}": y.detach(), f"gradient {number}": own.grad}
    layer.eval()
    if layer.running_mean is not None:  # without, each takes what it is given
        found["evaluated"] = layer(batches[0][rows(0)]).detach()
    whole = {f"gradient of {name}": p.grad for name, p in layer.named_parameters()}
    return found, {**whole, **{name: b.clone() for name, b in layer.named_buffers()}}


def steps(rank, found):
    for name in CASES:
        layer, batches, slopes = made(name)
        join_batch_norms(layer)

        def rows(number, rank=rank):
            start = sum(PARTS[number][:rank])
            return slice(start, start + PARTS[number][rank])

        found[name, rank] = results(layer, batches, slopes, rows)
    x = torch.ones(4, 5)  # what a frozen stem gives needs no gradient
    layer = nn.BatchNorm1d(5)
    join_batch_norms(layer)
    layer(x + rank).sum().backward()
    found["frozen", rank] = [p.grad.tolist() for p in layer.parameters()]


@pytest.fixture(scope="module")
def found():
    return on_ranks(steps, 3)


@pytest.mark.parametrize("name", CASES)
def test_parts_are_normalized_as_the_whole(found, name):
    layer, batches, slopes = made(name)
    wanted, whole = results(layer, batches, slopes)
    tolerance = TOLERANCE[batches[0].dtype]
    for key, value in wanted.items():
        joint = torch.cat([found[name, rank][0][key] for rank in range(3)])
        assert joint.dtype == value.dtype
        torch.testing.assert_close(joint, value, rtol=tolerance, atol=tolerance)
    for key, value in whole.items():
        all_of = [found[name, rank][1][key] for rank in range(3)]
        if key.startswith("gradient"):  # those are added up by the engine
            all_of = [sum(all_of)]
        for one in all_of:
            torch.testing.assert_close(one, value, rtol=tolerance, atol=tolerance * 10)


def test_a_first_layer_needs_no_gradient_of_its_input(found):
    gradients = [found["frozen", rank] for rank in range(3)]
    assert [bias for _, bias in gradients] == [[4.0] * 5] * 3
    slopes = torch.tensor([weight for weight, _ in gradients])
    torch.testing.assert_close(slopes.sum(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert slopes[0, 0] < -4 < 4 < slopes[2, 0]


class Own(nn.BatchNorm1d):
    """A class of one's own may do anything."""


def test_other_layers_are_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(3), Own(3), nn.LayerNorm(3), nn.Identity())
    before = list(model.state_dict())
    assert join_batch_norms(model)
    assert not join_batch_norms(model), "they are already"
    assert "Joined" not in repr(model)
    assert [joined(layer) for layer in model] == [True, False, False, False]
    assert isinstance(model[0], nn.BatchNorm1d)
    assert list(model.state_dict()) == before
    model.eval()  # alone, and in no group
    assert model(torch.ones(2, 3)).shape == (2, 3)
    part_batch_norms(model)
    assert [type(layer) for layer in model[:2]] == [nn.BatchNorm1d, Own]
    assert model.train()(torch.rand(2, 3)).shape == (2, 3)


def test_shapes_are_checked_as_torch_does():
    layer = nn.BatchNorm2d(3)
    join_batch_norms(layer)
    with pytest.raises(ValueError, match="expected 4D input"):
        layer(torch.ones(2, 3))
