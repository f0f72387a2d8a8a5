"""Two reference networks, small enough for a laptop, whose parts are chosen by key."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.nn.build import Spec, drop, init_weights, make_layer, normalize, resolve
from brickyard.nn.noise import DropPath
from brickyard.nn.residual import Residual
from brickyard.nn.shapes import channels_of, features_of, real, size_of, sizes_of, start_head

__all__ = ["CNN", "MLP"]


@brick(
    "model",
    "mlp",
    aliases=("perceptron", "feed_forward"),
    public="brickyard.nn",
    summary="A stack of dense layers for flat inputs: tables, small images, features.",
    use_when="Inputs have no order worth keeping, or you need the simplest network as a baseline.",
    avoid_when="Images or sequences of any size: a network that shares weights over positions "
    "needs far less data.",
    best_for="Tables of standardized features and 8 x 8 digits.",
    paper="Rumelhart, Hinton & Williams 1986, Learning Representations by Back-Propagating "
    "Errors, Nature 323",
    tune_first="hidden, then dropout; normalization before more depth.",
    cost="Weights of all layers once a sample, three times in training.",
    pairs_with=("relu", "dropout", "kaiming_normal_"),
)
class MLP(nn.Module):
    """Stack linear layers, each with normalization, activation and dropout chosen by key.

    Math:
        h_0 = flatten(x),   h_i = dropout(act(norm(W_i h_(i-1) + b_i))),   y = W h_n + b
        with residual, from the second hidden layer on:
        h_i = act(h_(i-1) + scale * dropout(norm(W_i h_(i-1) + b_i)))

    Args:
        input_shape: shape of one sample; flattened.
        outputs: number of outputs.
        hidden: width of all hidden layers, or one width for each.
        depth: number of hidden layers when ``hidden`` is one number; 2 when None.
        activation: key or mapping of an activation.
        normalization: key or mapping of a normalization; None for none.
        dropout: key or mapping of a dropout; None for none. ``drop_connect`` goes around the
            linear layers, ``drop_path`` into residual branches alone.
        residual: key or mapping of a residual brick; None for no skip paths.
        init: key or mapping of an initializer of single weights, or ``initialize`` for all by what
            follows them; None keeps torch's own start.

    Raises:
        ValueError: a size below 1, ``depth`` beside a list, or residual layers of unequal widths.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> model = MLP((1, 8, 8), 10, hidden=64, activation="gelu", normalization="layer_norm")
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Reference:
        Rumelhart, Hinton & Williams 1986, Nature 323; skip paths as He et al. 2016,
        arXiv:1512.03385.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        hidden: int | Sequence[int] = 256,
        depth: int | None = None,
        activation: Spec = "relu",
        normalization: Spec = None,
        dropout: Spec = None,
        residual: Spec = None,
        init: Spec = "kaiming_normal_",
    ) -> None:
        super().__init__()
        features = prod(sizes_of("input_shape", input_shape))
        widths = _hidden(hidden, depth)
        if residual is not None and len(set(widths)) > 1:
            raise ValueError(
                f"residual adds a layer's input to its output, so all hidden widths must be equal, "
                f"got {widths}; give one width, or residual=None"
            )
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (a, b) in enumerate(zip([features, *widths], widths, strict=False)):
            linear, norm = normalize(nn.Linear(a, b), normalization, **features_of(b))
            act = make_layer("activation", activation, dims=0, **features_of(b))
            branch = residual is not None and i > 0
            first = residual is not None and i == 0  # drop_path has its place in the branches
            spec = None if first and _drops_branches(dropout) else dropout
            linear, noise = drop(linear, spec, branch=branch, **features_of(b))
            if branch:
                block = nn.Sequential(*real(linear, norm, noise))
                layers += [make_residual(residual, block, dim=b), act]
            else:
                layers += real(linear, norm, act, noise)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], size_of("outputs", outputs))
        init_weights(self, init)
        start_head(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, outputs)`` for ``(N, *input_shape)``."""
        return self.head(self.body(x))


@brick(
    "model",
    "cnn",
    aliases=("convnet", "resnet_small"),
    public="brickyard.nn",
    summary="A small residual convolutional network for images of 8 to 64 pixels a side.",
    use_when="Small images, a laptop, and a baseline to beat or parts to compare.",
    avoid_when="Images larger than about 64 pixels, or little data and a pretrained network at "
    "hand: fine-tune that one (target: your own).",
    best_for="Digits, MNIST-like sets, CIFAR-like sets.",
    paper="He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385",
    tune_first="width, then blocks; pool=1 when the object may stand anywhere.",
    cost="With width 32 and blocks (1, 1) on 28 x 28 images: 0.12 million parameters.",
    pairs_with=("batch_norm", "relu", "random_affine"),
)
class CNN(nn.Module):
    """Run a small residual network over images, with its parts chosen by key.

    Math:
        stage k:  h <- act(norm(conv_3x3(h))) with width * 2^k channels, stride 2 while it can,
        then blocks[k] times  h <- act(h + scale * dropout(norm(conv(act(norm(conv(h)))))));
        y = W flatten(average to pool x pool (h)) + b

    Args:
        input_shape: shape ``(C, H, W)`` of one image.
        outputs: number of outputs.
        width: channels of the first stage; every further stage has twice as many.
        blocks: residual blocks of each stage; its length is the number of stages. The first stage
            halves images of 16 pixels or more, later ones those of 4 or more.
        activation: key or mapping of an activation.
        normalization: key or mapping of a normalization; None for none.
        dropout: key or mapping of a dropout, at the end of each residual branch; None for none.
        residual: key or mapping of a residual brick; None for no skip paths.
        pool: side of the grid that features are averaged to before the output layer: 1 forgets
            where things are, 4 still knows.
        init: key or mapping of an initializer of single weights, or ``initialize`` for all by what
            follows them; None keeps torch's own start.

    Raises:
        ValueError: a size below 1, or ``input_shape`` that is not ``(C, H, W)``.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> model = CNN((3, 32, 32), 10, width=8, normalization={"name": "group_norm",
        ...                                                      "num_groups": 4})
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Reference:
        He et al. 2016, arXiv:1512.03385, figure 2 (blocks); strided convolutions between stages
        keep every skip path free of weights.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        *,
        width: int = 32,
        blocks: Sequence[int] = (1, 1),
        activation: Spec = "relu",
        normalization: Spec = "batch_norm",
        dropout: Spec = None,
        residual: Spec = "residual",
        pool: int = 4,
        init: Spec = "kaiming_normal_",
    ) -> None:
        super().__init__()
        shape = sizes_of("input_shape", input_shape)
        if len(shape) != 3:
            raise ValueError(f"input_shape of a cnn must be (C, H, W), got {shape}")
        counts = sizes_of("blocks", blocks, least=0)
        channels, *size = shape
        layers: list[nn.Module] = []
        for stage, count in enumerate(counts):
            wide = size_of("width", width) * 2**stage
            stride = 2 if min(size) >= (16 if stage == 0 else 4) else 1
            size = [-(-side // stride) for side in size]
            sizes = channels_of(wide, size)

            def act(sizes: dict[str, Any] = sizes) -> nn.Module:
                return make_layer("activation", activation, dims=2, **sizes)

            layers += [*_conv(channels, sizes, normalization, stride), act()]
            for _ in range(count):
                branch = [*_conv(wide, sizes, normalization), act()]
                last, *norm = _conv(wide, sizes, normalization)
                last, noise = drop(last, dropout, dims=2, branch=residual is not None, **sizes)
                block = nn.Sequential(*branch, last, *norm, *real(noise))
                layers += [make_residual(residual, block, dim=(wide, 1, 1)), act()]
            channels = wide
        grid = [min(size_of("pool", pool), side) for side in size]
        layers += [nn.AdaptiveAvgPool2d((grid[0], grid[1])), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels * prod(grid), size_of("outputs", outputs))
        init_weights(self, init)
        start_head(self.head)
        # convolutions run faster in this layout, on CPU too; torch's stubs do not know the option
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, outputs)`` for ``(N, C, H, W)``."""
        return self.head(self.body(x))


def make_residual(spec: Spec, branch: nn.Module, *, dim: int | Sequence[int]) -> nn.Module:
    """Return ``branch`` with the skip path that ``spec`` names; the bare branch for None.

    Args:
        spec: key or mapping of a residual brick: ``residual`` itself or a scale for its branch.
        branch: module that keeps the shape of its input.
        dim: channels of the branch's output, as :class:`LayerScale` takes them.

    Raises:
        CatalogError: unknown key or wrong option.
    """
    if spec is None:
        return branch
    layer = make_layer("residual", spec, branch=branch, dim=dim)
    return layer if getattr(layer, "branch", None) is branch else Residual(branch, layer)


def _drops_branches(dropout: Spec) -> bool:
    return dropout is not None and resolve("dropout", dropout, "dropout")[0] is DropPath


def _conv(
    channels: int, sizes: dict[str, Any], normalization: Spec, stride: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(channels, sizes["num_features"], 3, stride, padding=1)
    return real(*normalize(conv, normalization, dims=2, **sizes))


def _hidden(hidden: int | Sequence[int], depth: int | None) -> list[int]:
    if isinstance(hidden, int):
        return [size_of("hidden", hidden)] * size_of("depth", 2 if depth is None else depth)
    if depth is not None:
        raise ValueError(
            f"depth={depth} repeats one width, but hidden={list(hidden)} gives every layer its "
            f"own; give hidden as one number, or leave depth out"
        )
    return sizes_of("hidden", hidden)
