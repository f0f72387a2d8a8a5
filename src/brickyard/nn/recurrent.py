"""A convolutional network with a recurrent one on top: it reads strips from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.nn.build import Spec, drop, init_weights, make_layer, normalize
from brickyard.nn.shapes import channels_of, real, size_of, sizes_of, start_head

__all__ = ["CRNN"]


@brick(
    "model", "crnn", aliases=("conv_recurrent",), public="brickyard.nn",
    summary="Convolutions over a strip, then a recurrent layer both ways: outputs a column.",
    use_when="Lines of text or digits, or spectrograms, read with CTC.",
    avoid_when="Whole pages, or one answer for the whole image (cnn).",
    best_for="Strips of some dozen pixels height with CTC.",
    paper="Shi, Bai & Yao 2017, An End-to-End Trainable Neural Network for Image-based Sequence "
    "Recognition, arXiv:1507.05717",
    tune_first="stride: frames must outnumber the symbols; then hidden.",
    cost="With its defaults on strips of 8 x 66: 0.1 million parameters; the recurrence is serial.",
    pairs_with=("ctc", "batch_norm", "digit_strips", "spec_augment"),
)  # fmt: skip
class CRNN(nn.Module):
    """Let convolutions see and a recurrent layer read; one output for every frame.

    Math:
        frames: twice act(norm(conv_3x3(x))), the first with the given stride along the width and
        both with stride 2 along the height; h = recurrent(frames), from both ends;
        y_t = W h_t + b

    Args:
        input_shape: shape ``(C, H, W)`` of one strip.
        outputs: outputs a frame.
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the recurrent layer in each direction; 0 leaves it out.
        stride: columns a frame.
        cell: kind of the recurrent layer.
        activation: key or mapping of an activation.
        normalization: key or mapping of a normalization; None for none.
        dropout: key or mapping of a dropout behind the second convolution; None for none.
        init: key or mapping of an initializer of the convolutions' weights; None keeps torch's
            own start.

    Raises:
        ValueError: a size below 1, or ``input_shape`` that is not ``(C, H, W)``.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> import torch
        >>> CRNN((1, 8, 66), 11, width=8, hidden=16)(torch.zeros(2, 1, 8, 66)).shape
        torch.Size([2, 33, 11])

    Reference:
        Shi, Bai & Yao 2017, arXiv:1507.05717, section 2; one recurrent layer in place of two.
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, *, width: int = 32, hidden: int = 48,
        stride: int = 2, cell: Literal["gru", "lstm"] = "gru", activation: Spec = "relu",
        normalization: Spec = "batch_norm", dropout: Spec = None, init: Spec = "kaiming_normal_",
    ) -> None:  # fmt: skip
        super().__init__()
        shape = sizes_of("input_shape", input_shape)
        if len(shape) != 3:
            raise ValueError(f"input_shape of a crnn must be (C, H, W), got {shape}")
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell must be 'gru' or 'lstm'; got {cell!r}")
        layers, channels, size = list[nn.Module](), shape[0], shape[1:]
        for i, wide in enumerate((size_of("width", width), 2 * width)):
            steps = (2, size_of("stride", stride) if i == 0 else 1)
            size = [-(-side // step) for side, step in zip(size, steps, strict=True)]
            sizes = channels_of(wide, size)
            conv = nn.Conv2d(channels, wide, 3, steps, padding=1)
            conv, norm = normalize(conv, normalization, dims=2, **sizes)
            noise: nn.Module = nn.Identity()
            if i == 1:
                conv, noise = drop(conv, dropout, dims=2, **sizes)
            layers += real(conv, norm, make_layer("activation", activation, dims=2, **sizes), noise)
            channels = wide
        self.body = nn.Sequential(*layers)
        seen = channels * size[0]
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        reads = size_of("hidden", hidden, least=0) > 0
        self.recurrent = kind(seen, hidden, batch_first=True, bidirectional=True) if reads else None
        self.head = nn.Linear(2 * hidden if reads else seen, size_of("outputs", outputs))
        init_weights(self.body, init)
        start_head(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, frames, outputs)`` for ``(N, C, H, W)``."""
        frames = self.body(x).permute(0, 3, 1, 2).flatten(2)
        if self.recurrent is not None:
            frames, _ = self.recurrent(frames)
        return self.head(frames)
