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
    """Standardize each channel over ghost batches of ``ghost_size`` samples.

    Args:
        x: ``(N, C)`` or ``(N, C, *)``. Of G whole ghost batches the k-th has samples k, k + G,
            k + 2 G, ...; what is left over at the end forms a smaller one, but a single value a
            channel, which has no variance, makes one of the last ``ghost_size + 1`` samples.
        weight: gamma, ``(C,)``; None for 1.
        bias: beta, ``(C,)``; None for 0.
        ghost_size: samples of a ghost batch, at least 1.
        eps: added to the variance.
        like: tensor ``(C,)`` whose format the statistics are to have; None for no statistics.

    Returns:
        The result, and for ``like`` the mean and the unbiased variance of a channel, averaged
        over the ghost batches by their sizes.

    Raises:
        ValueError: one value a channel in all, a channel count that is not that of ``weight``, or
            ``ghost_size`` below 1.
    """
    _check(x, weight if weight is not None else like, ghost_size)
    count, rest = divmod(len(x), ghost_size)
    if rest * x.shape[2:].numel() == 1 and count:
        count, rest = count - 1, ghost_size + 1
    whole = len(x) - rest
    parts = [(x[:whole] if rest else x, count)] * (count > 0) + [(x[whole:], 1)] * (rest > 0)
    done = [_ghosts(part, weight, bias, n, eps, like) for part, n in parts or [(x, 1)]]
    y = done[0][0] if len(done) == 1 else torch.cat([part for part, _ in done])
    stats = [rows for _, rows in done if rows is not None]
    if len(stats) < 2:
        return y, stats[0] if stats else None
    share = rest / len(x)
    return y, (torch.lerp(stats[0][0], stats[1][0], share),
               torch.lerp(stats[0][1], stats[1][1], share))  # fmt: skip


def _check(x: Tensor, each: Tensor | None, ghost_size: int) -> None:
    if ghost_size < 1:
        raise ValueError(f"ghost_batch_norm: ghost_size must be at least 1, got {ghost_size}")
    if x.ndim < 2 or (each is not None and x.shape[1] != len(each)):
        count = "C" if each is None else len(each)
        raise ValueError(
            f"GhostBatchNorm takes (N, {count}, *) with the channels second, got {tuple(x.shape)}"
        )
    if len(x) * x.shape[2:].numel() == 1:
        raise ValueError(
            f"GhostBatchNorm needs more than one value a channel when training, got "
            f"{tuple(x.shape)}; drop the last batch (drop_last=True), or take layer_norm"
        )


def _ghosts(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float,
    like: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:  # fmt: skip
    """Normalize ``count`` ghost batches of one size at once: each (ghost, channel) is a channel.

    Every count-th sample is of one ghost batch, so that in memory the channels of ``count`` samples
    in a row are those of all ghosts: a view says it all. With channels last in memory, positions
    stand between the two, and one copy each way moves rows of channels.
    """
    channels = x.shape[1]
    last = count > 1 and x.ndim > 2 and x.stride(1) == 1 and not x.is_contiguous()
    if last:
        rows = x.movedim(1, -1).reshape(len(x) // count, count, -1, channels)
        seen = rows.transpose(1, 2).reshape(-1, count * channels)
    else:
        seen = x if count == 1 else x.reshape(-1, count * channels, *x.shape[2:])
    gamma, beta = (None if t is None else t.repeat(count) for t in (weight, bias))
    if like is None:
        y, stats = F.batch_norm(seen, None, None, gamma, beta, True, 0.0, eps), None
    else:
        mean, var = (like.new_zeros(count * channels) for _ in range(2))
        y = F.batch_norm(seen, mean, var, gamma, beta, True, 1.0, eps)  # momentum 1: its own
        stats = mean.view(count, -1).mean(0), var.view(count, -1).mean(0)
    if last:
        rows = y.view(len(x) // count, -1, count, channels).transpose(1, 2)
        return rows.reshape(len(x), *x.shape[2:], channels).movedim(-1, 1), stats
    return y.view(x.shape) if count > 1 else y, stats


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
    summary="Batch norm over parts of a large batch, which keeps the noise of small batches.",
    use_when="The batch on a device is large (hundreds) and validation is worse than with the "
    "small batch that you scaled up from.",
    avoid_when="The batch is no larger than ghost_size: it is batch_norm then. Parts of below "
    "about 8 samples: statistics too noisy, as for batch_norm. Several devices: plain batch_norm "
    "already sees each device's share alone, in a loop of your own or with sync_batch_norm: false.",
    best_for="Large-batch training of convolutional classifiers; tables with TabNet. "
    "GhostBatchNorm1d and GhostBatchNorm2d by the number of spatial axes.",
    paper="Hoffer, Hubara & Soudry 2017, Train Longer, Generalize Better, arXiv:1705.08741; "
    "small parts: Wu & He 2018, arXiv:1803.08494, figure 1",
    tune_first="ghost_size: 16 to 64; then momentum.",
    cost="As batch_norm: one call by view; with channels last in memory, a copy more each way. A "
    "bias before it has no effect.",
    pairs_with=("relu", "kaiming_normal_"),
)
class GhostBatchNorm2d(_GhostBatchNorm):
    """Standardize each channel over parts of the batch in training.

    Math:
        ghost k of G = N // ghost_size: samples k, k + G, k + 2 G, ... of the batch
        y = gamma * (x - mean_k) / sqrt(var_k + eps) + beta, over the ghost's samples and positions
        running <- (1 - momentum) * running + momentum * average over ghosts (by size) of mean_k
        and of the unbiased var_k: one update a batch; evaluation uses the running values

    Samples left over at the end form a smaller ghost batch; a single value a channel joins the
    samples before it. The paper takes samples in a row; in a shuffled batch it makes no difference,
    and every G-th sample needs no copy (Keras' virtual batches are the same).
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
        >>> y[::2].mean().abs().item() < 1e-6, y[1::2].mean().abs().item() < 1e-6
        (True, True)

    Reference:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    """

    axes = (4,)
