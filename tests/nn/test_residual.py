"""Skip paths: the sum, its scales, and the start at the identity."""

import pytest
import torch
from torch import nn

from brickyard.nn import BatchNorm2d, LayerScale, Residual, ResidualScale, weight_norm
from brickyard.nn.init import identity_, zero_residual_


def x64(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def test_residual_adds_the_scaled_branch():
    branch, x = nn.Linear(3, 3).double(), x64(4, 3)
    for scale, factor in [(None, 1.0), (0.5, 0.5), (ResidualScale(2.0).double(), 2.0)]:
        assert torch.allclose(Residual(branch, scale).double()(x), x + factor * branch(x))


def test_a_fixed_factor_is_kept_but_not_trained():
    block = Residual(nn.Identity(), 0.25)
    assert list(block.parameters()) == []
    assert block.state_dict()["scale.alpha"].item() == 0.25
    assert ResidualScale(0.25).alpha.requires_grad
    assert not ResidualScale(0.25, learnable=False).alpha.requires_grad


def test_a_branch_that_would_broadcast_is_refused():
    with pytest.raises(ValueError, match=r"keep the shape.*\(4, 3\) -> \(4, 1\)"):
        Residual(nn.Linear(3, 1))(torch.zeros(4, 3))


def test_layer_scale_scales_the_last_axis_or_the_given_shape():
    tokens, images = LayerScale(3, init=0.5), LayerScale((3, 1, 1), init=0.5)
    with torch.no_grad():
        tokens.gamma.copy_(torch.tensor([1.0, 2.0, 3.0]))
        images.gamma.copy_(torch.tensor([1.0, 2.0, 3.0])[:, None, None])
    x = torch.rand(2, 4, 3)
    assert torch.equal(tokens(x), x * torch.tensor([1.0, 2.0, 3.0]))
    image = torch.rand(2, 3, 5, 5)
    assert torch.equal(images(image)[:, 1], 2 * image[:, 1])
    assert LayerScale(3).gamma.tolist() == pytest.approx([1e-5] * 3)


@pytest.mark.parametrize("shape", [(2, 4), (3,), ()])
def test_layer_scale_refuses_what_would_broadcast(shape):
    with pytest.raises(ValueError, match=r"trailing axes.*dim=\(C, 1, 1\)"):
        LayerScale(5)(torch.zeros(shape))


@pytest.mark.parametrize(
    "layer", [Residual(nn.Tanh(), ResidualScale(0.3)), ResidualScale(0.3), LayerScale(3, 0.3)]
)
def test_gradients(layer):
    layer = layer.double()
    x = x64(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_scales_take_device_and_dtype():
    for layer in (
        LayerScale(3, device="meta", dtype=torch.bfloat16),
        ResidualScale(device="meta", dtype=torch.bfloat16),
        ResidualScale(0.1, learnable=False, device="meta", dtype=torch.bfloat16),
    ):
        assert all(t.is_meta and t.dtype == torch.bfloat16 for t in layer.state_dict().values())


def conv_block(**scale):
    return Residual(
        nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), BatchNorm2d(2), nn.PReLU()), **scale
    )


def test_zero_residual_starts_every_branch_at_zero():
    model = nn.Sequential(conv_block(), nn.ReLU(), Residual(nn.Sequential(nn.Linear(4, 4))))
    assert zero_residual_(model) == ["0.branch.1", "2.branch.0"]
    x = torch.randn(5, 2, 4, 4)
    assert torch.equal(model[0](x), x)
    assert torch.equal(model[2](x), x)
    assert bool(model[0].branch[0].weight.any()), "only the last layer of a branch is zeroed"
    model(x).sum().backward()
    assert bool(model[0].branch[1].weight.grad.any()), "the zeroed layer must still learn"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "the model has none"),
        (Residual(nn.ReLU()), r"branch has no layer with a weight"),
        (conv_block(scale=ResidualScale(0.0)), r"branch: its scale is zero already"),
        (conv_block(scale=LayerScale((2, 1, 1), 0.0)), r"branch: its scale is zero already"),
        (Residual(weight_norm(nn.Linear(2, 2))), r"computes its weight"),
    ],
)
def test_zero_residual_refuses_what_could_not_learn(model, message):
    with pytest.raises(ValueError, match=message):
        zero_residual_(model)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 4, bias=False),
        nn.Conv1d(4, 4, 3, padding=1, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv3d(4, 4, 3, padding=1, bias=False),
    ],
)
def test_identity_makes_a_layer_pass_its_input_on(layer):
    identity_(layer.weight, getattr(layer, "groups", 1))
    x = torch.randn(2, 4, *[5] * (layer.weight.ndim - 2))
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize(
    ("shape", "groups", "message"),
    [((4,), 1, "2 to 5 axes"), ((4, 4), 2, "a matrix has no groups")],
)
def test_identity_refuses(shape, groups, message):
    with pytest.raises(ValueError, match=message):
        identity_(torch.empty(shape), groups)
