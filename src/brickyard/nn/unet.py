"""A small U-Net: an output for every pixel, from near and far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.nn.build import Spec, drop, init_weights, make_layer, normalize
from brickyard.nn.shapes import channels_of, real, size_of, sizes_of, start_head

__all__ = ["UNet"]


@brick(
    "model", "unet", aliases=("u_net",), public="brickyard.nn",
    summary="A small U-Net: an output for every pixel, from its neighbourhood at several scales.",
    use_when="Segmentation of images of some hundred pixels a side, from few examples.",
    avoid_when="One answer for the whole image (cnn), or objects of one class that must be told "
    "apart from each other.",
    best_for="Medical and microscopic images, with strong augmentation.",
    paper="Ronneberger, Fischer & Brox 2015, U-Net, arXiv:1505.04597",
    tune_first="depth: how far a pixel sees doubles with each; then width.",
    cost="With width 16 and depth 2: 0.12 million parameters; half of the time goes to full size.",
    pairs_with=("batch_norm", "dice", "cross_entropy", "random_affine", "brain"),
)  # fmt: skip
class UNet(nn.Module):
    """Halve an image a few times, enlarge it again, and join what was seen at each size.

    Math:
        down k: h_k = block_k(pool(h_(k-1)));   up k: u_k = block(h_k beside enlarge(u_(k+1)));
        block: twice act(norm(conv_3x3)); the output is conv_1x1(u_0)

    Args:
        input_shape: shape ``(C, H, W)`` of one image.
        outputs: outputs a pixel.
        width: channels at full size; they double with every halving.
        depth: how many times the image is halved.
        activation: key or mapping of an activation.
        normalization: key or mapping of a normalization; None for none.
        dropout: key or mapping of a dropout behind every block; None for none.
        init: key or mapping of an initializer of single weights; None keeps torch's own start.

    Raises:
        ValueError: a size below 1, an image too small for ``depth``, or ``input_shape`` that is not
            ``(C, H, W)``.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> UNet((1, 30, 40), 3, width=4, depth=2)(torch.zeros(2, 1, 30, 40)).shape
        torch.Size([2, 3, 30, 40])

    Reference:
        Ronneberger, Fischer & Brox 2015, arXiv:1505.04597, figure 1; padded convolutions, and
        bilinear enlargement in place of transposed convolutions.
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, *, width: int = 16, depth: int = 2,
        activation: Spec = "relu", normalization: Spec = "batch_norm", dropout: Spec = None,
        init: Spec = "kaiming_normal_",
    ) -> None:  # fmt: skip
        super().__init__()
        shape = sizes_of("input_shape", input_shape)
        if len(shape) != 3:
            raise ValueError(f"input_shape of a unet must be (C, H, W), got {shape}")
        if min(shape[1:]) < 2 ** size_of("depth", depth):
            raise ValueError(f"depth={depth} halves images of {shape[1:]} pixels to nothing")
        parts: dict[str, Any] = {
            "activation": activation, "normalization": normalization, "dropout": dropout,
        }  # fmt: skip
        wide = [size_of("width", width) * 2**k for k in range(depth + 1)]
        sides = [shape[1:]]
        for _ in range(depth):
            sides.append([side // 2 for side in sides[-1]])
        before = [shape[0], *wide[:-1]]
        self.down = nn.ModuleList(
            _block(a, b, size, **parts) for a, b, size in zip(before, wide, sides, strict=True)
        )
        self.up = nn.ModuleList(
            _block(wide[k] + wide[k + 1], wide[k], sides[k], **parts) for k in range(depth)
        )
        self.head = nn.Conv2d(wide[0], size_of("outputs", outputs), 1)
        init_weights(self, init)
        start_head(self.head)
        # convolutions run faster in this layout, on CPU too; torch's stubs do not know the option
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, outputs, H, W)`` for ``(N, C, H, W)``."""
        seen: list[Tensor] = []
        for k, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if k else x)
            seen.append(x)
        x = seen.pop()
        for block in reversed(self.up):
            before = seen.pop()
            large = F.interpolate(x, before.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([before, large], 1))
        return self.head(x)


def _block(
    channels: int, wide: int, size: Sequence[int], activation: Spec, normalization: Spec,
    dropout: Spec,
) -> nn.Sequential:  # fmt: skip
    sizes, layers = channels_of(wide, size), list[nn.Module]()
    for count in (channels, wide):
        conv, norm = normalize(nn.Conv2d(count, wide, 3, padding=1), normalization, dims=2, **sizes)
        noise: nn.Module = nn.Identity()
        if layers:  # the second of the two
            conv, noise = drop(conv, dropout, dims=2, **sizes)
        act = make_layer("activation", activation, dims=2, **sizes)
        layers += real(conv, norm, act, noise)
    return nn.Sequential(*layers)
