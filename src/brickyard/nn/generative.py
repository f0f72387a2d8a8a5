"""Networks that make samples: a generator with its critic, and a generator of images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.nn.build import Spec, init_weights, make_layer, normalize
from brickyard.nn.shapes import channels_of, real

__all__ = ["GeneratorAndCritic", "Upsampler"]


@brick(
    "model", "generator_and_critic", aliases=("gan_pair",), public="brickyard.nn",
    summary="Two networks that train each other: one makes samples of noise, one scores them.",
    use_when="Samples shall be drawn from the distribution of the data: task gan.",
    avoid_when="A likelihood or an encoder is wanted: take a variational autoencoder.",
    best_for="Digits with two perceptrons within a minute; small images with upsampler and cnn.",
    paper="Goodfellow et al. 2014, Generative Adversarial Nets",
    tune_first="The critic: as wide as the generator, without batch norm under a gradient penalty.",
    cost="Both networks; a step of the generator costs several of the critic.",
    pairs_with=("wasserstein", "gradient_penalty", "adam"),
)  # fmt: skip
class GeneratorAndCritic(nn.Module):
    """Hold a generator and a critic, each a model of its own, for samples of one shape.

    Math:
        generator: z (N, noise) -> activation(G(z)), reshaped to (N, *input_shape)
        critic:    x (N, *input_shape) -> scores (N, 1)

    Args:
        input_shape: shape of one sample.
        noise: numbers that a sample is made of.
        generator: key or mapping of a model from ``noise`` numbers to those of a sample.
        critic: key or mapping of a model from a sample to one score.
        activation: what the generator ends in: it should reach the data's range, and not much
            more; ``sigmoid`` for pixels from 0 to 1. None for standardised tables.

    Raises:
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> import torch
        >>> model = GeneratorAndCritic((1, 8, 8), noise=16)
        >>> fake = model(torch.randn(5, 16))
        >>> fake.shape, model.critic(fake).shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5, 1]))

    Reference:
        Goodfellow et al. 2014, Generative Adversarial Nets, section 3.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        noise: int,
        *,
        generator: Spec = "mlp",
        critic: Spec = "mlp",
        activation: Spec = "sigmoid",
    ) -> None:
        super().__init__()
        shape = tuple(input_shape)
        made = make_layer("model", generator, path="generator", input_shape=(noise,),
                          outputs=prod(shape), output_shape=shape)  # fmt: skip
        ends = make_layer("activation", activation)
        self.generator = nn.Sequential(made, nn.Unflatten(1, shape), ends)
        self.critic = make_layer("model", critic, path="critic", input_shape=shape, outputs=1)

    def forward(self, noise: Tensor) -> Tensor:
        """Return samples ``(N, *input_shape)`` for ``(N, noise)``."""
        return self.generator(noise)


@brick(
    "model", "upsampler", aliases=("dcgan_generator",), public="brickyard.nn",
    summary="Grow an image from a vector: a small grid of features, doubled by convolutions.",
    use_when="The generator or decoder of images of 16 to 64 pixels a side.",
    avoid_when="Flat samples, or 8 x 8 pixels: an mlp is as good and faster.",
    best_for="Generators of small GANs, decoders of small autoencoders.",
    paper="Radford, Metz & Chintala 2016, Deep Convolutional GANs, arXiv:1511.06434",
    tune_first="width; stages so that the first grid has 4 to 8 pixels a side.",
    cost="Nearly all of it in the last two convolutions, at the full size.",
    pairs_with=("batch_norm", "relu", "cnn"),
)  # fmt: skip
class Upsampler(nn.Module):
    """Turn a vector into an image: nearest neighbours and 3x3 convolutions in turn.

    Nearest neighbours instead of strided transposed convolutions, whose overlaps show as a
    chessboard.

    Math:
        h_0 = act(norm(conv_3x3(W z))) on a grid of sides / 2^stages, width * 2^stages channels
        h_k = act(norm(conv_3x3(double(h_(k-1))))) with half the channels each time
        y = flatten(crop(conv_3x3(h_stages)))

    Args:
        input_shape: shape of one input; flattened.
        output_shape: shape ``(C, H, W)`` of the images.
        width: channels at the full size.
        stages: how often the grid is doubled.
        activation: key or mapping of an activation.
        normalization: key or mapping of a normalization; None for none.
        init: key or mapping of an initializer of single weights; None keeps torch's own start.

    Raises:
        ValueError: ``output_shape`` is not ``(C, H, W)``, or a size below 1.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> import torch
        >>> Upsampler((16,), (1, 28, 28), width=8)(torch.randn(2, 16)).shape
        torch.Size([2, 784])

    Reference:
        Radford, Metz & Chintala 2016, arXiv:1511.06434; upsampling: Odena, Dumoulin & Olah 2016,
        Deconvolution and Checkerboard Artifacts.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        *,
        width: int = 16,
        stages: int = 2,
        activation: Spec = "relu",
        normalization: Spec = "batch_norm",
        init: Spec = "kaiming_normal_",
    ) -> None:
        super().__init__()
        shape = tuple(output_shape)
        if len(shape) != 3:
            raise ValueError(f"output_shape of an upsampler must be (C, H, W), got {shape}")
        if width < 1 or stages < 0:
            raise ValueError(f"width must be 1 or more and stages 0 or more, got {width}, {stages}")
        self.output_shape = shape
        grid = tuple(-(-side // 2**stages) for side in shape[1:])
        wide = width * 2**stages
        first = nn.Linear(prod(input_shape), wide * prod(grid))
        layers = [nn.Flatten(), first, nn.Unflatten(1, (wide, *grid))]
        for stage in range(stages + 1):
            above = wide
            if stage:
                wide, grid = wide // 2, tuple(2 * side for side in grid)
                layers.append(nn.Upsample(scale_factor=2))
            sizes = channels_of(wide, grid)
            conv = nn.Conv2d(above, wide, 3, padding=1)
            layers += real(*normalize(conv, normalization, dims=2, **sizes))
            layers.append(make_layer("activation", activation, dims=2, **sizes))
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(wide, shape[0], 3, padding=1)
        init_weights(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, C * H * W)`` for ``(N, *input_shape)``."""
        _, height, width = self.output_shape
        return self.head(self.body(x))[:, :, :height, :width].flatten(1)
