"""Losses between predicted classes and true ones: binary, multi-class, log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Reduction,
    Validate,
    Weights,
    check_class_weight,
    check_finite,
    check_floating,
    check_interval,
    check_modes,
    check_not_empty,
    check_number,
    reduce,
    single,
)
from brickyard.losses._targets import (
    check_binary,
    check_classes,
    check_probabilities,
    refuse_softmax,
)

__all__ = [
    "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss", "bce_with_logits_loss",
    "cross_entropy_loss", "nll_loss",
]  # fmt: skip

_WIDE = (torch.float32, torch.float64)


def bce_with_logits_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    weight: Tensor | None = None, pos_weight: Tensor | None = None, label_smoothing: float = 0.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the binary cross-entropy of logits; see :class:`BCEWithLogitsLoss`."""
    who = "bce_with_logits_loss"
    check_modes(who, reduction, validate)
    check_number(who, "label_smoothing", label_smoothing, 0.0, 1.0)
    input, target = check_binary(who, input, target, reduction, validate)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / 2
    plain = sample_weight is None
    loss = F.binary_cross_entropy_with_logits(
        input, target, weight, pos_weight=pos_weight, reduction=reduction if plain else "none"
    )
    return loss if plain else reduce(who, loss, reduction, sample_weight)


def cross_entropy_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    weight: Tensor | None = None, ignore_index: int = -100, label_smoothing: float = 0.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the cross-entropy of class logits; see :class:`CrossEntropyLoss`."""
    who = "cross_entropy_loss"
    check_modes(who, reduction, validate)
    check_number(who, "label_smoothing", label_smoothing, 0.0, 1.0)
    if sample_weight is None and reduction == "mean" and validate == "cheap":
        loss = _plain_mean(input, target, weight, ignore_index, label_smoothing)
        if loss is not None:
            return loss
    check_floating(who, "input", input)
    check_not_empty(who, input, reduction)
    axis = 1 if input.dim() > 1 else 0
    if target.is_floating_point():
        check_probabilities(who, input, target, axis, validate)
        nothing: bool | Tensor = False
        target = target.to(single(input).dtype)
    else:
        target, nothing, _ = check_classes(who, input, target, axis, ignore_index, validate)
    if validate == "full":
        check_finite(who, input=input)
        refuse_softmax(who, input, axis)
    input = single(input)
    plain = sample_weight is None
    loss = F.cross_entropy(
        input, target, weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
        reduction=reduction if plain else "none",
    )  # fmt: skip
    if plain:
        return _zero_if(nothing, loss) if reduction == "mean" else loss
    share = None if target.is_floating_point() else _share(loss, target, weight, ignore_index)
    return reduce(who, loss, reduction, sample_weight, share)


def nll_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    weight: Tensor | None = None, ignore_index: int = -100,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the negative log-likelihood of the true classes; see :class:`NLLLoss`."""
    who = "nll_loss"
    check_modes(who, reduction, validate)
    check_floating(who, "input", input)
    check_not_empty(who, input, reduction)
    axis = 1 if input.dim() > 1 else 0
    target, nothing, _ = check_classes(who, input, target, axis, ignore_index, validate)
    if validate == "full":
        why = "These are no log-probabilities: apply log_softmax, or give logits to cross_entropy."
        check_interval(who, "input", input, float("-inf"), 1e-4, why, full=True)
    input = single(input)
    plain = sample_weight is None
    loss = F.nll_loss(
        input, target, weight, ignore_index=ignore_index, reduction=reduction if plain else "none"
    )
    if plain:
        return _zero_if(nothing, loss) if reduction == "mean" else loss
    share = _share(loss, target, weight, ignore_index)
    return reduce(who, loss, reduction, sample_weight, share)


def _plain_mean(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smoothing: float
) -> Tensor | None:
    """Return the mean over class indices of a plain batch on the CPU, or None: look closer.

    There torch checks the range of indices itself, so that the usual batch of a small model need
    not be read twice (a third of the loss's time for 64 samples of 10 classes). Whatever is out of
    the ordinary goes through the door, which finds the words for it.
    """
    ordinary = (
        not torch.compiler.is_compiling() and type(input) is Tensor and type(target) is Tensor
        and input.dtype in _WIDE and target.dtype is torch.int64
        and input.dim() == 2 and input.is_cpu and target.is_cpu
        and target.shape == input.shape[:1] and input.shape[0] > 0 and input.shape[1] > 1
    )  # fmt: skip
    if not ordinary:
        return None
    try:
        loss = F.cross_entropy(
            input, target, weight, ignore_index=ignore_index, label_smoothing=smoothing
        )
        nothing = bool(loss.isnan()) and bool((target == ignore_index).all())
        return None if nothing else loss
    except (IndexError, RuntimeError):  # an index out of range; vmap, which has no values
        return None


def _zero_if(nothing: bool | Tensor, loss: Tensor) -> Tensor:
    """Return 0 where every target was ignored: torch's mean is 0/0 there."""
    if nothing is False:
        return loss
    where = torch.as_tensor(nothing, device=loss.device)
    return torch.where(where, torch.zeros_like(loss), loss)


def _share(loss: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """Return what each target counts for in the mean: its class's weight, or 0 if ignored."""
    kept = target != ignore_index
    if weight is None:
        return kept.to(loss.dtype)
    return weight.to(loss.dtype)[torch.where(kept, target, 0)] * kept


@brick(
    "loss", "bce", aliases=("log_loss",), public="brickyard.losses", output="logits",
    target="binary",
    summary="Negative log-likelihood of yes/no targets, computed from logits.",
    use_when="Two classes, or several labels that may hold at once, one logit each.",
    avoid_when="Exactly one of several classes is true: take cross_entropy.",
    best_for="Binary classifiers and multi-label heads.",
    paper="Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.90",
    tune_first="pos_weight when positives are rare (negatives / positives is the balanced choice)",
    cost="One pass over the logits.",
    pairs_with=("adamw",),
)  # fmt: skip
class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """Measure binary cross-entropy from logits.

    torch's class with a door, and with label smoothing. The sigmoid is inside: a network that
    ends in a sigmoid is refused by recipes and found by ``validate="full"``.

    Math:
        t   = (1 - label_smoothing)*y + label_smoothing/2
        l_i = w_i * (pos_weight*t*softplus(-x) + (1 - t)*softplus(x))

    Args:
        weight: torch's rescaling of single elements, broadcast against the loss; the mean still
            divides by the count (``sample_weight`` divides by the sum of weights).
        size_average: deprecated in torch, kept for its signature.
        reduce: deprecated in torch, kept for its signature.
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        pos_weight: factor on the positive term; one number, or one per label (last axis).
        label_smoothing: share of the target spread evenly over yes and no; 0 to 1.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that targets lie in [0, 1];
            ``"full"`` also refuses non-finite values and inputs that are probabilities.

    Shape:
        input and target ``(*)``; target real, integer or bool, in [0, 1]; ``sample_weight``
        ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, a target lies outside [0, 1], the batch is empty.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> loss = BCEWithLogitsLoss(pos_weight=2.0)
        >>> loss(torch.tensor([0.0, 0.0]), torch.tensor([1, 0]))
        tensor(1.0397)

    Reference:
        Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.90; label smoothing as in
        Szegedy et al. 2016, Rethinking the Inception Architecture, section 7, with two classes.
    """

    def __init__(
        self, weight: Weights = None, size_average: bool | None = None,
        reduce: bool | None = None, reduction: Reduction = "mean",
        pos_weight: float | Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0,
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(
            check_class_weight("BCEWithLogitsLoss", weight), size_average, reduce, reduction,
            check_class_weight("BCEWithLogitsLoss", pos_weight, "pos_weight"),
        )  # fmt: skip
        check_modes("BCEWithLogitsLoss", self.reduction, validate)
        check_number("BCEWithLogitsLoss", "label_smoothing", label_smoothing, 0.0, 1.0)
        self.label_smoothing = label_smoothing
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return bce_with_logits_loss(
            input, target, sample_weight, self.weight, self.pos_weight, self.label_smoothing,
            self.reduction, self.validate,
        )  # fmt: skip


@brick(
    "loss", "cross_entropy", aliases=("categorical_cross_entropy",), public="brickyard.losses",
    output="logits", target="class indices or probabilities",
    summary="Negative log-likelihood of the true class under a softmax, computed from logits.",
    use_when="Exactly one of several classes is true, or the target is a distribution over them.",
    avoid_when="Labels are not exclusive (take bce); the last axis is no set of classes.",
    best_for="Classification and language modelling.",
    paper="Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.108",
    tune_first="label_smoothing (0.1 for large image classifiers), then class weights",
    cost="One log-softmax over the classes.",
    pairs_with=("adamw", "sgd"),
)  # fmt: skip
class CrossEntropyLoss(nn.CrossEntropyLoss):
    """Measure the cross-entropy of class logits against indices or probabilities.

    torch's class with a door. The softmax is inside. Smoothing puts ``label_smoothing / K`` on
    every class, the true one too (torch's and Szegedy's form). A batch whose targets are all
    ignored has loss 0 and zero gradients, where torch returns NaN.

    Math:
        t   = (1 - label_smoothing)*onehot(y) + label_smoothing/K
        l_i = -sum_c weight_c * t_c * log softmax(x_i)_c
        mean over indices = sum_i l_i / sum_i weight_{y_i}

    Args:
        weight: one factor per class.
        size_average: deprecated in torch, kept for its signature.
        ignore_index: targets of this value count for nothing; indices only.
        reduce: deprecated in torch, kept for its signature.
        reduction: ``"mean"`` (divided by the class and sample weights of the targets that count),
            ``"sum"``, or ``"none"``.
        label_smoothing: share of the target spread evenly over the classes; 0 to 1.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite logits, rows that are probabilities already, and
            probability targets that do not sum to one.

    Shape:
        input ``(C,)`` or ``(N, C, *)``; target: integers ``()`` or ``(N, *)``, or probabilities
        in the shape of input; ``sample_weight`` ``(N,)`` or ``(N, *)``.

    Raises:
        ValueError: shapes do not match, an index is outside ``[0, C)``, there is one class only,
            the batch is empty.
        TypeError: the input is not floating point, the target is bool.

    Example:
        >>> import torch
        >>> loss = CrossEntropyLoss()
        >>> loss(torch.zeros(2, 4), torch.tensor([0, 3]))  # nothing known: ln 4
        tensor(1.3863)

    Reference:
        Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.108; label smoothing:
        Szegedy et al. 2016, Rethinking the Inception Architecture, section 7.
    """

    def __init__(
        self, weight: Weights = None, size_average: bool | None = None, ignore_index: int = -100,
        reduce: bool | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0,
        validate: Validate = "cheap",
    ):  # fmt: skip
        weight = check_class_weight("CrossEntropyLoss", weight)
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        check_modes("CrossEntropyLoss", self.reduction, validate)
        check_number("CrossEntropyLoss", "label_smoothing", label_smoothing, 0.0, 1.0)
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return cross_entropy_loss(
            input, target, sample_weight, self.weight, self.ignore_index, self.label_smoothing,
            self.reduction, self.validate,
        )  # fmt: skip


@brick(
    "loss", "nll", public="brickyard.losses", output="log-probabilities", target="class indices",
    summary="Minus the log-probability given to the true class.",
    use_when="The network already returns log-probabilities, from log_softmax or a mixture.",
    avoid_when="It returns logits (take cross_entropy) or probabilities (take their log first).",
    best_for="Mixtures, hierarchical softmax, ensembles averaged in probability space.",
    paper="Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.108",
    tune_first="class weights when classes are unbalanced",
    cost="One gather; no softmax of its own.",
    pairs_with=("cross_entropy", "adamw"),
)  # fmt: skip
class NLLLoss(nn.NLLLoss):
    """Measure minus the log-probability of the true class.

    torch's class with a door. The input must be log-probabilities: torch takes anything, and
    raw logits then give a loss that falls without bound. ``validate="full"`` finds that.

    Math:
        l_i = -weight_{y_i} * x_{i, y_i};  mean = sum_i l_i / sum_i weight_{y_i}

    Args:
        weight: one factor per class.
        size_average: deprecated in torch, kept for its signature.
        ignore_index: targets of this value count for nothing.
        reduce: deprecated in torch, kept for its signature.
        reduction: ``"mean"`` (divided by the class and sample weights of the targets that count),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses positive or NaN log-probabilities.

    Shape:
        input ``(C,)`` or ``(N, C, *)``; target integers ``()`` or ``(N, *)``; ``sample_weight``
        ``(N,)`` or ``(N, *)``.

    Raises:
        ValueError: shapes do not match, an index is outside ``[0, C)``, the batch is empty.
        TypeError: the input is not floating point, the target is not integer.

    Example:
        >>> import torch
        >>> NLLLoss()(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
        tensor(0.2877)

    Reference:
        Bishop 2006, Pattern Recognition and Machine Learning, eq. 4.108.
    """

    def __init__(
        self, weight: Weights = None, size_average: bool | None = None, ignore_index: int = -100,
        reduce: bool | None = None, reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        weight = check_class_weight("NLLLoss", weight)
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        check_modes("NLLLoss", self.reduction, validate)
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return nll_loss(
            input, target, sample_weight, self.weight, self.ignore_index, self.reduction,
            self.validate,
        )  # fmt: skip
