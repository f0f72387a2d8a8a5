"""Skip connections, and the factors that let deep stacks of them start as the identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brickyard.catalog import brick

__all__ = ["LayerScale", "Residual", "ResidualScale"]


@brick(
    "residual",
    "residual",
    aliases=("skip_connection", "shortcut"),
    summary="Adds the input to a branch's output, so that depth adds corrections instead of "
    "layers.",
    use_when="More than about ten weight layers follow each other, or gradients at the first "
    "layers are far smaller than at the last.",
    avoid_when="The branch changes the shape: put the change (a strided or 1x1 convolution) "
    "between residual blocks, or into the branch's caller.",
    best_for="Deep convolutional networks and every transformer block.",
    paper="He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385",
    tune_first="How the branch starts: zero its last norm or scale before touching learning rates "
    "of a deep stack.",
    cost="One addition; the input stays in memory until the branch's backward pass.",
    pairs_with=("residual_scale", "layer_scale", "zero_residual_"),
)
class Residual(nn.Module):
    """Add the input to what a branch makes of it.

    Math:
        y = x + scale * branch(x)

    Args:
        branch: module that keeps the shape of its input.
        scale: fixed factor of the branch, or a module applied to its output, such as
            :class:`ResidualScale`; None for 1.

    Raises:
        ValueError: the branch changed the shape (a sum would broadcast).

    Example:
        >>> block = Residual(nn.Linear(4, 4), ResidualScale(0.0))
        >>> x = torch.ones(2, 4)
        >>> bool((block(x) == x).all())
        True

    Reference:
        He et al. 2016, arXiv:1512.03385, equation 1; the identity path without weights is the
        form that He et al. 2016, arXiv:1603.05027, section 3 found to train best.
    """

    def __init__(self, branch: nn.Module, scale: nn.Module | float | None = None) -> None:
        super().__init__()
        self.branch = branch
        if isinstance(scale, float | int):
            scale = ResidualScale(scale, learnable=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum; same shape as ``x``."""
        y = self.branch(x)
        if y.shape != x.shape:
            raise ValueError(
                "the branch of Residual must keep the shape of its input, got "
                f"{tuple(x.shape)} -> {tuple(y.shape)}; change shapes between residual blocks"
            )
        return x + (y if self.scale is None else self.scale(y))


@brick(
    "residual",
    "residual_scale",
    aliases=("skip_init", "skipinit"),
    summary="One factor for a residual branch, zero at the start, so that a deep network begins "
    "as the identity.",
    use_when="A deep residual network has no normalization, or diverges in its first steps at the "
    "learning rate you want.",
    avoid_when="The branch's last norm or layer starts at zero as well: two zero factors pass no "
    "gradient to each other and the branch never learns.",
    best_for="Normalizer-free residual networks; a fixed 0.1 is the older form, used where widths "
    "are large.",
    paper="De & Smith 2020, Batch Normalization Biases Residual Blocks Towards the Identity "
    "Function, arXiv:2002.10444 (SkipInit); Szegedy et al. 2017, arXiv:1602.07261 (fixed factor)",
    tune_first="init: 0 with learnable=True, or 0.1 to 0.3 with learnable=False.",
    cost="One parameter and one multiplication per branch.",
    pairs_with=("residual",),
)
class ResidualScale(nn.Module):
    """Multiply a residual branch by one number.

    Math:
        y = alpha * x

    Args:
        init: value of the factor at the start.
        learnable: train the factor; otherwise it is a buffer and stays as it is.
        device: where the factor is made.
        dtype: its number format.

    Example:
        >>> ResidualScale(0.1, learnable=False)(torch.ones(2))
        tensor([0.1000, 0.1000])

    Reference:
        De & Smith 2020, arXiv:2002.10444, section 4 (SkipInit).
    """

    alpha: Tensor

    def __init__(
        self, init: float = 0.0, learnable: bool = True,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        alpha = torch.full(
            (1,), float(init), device=device, dtype=dtype
        )  # not 0-d: sharded training refuses scalars
        if learnable:
            self.alpha = nn.Parameter(alpha)
        else:
            self.register_buffer("alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times the factor."""
        return self.alpha * x

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"learnable={self.alpha.requires_grad}"


@brick(
    "residual",
    "layer_scale",
    aliases=("layerscale",),
    summary="A learned factor per channel on a residual branch, tiny at the start.",
    use_when="A transformer or ConvNeXt-like network of more than about 18 blocks trains unstably.",
    avoid_when="The network is shallow: factors of 1e-5 delay learning and buy nothing there.",
    best_for="Deep vision transformers and ConvNeXt blocks.",
    paper="Touvron et al. 2021, Going Deeper with Image Transformers (CaiT), arXiv:2103.17239",
    tune_first="init: the paper takes 0.1 up to 18 blocks, 1e-5 up to 24 and 1e-6 beyond.",
    cost="One parameter per channel and one multiplication per value.",
    pairs_with=("residual",),
)
class LayerScale(nn.Module):
    """Multiply each channel of a residual branch by its own learned factor.

    Math:
        y = gamma * x,   gamma = init at the start

    Args:
        dim: number of channels when they are the last axis; otherwise the trailing shape that the
            factors broadcast over: ``(C, 1, 1)`` for images ``(N, C, H, W)``.
        init: value of every factor at the start.
        device: where the factors are made.
        dtype: their number format.

    Raises:
        ValueError: the input's trailing shape does not fit ``dim``.

    Example:
        >>> LayerScale(3, init=0.5)(torch.ones(2, 3)).sum().item()
        3.0

    Reference:
        Touvron et al. 2021, arXiv:2103.17239, section 2.
    """

    def __init__(
        self, dim: int | Sequence[int], init: float = 1e-5,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (dim,) if isinstance(dim, int) else tuple(dim)
        self.gamma = nn.Parameter(torch.full(shape, float(init), device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with every channel scaled."""
        want = tuple(self.gamma.shape)
        got = tuple(x.shape[-len(want) :])
        if len(got) != len(want) or any(w not in (1, g) for w, g in zip(want, got, strict=True)):
            raise ValueError(
                f"LayerScale of shape {want} must fit the trailing axes of its input, got "
                f"{tuple(x.shape)}; for images (N, C, H, W) use dim=(C, 1, 1)"
            )
        return self.gamma * x

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{tuple(self.gamma.shape)}"
