"""Number formats of a training run: of the forward pass, of the weights, of the optimizer's step.

A precision is one object; the trainer asks it for the context of the forward pass, lets it store
the weights in its format, and gets a loss scaler where gradients need one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from brickyard.catalog import brick
from brickyard.optim import Optimizer as Ours
from brickyard.train.closure import innermost
from brickyard.train.scaling import LossScaler, ScaleOptions

__all__ = ["BF16", "FP16", "FP32", "BF16Weights", "FP16Weights", "Precision"]


class Precision:
    """Say in which formats a run computes; derive from this one for your own.

    Example:
        >>> with Precision().autocast(torch.device("cpu")):
        ...     nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
        torch.float32
    """

    #: What matrix products and convolutions are computed in; None for the weights' own format.
    compute: ClassVar[torch.dtype | None] = None
    #: What weights are stored in, except those of normalization layers; None for as they are.
    weights: ClassVar[torch.dtype | None] = None
    #: Whether the optimizer keeps an fp32 copy of weights in half precision.
    master_weights: bool = False
    #: How the loss is scaled; None for not at all.
    scale: ScaleOptions | None = None

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context of forward passes."""
        if self.compute is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute)

    def store(self, model: nn.Module) -> None:
        """Store the model's weights in this precision's format, each parameter in place.

        Those of normalization layers stay in fp32, and so do all buffers: means over many batches
        are sums of many terms.
        """
        if self.weights is None:
            return
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                continue
            for p in module.parameters(recurse=False):
                if p.dtype == torch.float32:
                    p.data = p.data.to(self.weights)

    def settle(self, optimizer: Optimizer) -> None:
        """Have the optimizer keep fp32 masters, where this precision wants them.

        Raises:
            ValueError: it has none.
        """
        if not self.master_weights or self.weights is None:
            return
        inner: Any = innermost(optimizer)
        if not isinstance(inner, Ours):
            raise ValueError(
                f"{type(inner).__name__} steps the weights themselves, and a small step on a "
                "half-precision weight rounds to nothing; take an optimizer of brickyard, which "
                "keeps fp32 masters, or bf16 or fp16, which leave the weights in fp32"
            )
        inner.master_weights = True

    def scaler(self, device: torch.device) -> LossScaler | None:
        """Return what scales the loss; None where gradients need no scale."""
        return None if self.scale is None else LossScaler(self.scale, device)


@brick(
    "precision", "fp32", aliases=("float32", "full"), public="brickyard.train.precision",
    summary="Everything in 32 bits: the reference that the others are compared with.",
    use_when="The machine has no fast 16-bit units, the model is small, or figures must be exact.",
    avoid_when="A large model on an accelerator with tensor cores: half of it is left unused.",
    best_for="CPUs, small models, second derivatives, line searches.",
    paper="IEEE 754-2019, binary32.",
    tune_first="Nothing.",
    cost="4 bytes a weight, 4 a gradient, and activations in full.",
    pairs_with=("bf16",),
)  # fmt: skip
class FP32(Precision):
    """Compute and store everything in fp32; weights given in another format stay in it.

    Math:
        24 significant bits, 1.2e-38 to 3.4e38

    Example:
        >>> FP32().scaler(torch.device("cpu")) is None
        True

    Reference:
        IEEE Standard for Floating-Point Arithmetic, IEEE 754-2019, section 3.6.
    """


@brick(
    "precision", "bf16", aliases=("bfloat16", "bf16_mixed"), public="brickyard.train.precision",
    summary="Matrix products in bfloat16 under autocast: the range of fp32 with 8 bits of it.",
    use_when="The accelerator has bfloat16 units (NVIDIA from Ampere, TPUs, recent CPUs).",
    avoid_when="CPUs without bfloat16 instructions: the rounding is emulated and slower than fp32.",
    best_for="Transformers and large models; the first choice where the hardware has it.",
    paper="Kalamkar et al. 2019 (arXiv:1905.12322).",
    tune_first="Nothing: the range is that of fp32, so no loss scale is needed.",
    cost="Half the memory of activations; weights, gradients and state stay in fp32.",
    pairs_with=("fp16", "clip_by_global_norm"),
)  # fmt: skip
class BF16(Precision):
    """Run the forward pass under autocast in bfloat16; the weights stay in fp32.

    Autocast keeps sums that cancel (softmax, losses) in fp32. The weights are the masters.

    Math:
        8 significant bits, 1.2e-38 to 3.4e38

    Example:
        >>> with BF16().autocast(torch.device("cpu")):
        ...     nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
        torch.bfloat16

    Reference:
        Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019, section 3.
    """

    compute = torch.bfloat16


@brick(
    "precision", "fp16", aliases=("float16", "fp16_mixed", "amp"),
    public="brickyard.train.precision",
    summary="Matrix products in float16 under autocast, with a loss scale that adapts itself.",
    use_when="The accelerator has float16 units and none for bfloat16 (NVIDIA Volta, Turing).",
    avoid_when="bf16 is there: it needs no scale and never overflows. Activations above 65504, "
    "which no loss scale can help.",
    best_for="Convolutional networks on older accelerators.",
    paper="Micikevicius et al. 2018 (arXiv:1710.03740), section 3.",
    tune_first="Nothing; init_scale lower when many first steps are skipped.",
    cost="As bf16, and one pass over the gradients that looks for overflow.",
    pairs_with=("bf16", "clip_by_global_norm"),
)  # fmt: skip
class FP16(Precision):
    """Run the forward pass under autocast in float16 with dynamic loss scaling.

    Gradients below 6e-8 vanish in float16, so the loss is multiplied by a scale before the backward
    pass and the gradients are divided by it before anybody looks at them: clipping, norms, the
    step. A step whose gradients overflowed is left out, and so is its place in the schedule.

    Math:
        backward(S * L);  g = grad / S
        overflow:                     the step is left out, S = backoff_factor * S
        growth_interval good steps:   S = growth_factor * S

    Args:
        init_scale: the first S; a power of two, so that it changes exponents only.
        growth_factor: what S is multiplied by after good steps; above 1.
        backoff_factor: what S is multiplied by after an overflow; between 0 and 1.
        growth_interval: good steps in a row before S grows.
        min_scale: an overflow below it ends the run: the fault is not in the scale.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> scaler = FP16(init_scale=1024.0).scaler(torch.device("cpu"))
        >>> scaler.value
        1024.0

    Reference:
        Micikevicius et al., Mixed Precision Training, ICLR 2018, sections 3.1 and 3.2.
    """

    compute = torch.float16

    def __init__(
        self, init_scale: float = 65536.0, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, min_scale: float = 1e-4,
    ):  # fmt: skip
        self.scale = ScaleOptions(
            init_scale, growth_factor, backoff_factor, growth_interval, min_scale
        )


@brick(
    "precision", "bf16_weights", aliases=("bf16_true", "pure_bf16"),
    public="brickyard.train.precision",
    summary="Weights and gradients in bfloat16 too, with fp32 masters in the optimizer's state.",
    use_when="Weights and gradients crowd the memory, and the accelerator has bfloat16 units.",
    avoid_when="Activations are what fills the memory: bf16 halves these alone and is simpler.",
    best_for="Large language models.",
    paper="Micikevicius et al. 2018 (arXiv:1710.03740), section 3.1; Rae et al. 2021 "
    "(arXiv:2112.11446), appendix C2, on weights in bfloat16 without masters.",
    tune_first="Nothing; master_weights: false only when even these do not fit.",
    cost="2 bytes a weight and 2 a gradient, and 4 a weight in the optimizer's state.",
    pairs_with=("bf16", "adamw"),
)  # fmt: skip
class BF16Weights(Precision):
    """Store the weights in bfloat16; the optimizer steps fp32 copies and rounds them.

    Normalization layers keep fp32 weights, and buffers stay in fp32. Checkpoints hold the copies;
    the exported weights are the rounded ones.

    Math:
        w32 = w32 - lr * u(grad(w16));  w16 = bf16(w32)

    Args:
        master_weights: keep the fp32 copies; without, steps below 1/256 of a weight are lost.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> BF16Weights().store(model)
        >>> model.weight.dtype
        torch.bfloat16

    Reference:
        Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.1.
    """

    compute = weights = torch.bfloat16

    def __init__(self, master_weights: bool = True):
        self.master_weights = master_weights


@brick(
    "precision", "fp16_weights", aliases=("fp16_true", "pure_fp16"),
    public="brickyard.train.precision",
    summary="Weights and gradients in float16 too, scaled, with fp32 masters in the state.",
    use_when="Weights and gradients crowd the memory, and the accelerator has no bfloat16 units.",
    avoid_when="bf16_weights is there. Gradients must be clipped: unscaled in float16, small ones "
    "would vanish again, so the trainer refuses it.",
    best_for="Large models on accelerators without bfloat16.",
    paper="Micikevicius et al. 2018 (arXiv:1710.03740), section 3.1.",
    tune_first="init_scale: weights' gradients are stored in float16 and overflow earlier.",
    cost="2 bytes a weight and 2 a gradient, and 4 a weight in the optimizer's state.",
    pairs_with=("fp16", "adamw"),
)  # fmt: skip
class FP16Weights(Precision):
    """Store the weights in float16, scale the loss, and step fp32 copies of the weights.

    The optimizer divides by the scale in fp32, in its own pass. Normalization layers keep fp32
    weights, and buffers stay in fp32. Checkpoints hold the copies.

    Math:
        w32 = w32 - lr * u(grad(w16) / S);  w16 = fp16(w32)

    Args:
        init_scale: the first S; a power of two, so that it changes exponents only.
        growth_factor: what S is multiplied by after good steps; above 1.
        backoff_factor: what S is multiplied by after an overflow; between 0 and 1.
        growth_interval: good steps in a row before S grows.
        min_scale: an overflow below it ends the run: the fault is not in the scale.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> FP16Weights().store(model)
        >>> [p.dtype for p in model.parameters()][1:3]
        [torch.float16, torch.float32]

    Reference:
        Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.1.
    """

    compute = weights = torch.float16
    master_weights = True

    def __init__(
        self, init_scale: float = 65536.0, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, min_scale: float = 1e-4,
    ):  # fmt: skip
        self.scale = ScaleOptions(
            init_scale, growth_factor, backoff_factor, growth_interval, min_scale
        )
