"""Change sound: masked spectrograms, shifted signals."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from brickyard.augment.base import (
    Transform,
    check_floats,
    check_mode,
    check_probability,
    chosen,
    like_layout,
    uniform,
    whole,
)
from brickyard.catalog import brick

__all__ = ["SpecAugment", "TimeShift", "shift_time", "warp_time"]


def warp_time(x: Tensor, centre: Tensor, moved: Tensor) -> Tensor:
    """Return signals whose time runs faster before a point and slower after it, or reversed.

    Args:
        x: signals, shape (N, ..., T).
        centre: the point in the result, shape (N,), between the ends.
        moved: where that point was in the signal, shape (N,).
    """
    n, last = len(x), x.shape[-1] - 1
    at = torch.arange(last + 1, device=x.device, dtype=torch.float32)
    c, m = centre[:, None], moved[:, None]
    source = torch.where(at <= c, at * m / c, m + (at - c) * (last - m) / (last - c))
    low = source.floor().clamp(0, last).long()
    share = (source - low).to(x.dtype)

    def row(index: Tensor) -> Tensor:
        shape = (n, *(1,) * (x.ndim - 2), last + 1)
        return x.gather(-1, index.view(shape).expand(x.shape))

    return torch.lerp(row(low), row((low + 1).clamp_max(last)),
                      share.view(n, *(1,) * (x.ndim - 2), last + 1))  # fmt: skip


@brick(
    "augmentation",
    "spec_augment",
    aliases=("specaugment", "frequency_mask", "time_mask"),
    summary="Blanks random bands of frequencies and stretches of time in spectrograms.",
    use_when="Speech or sound recognition on log-mel spectrograms.",
    avoid_when="Raw waveforms (time_shift, gaussian_noise), or very short sounds that a mask hides "
    "whole.",
    best_for="Speech recognition with attention or CTC, sound events.",
    paper="Park et al. 2019, SpecAugment, arXiv:1904.08779",
    tune_first="freq_width: about a third of the bands; time_width after it.",
    cost="One masked copy of the batch; with warp, one resampling.",
    pairs_with=("ctc", "time_shift"),
)
class SpecAugment(Transform):
    """Mask bands of frequencies and stretches of time of every spectrogram, after warping time.

    Math:
        width ~ U{0 .. limit}, start ~ U{0 .. size - width};  x[start : start + width] = fill

    Args:
        freq_masks: bands a spectrogram.
        freq_width: widest band, in frequency bins.
        time_masks: stretches a spectrogram.
        time_width: longest stretch, in frames.
        time_share: longest stretch as a share of all frames; the paper's p, 1.0 for LibriSpeech
            and 0.2 for Switchboard.
        warp: largest shift of a random point in time, in frames; 0 warps nothing. The paper finds
            it least useful.
        fill: what masks hold: ``"zero"``, or the ``"mean"`` of the spectrogram.
        p: probability that a spectrogram is changed.

    Raises:
        ValueError: an option out of range, samples that are no spectrograms, or a band wider than
            all of them.

    Example:
        >>> x = torch.ones(2, 80, 200)
        >>> masked, _ = SpecAugment()(x, None, torch.Generator().manual_seed(0))
        >>> masked.shape, bool((masked == 0).any())
        (torch.Size([2, 80, 200]), True)

    Reference:
        Park et al. 2019, arXiv:1904.08779, section 2 and table 1 (policy LD, with p of SM).
    """

    def __init__(
        self, freq_masks: int = 2, freq_width: int = 27, time_masks: int = 2,
        time_width: int = 100, time_share: float = 0.2, warp: int = 0,
        fill: Literal["zero", "mean"] = "zero", p: float = 1.0,
    ) -> None:  # fmt: skip
        self.freq_masks, self.freq_width = whole("freq_masks", freq_masks), whole(
            "freq_width", freq_width)  # fmt: skip
        self.time_masks, self.time_width = whole("time_masks", time_masks), whole(
            "time_width", time_width)  # fmt: skip
        self.time_share = check_probability("time_share", time_share)
        self.warp = whole("warp", warp)
        self.fill = check_mode("fill", fill, ("zero", "mean"))
        self.p = check_probability("p", p)

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return masked spectrograms, and ``y`` as it came.

        Args:
            x: floating-point spectrograms, shape (N, F, T) or (N, C, F, T).
            y: targets; never touched.
            generator: source of all randomness; torch's default generator when None.
        """
        check_floats(x, "SpecAugment", "spectrograms")
        if x.ndim not in (3, 4):
            raise ValueError(f"SpecAugment takes (N, F, T) or (N, C, F, T), got {tuple(x.shape)}")
        bands, frames = x.shape[-2:]
        if self.freq_masks and self.freq_width > bands:
            raise ValueError(f"freq_width={self.freq_width} is wider than all {bands} bands; "
                             "a third of them is a good start")  # fmt: skip
        on = chosen(self.p, len(x), x, generator)
        warped = self._warped(x, generator)
        longest = min(self.time_width, int(self.time_share * frames))
        hidden = self._masks(bands, self.freq_masks, self.freq_width, x, generator)[:, :, None]
        hidden = hidden | self._masks(frames, self.time_masks, longest, x, generator)[:, None, :]
        hidden = hidden.view(len(x), *(1,) * (x.ndim - 3), bands, frames)
        axes = tuple(range(1, x.ndim))
        fill = warped.mean(axes, keepdim=True) if self.fill == "mean" else warped.new_zeros(())
        return torch.where(on.view(-1, *(1,) * (x.ndim - 1)),
                           torch.where(hidden, fill, warped), x), y  # fmt: skip

    def _warped(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        n, frames = len(x), x.shape[-1]
        if not self.warp:
            return x
        if frames <= 2 * self.warp:
            raise ValueError(f"warp={self.warp} needs more than {2 * self.warp} frames, "
                             f"got {frames}")  # fmt: skip
        # The point lies in [warp, frames - 1 - warp] and moves by less than warp: time stays in
        # order.
        point = self.warp + uniform(n, x, generator) * (frames - 1 - 2 * self.warp)
        way = (2 * uniform(n, x, generator) - 1) * self.warp
        return warp_time(x, point, (point + way).clamp(0, frames - 1))

    @staticmethod
    def _masks(
        size: int, count: int, widest: int, x: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return where any of ``count`` random intervals lies, shape (N, size)."""
        width, place = uniform((2, len(x), count), x, generator)
        width = (width * (widest + 1)).long()
        start = (place * (size - width + 1)).long()
        at = torch.arange(size, device=x.device)
        inside = (at >= start[..., None]) & (at < (start + width)[..., None])
        return inside.any(1)


def shift_time(x: Tensor, steps: Tensor, fill: str = "zeros", value: float = 0.0) -> Tensor:
    """Return signals moved along their last axis.

    Args:
        x: signals, shape (N, ..., T).
        steps: how far each moves to the right, whole numbers of shape (N,).
        fill: what comes in: ``"zeros"`` (``value``), ``"edge"``, or ``"roll"``: what went out.
        value: for ``"zeros"``.

    Example:
        >>> shift_time(torch.tensor([[1, 2, 3]]), torch.tensor([1]))
        tensor([[0, 1, 2]])
    """
    t = x.shape[-1]
    source = torch.arange(t, device=x.device) - steps.to(x.device)[:, None]
    index = source % t if fill == "roll" else source.clamp(0, t - 1)
    shape = (len(x), *(1,) * (x.ndim - 2), t)
    out = x.gather(-1, index.view(shape).expand(x.shape))
    if fill == "zeros":
        out = out.masked_fill(((source < 0) | (source >= t)).view(shape), value)
    return like_layout(out, x)


@brick(
    "augmentation",
    "time_shift",
    aliases=("random_shift_time",),
    summary="Moves every signal by its own random time.",
    use_when="Sounds, vibrations or other series whose exact start says nothing about the class.",
    avoid_when="Time of day or season is a feature, or the position of an event is the target.",
    best_for="Keyword spotting, sound events, sensor windows.",
    paper="Salamon & Bello 2017, Deep Convolutional Neural Networks and Data Augmentation for "
    "Environmental Sound Classification, arXiv:1608.04363 (related deformations)",
    tune_first="limit: as far as events may move without leaving the window.",
    cost="One gather per batch.",
    pairs_with=("spec_augment", "gaussian_noise"),
)
class TimeShift(Transform):
    """Move every signal along time by a random number of steps.

    Math:
        x[t] <- x[t - s],  s ~ U{-limit T .. limit T}

    Args:
        limit: largest shift, as a share of the length T.
        fill: what comes in at the end: ``"zeros"``, ``"edge"`` the outermost value, or ``"roll"``
            what went out at the other.
        p: probability that a signal moves.
        frames: ``y`` has a label for every step, shape (N, ..., T), which moves with the signal.
        label_fill: label of steps that come in with fill ``"zeros"``; -100 is what cross_entropy
            ignores.

    Raises:
        ValueError: an option out of range, samples without a time axis, or labels of another
            length.

    Example:
        >>> x = torch.arange(10.0).expand(3, 10)
        >>> TimeShift(limit=0.3)(x, None, torch.Generator().manual_seed(0))[0].shape
        torch.Size([3, 10])

    Reference:
        Salamon & Bello 2017, arXiv:1608.04363, section II.B, for deformations of this kind.
    """

    def __init__(
        self, limit: float = 0.1, fill: Literal["zeros", "edge", "roll"] = "zeros",
        p: float = 1.0, frames: bool = False, label_fill: int = -100,
    ) -> None:  # fmt: skip
        self.limit, self.p = check_probability("limit", limit), check_probability("p", p)
        self.fill = check_mode("fill", fill, ("zeros", "edge", "roll"))
        if label_fill != -100 and (not frames or fill != "zeros"):
            raise ValueError(
                f"label_fill={label_fill!r} has no effect without frames=True and fill='zeros'"
            )
        self.frames, self.label_fill = frames, label_fill

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return moved signals, and labels of steps moved with them.

        Args:
            x: signals, shape (N, T) or (N, ..., T).
            y: targets.
            generator: source of all randomness; torch's default generator when None.
        """
        if x.ndim < 2:
            raise ValueError(f"TimeShift takes signals of shape (N, ..., T), got {tuple(x.shape)}")
        n, t = len(x), x.shape[-1]
        most = int(self.limit * t)
        draws = uniform(n, x, generator)
        steps = (draws * (2 * most + 1)).long() - most
        steps = torch.where(chosen(self.p, n, x, generator), steps, 0)
        out = shift_time(x, steps, self.fill)
        if not self.frames:
            return out, y
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != n or y.shape[-1] != t:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"frames=True needs labels of shape (N, ..., T) with N={n} and T={t}, "
                             f"got {got}")  # fmt: skip
        return out, shift_time(y, steps, self.fill, self.label_fill)
