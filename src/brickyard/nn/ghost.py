"""Ghost batch normalization: the statistics of small batches inside a large one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brickyard.catalog import brick

__all__ = ["GhostBatchNorm1d", "GhostBatchNorm2d", "ghost_batch_norm"]


def ghost_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, ghost_size: int = 32,
    eps: float = 1e-5, like: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:  # fmt: skip
    """Standardize each channel over every ``ghost_size`` samples in a row.

    Args:
        x: ``(N, C)`` or ``(N, C, *)``. What is left over at the end forms a smaller ghost batch;
            a single value a channel, which has no variance, joins the one before it.
        weight: gamma, ``(C,)``; None for 1.
        bias: beta, ``(C,)``; None for 0.
        ghost_size: samples of a ghost batch.
        eps: added to the variance.
        like: tensor ``(C,)`` whose format the statistics are to have; None for no statistics.

    Returns:
        The result, and for ``like`` the mean and the unbiased variance of a channel, averaged
        over the ghost batches by their sizes.

    Raises:
        ValueError: one value a channel in all.
    """
    sizes = _sizes(x, ghost_size)
    count = sum(size == sizes[0] for size in sizes)
    if x.shape[2:].numel() == 1 and count > 1:  # short rows: one call, whatever the count
        parts = [x[: count * sizes[0]], *x[count * sizes[0] :].split(sizes[count:])]
        done = [_pairs(parts[0], weight, bias, count, eps, like)]
        done += [_one(part, weight, bias, eps, like) for part in parts[1:]]
    else:
        done = [_one(part, weight, bias, eps, like) for part in x.split(sizes)]
    y = done[0][0] if len(done) == 1 else torch.cat([part for part, _ in done])
    stats = [rows for _, rows in done if rows is not None]
    if like is None or not stats:
        return y, None
    mean, var = stats[0] if len(stats) == 1 else (torch.cat([s[i] for s in stats]) for i in (0, 1))
    if len(set(sizes)) == 1:
        return y, (mean.mean(0), var.mean(0))
    share = torch.tensor(sizes, dtype=like.dtype, device=like.device).unsqueeze(1) / len(x)
    return y, ((share * mean).sum(0), (share * var).sum(0))


def _sizes(x: Tensor, ghost_size: int) -> list[int]:
    """Return the sizes of the ghost batches, in order."""
    samples, positions = x.shape[0], x.shape[2:].numel()
    full, rest = divmod(samples, ghost_size)
    sizes = [ghost_size] * full + [rest] * (rest > 0)
    if sizes and sizes[-1] * positions == 1:
        if len(sizes) == 1:
            raise ValueError(
                f"GhostBatchNorm needs more than one value a channel when training, got "
                f"{tuple(x.shape)}; drop the last batch (drop_last=True), or take layer_norm"
            )
        sizes[-2:] = [sizes[-2] + 1]
    return sizes or [0]


_Result = tuple[Tensor, tuple[Tensor, Tensor] | None]


def _one(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, like: Tensor | None
) -> _Result:
    """Normalize one ghost batch."""
    if like is None:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps), None
    mean, var = torch.zeros_like(like), torch.zeros_like(like)
    y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)  # momentum 1: this batch's own
    return y, (mean.unsqueeze(0), var.unsqueeze(0))


def _pairs(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float,
    like: Tensor | None,
) -> _Result:  # fmt: skip
    """Normalize ``count`` ghost batches of one size at once: each (ghost, channel) is a channel."""
    channels = x.shape[1]
    flat = x.reshape(count, -1, channels).transpose(0, 1).reshape(-1, count * channels)
    gamma, beta = (None if t is None else t.repeat(count) for t in (weight, bias))
    y, stats = _one(
        flat, gamma, beta, eps, None if like is None else like.new_empty(count * channels)
    )
    y = y.view(-1, count, channels).transpose(0, 1).reshape(x.shape)
    return y, None if stats is None else (stats[0].view(count, -1), stats[1].view(count, -1))


class _GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Normalize by ghost batches in training and by running statistics in evaluation."""

    def __init__(
        self, num_features: int, ghost_size: int = 32, eps: float = 1e-5,
        momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        if isinstance(ghost_size, bool) or not isinstance(ghost_size, int) or ghost_size < 2:
            raise ValueError(
                f"{type(self).__name__}: ghost_size must be a whole number of at least 2 samples, "
                f"got {ghost_size!r}"
            )
        self.ghost_size = ghost_size

    #: numbers of axes that an input may have
    axes: Sequence[int] = ()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.axes:
            wanted = " or ".join(f"{n} axes" for n in self.axes)
            raise ValueError(
                f"{type(self).__name__} takes an input of {wanted}, got {tuple(input.shape)}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` normalized; same shape."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        y, stats = ghost_batch_norm(
            input, self.weight, self.bias, self.ghost_size, self.eps, self.running_mean
        )
        if stats is not None and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                factor: float | Tensor = 0.0 if self.momentum is None else self.momentum
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
                    if self.momentum is None:  # plain average over all batches so far
                        factor = 1.0 / self.num_batches_tracked.to(stats[0].dtype)
                self.running_mean.lerp_(stats[0], factor)
                self.running_var.lerp_(stats[1], factor)
        return y

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


class GhostBatchNorm1d(_GhostBatchNorm):
    """Ghost batch normalization of ``(N, C)`` or ``(N, C, L)``; see :class:`GhostBatchNorm2d`.

    Math:
        as GhostBatchNorm2d, over the samples (and positions) of each ghost batch

    Args:
        num_features: channels C.
        ghost_size: samples of a ghost batch.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics; None for a plain average.
        affine: learn gamma and beta.
        track_running_stats: keep running statistics for evaluation.
        device: where the parameters are made.
        dtype: their number format.

    Raises:
        ValueError: ``ghost_size`` below 2, another number of axes, or one value a channel.

    Example:
        >>> layer = GhostBatchNorm1d(3, ghost_size=4)
        >>> layer(torch.randn(10, 3)).shape  # ghosts of 4, 4 and 2 samples
        torch.Size([10, 3])

    Reference:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    """

    axes = (2, 3)


@brick(
    "normalization",
    "ghost_batch_norm",
    aliases=("ghostbatchnorm", "gbn"),
    public="brickyard.nn",
    shares="one mean and variance a channel and ghost batch, over its samples and positions",
    summary="Batch norm over slices of a large batch, which keeps the noise of small batches.",
    use_when="The batch on a device is large (hundreds) and validation is worse than with the "
    "small batch that you scaled up from.",
    avoid_when="The batch is no larger than ghost_size: it is batch_norm then. Slices below about "
    "8 samples: statistics too noisy, as for batch_norm. Several devices: plain batch_norm "
    "already sees each device's share alone.",
    best_for="Large-batch training of convolutional classifiers; tables with TabNet. "
    "GhostBatchNorm1d and GhostBatchNorm2d by the number of spatial axes.",
    paper="Hoffer, Hubara & Soudry 2017, Train Longer, Generalize Better, arXiv:1705.08741; "
    "small slices: Wu & He 2018, arXiv:1803.08494, figure 1",
    tune_first="ghost_size: 16 to 64; then momentum.",
    cost="As batch_norm, with one call for each slice of images; a bias before it has no effect.",
    pairs_with=("relu", "kaiming_normal_"),
)
class GhostBatchNorm2d(_GhostBatchNorm):
    """Standardize each channel over slices of the batch in training.

    Math:
        ghost k: samples k * ghost_size to (k + 1) * ghost_size - 1, in the batch's order
        y = gamma * (x - mean_k) / sqrt(var_k + eps) + beta, over the ghost's samples and positions
        running <- (1 - momentum) * running + momentum * average over ghosts (by size) of mean_k
        and of the unbiased var_k: one update a batch; evaluation uses the running values

    Samples left over form a smaller ghost batch; a single value a channel joins the one before.
    The paper updates the running values once a ghost batch: with G of them, 1 - (1 - momentum)^G
    is the same speed here. State and options are those of ``torch.nn.BatchNorm2d``, whose
    checkpoints load.

    Args:
        num_features: channels C of ``(N, C, H, W)``.
        ghost_size: samples of a ghost batch.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics; None for a plain average.
        affine: learn gamma and beta.
        track_running_stats: keep running statistics for evaluation; otherwise evaluation uses
            those of the whole batch.
        device: where the parameters are made.
        dtype: their number format.

    Raises:
        ValueError: ``ghost_size`` below 2, another number of axes, or one value a channel.

    Example:
        >>> layer = GhostBatchNorm2d(3, ghost_size=2)
        >>> y = layer(torch.randn(4, 3, 5, 5))
        >>> y[:2].mean().abs().item() < 1e-6, y[2:].mean().abs().item() < 1e-6
        (True, True)

    Reference:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    """

    axes = (4,)
