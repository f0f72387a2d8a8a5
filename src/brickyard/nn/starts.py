"""Initializers of our own: LeCun's spread, a classifier's prior, silent residual branches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from brickyard.catalog import brick
from brickyard.nn.residual import LayerScale, Residual, ResidualScale

__all__ = ["lecun_normal_", "lecun_uniform_", "prior_bias_", "zero_residual_"]

_PUBLIC = "brickyard.nn.init"
_LECUN = "LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.6"


def check_real(who: str, model: nn.Module) -> None:
    """Refuse a model whose parameters have no values to set.

    Args:
        who: name of the function, for the message.
        model: the model.

    Raises:
        ValueError: a parameter on the meta device, or of a lazy layer before its first batch.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"{who}: {name} is of a lazy layer and has no shape yet; run one batch through "
                f"the model first"
            )
        if parameter.is_meta:
            raise ValueError(
                f"{who}: {name} is on the meta device and has no values; give the model memory "
                f"first: model.to_empty(device='cpu')"
            )


def _lecun_std(who: str, tensor: Tensor) -> float:
    if tensor.ndim < 2:
        raise ValueError(
            f"{who} fills weights of at least 2 axes (outputs, inputs, kernel ...), got "
            f"{tuple(tensor.shape)}; biases start at zero"
        )
    return 1 / math.sqrt(max(1, tensor.shape[1:].numel()))


@brick(
    "initializer",
    "lecun_normal_",
    public=_PUBLIC,
    aliases=("lecun", "lecun_normal"),
    summary="Variance 1 / fan_in, which keeps variance through linear layers: what SELU needs.",
    use_when="SELU follows, or nothing does.",
    avoid_when="ReLU follows in a deep stack without normalization: the signal halves in variance "
    "a layer (take kaiming).",
    best_for="Self-normalizing networks; linear layers.",
    paper=_LECUN + "; for SELU: Klambauer et al. 2017, arXiv:1706.02515, section 2",
    tune_first="Nothing in it.",
    cost="One draw a weight, once.",
    pairs_with=("selu", "alpha_dropout"),
)
def lecun_normal_(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Fill a weight from a normal distribution of variance one over its fan-in.

    Math:
        w ~ N(0, 1 / fan_in)

    Args:
        tensor: weight ``(out, in, *kernel)``; filled in place.
        generator: source of randomness; torch's own when None.

    Raises:
        ValueError: fewer than two axes.

    Example:
        >>> round(lecun_normal_(torch.empty(1000, 400)).std().item(), 2)
        0.05

    Reference:
        LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.6, equation 16.
    """
    with torch.no_grad():
        return tensor.normal_(0, _lecun_std("lecun_normal_", tensor), generator=generator)


@brick(
    "initializer",
    "lecun_uniform_",
    public=_PUBLIC,
    aliases=("lecun_uniform",),
    summary="Variance 1 / fan_in from a uniform distribution.",
    use_when="As lecun_normal_, where a recipe names the uniform form.",
    avoid_when="ReLU follows in a deep stack without normalization (take kaiming). It is not "
    "torch's own start of Linear, whose variance is a third of it.",
    best_for="Linear layers and shallow tanh networks.",
    paper=_LECUN,
    tune_first="Nothing in it.",
    cost="One draw a weight, once.",
    pairs_with=("selu",),
)
def lecun_uniform_(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Fill a weight from a uniform distribution of variance one over its fan-in.

    Math:
        w ~ U(-r, r), r = sqrt(3 / fan_in)

    Args:
        tensor: weight ``(out, in, *kernel)``; filled in place.
        generator: source of randomness; torch's own when None.

    Raises:
        ValueError: fewer than two axes.

    Example:
        >>> lecun_uniform_(torch.empty(100, 3)).abs().max().item() <= 1
        True

    Reference:
        LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.6, equation 16.
    """
    edge = math.sqrt(3) * _lecun_std("lecun_uniform_", tensor)
    with torch.no_grad():
        return tensor.uniform_(-edge, edge, generator=generator)


@brick(
    "initializer",
    "prior_bias_",
    public=_PUBLIC,
    aliases=("prior_bias",),
    summary="Starts a classifier's output biases at the classes' frequencies.",
    use_when="Classes are imbalanced: the first steps then need not learn what a count tells, and "
    "rare classes do not drown the loss.",
    avoid_when="Frequencies in use differ from those in training, or the loss is weighted so that "
    "classes count alike: there zero is right.",
    best_for="Detectors and other rare-event classifiers (focal loss with a prior of 0.01).",
    paper="Lin et al. 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002, section 4.1 "
    "(prior 0.01)",
    tune_first="Nothing in it; keep the output weights small (normal_ with std 0.01).",
    cost="One write a class, once.",
    pairs_with=("focal", "normal_", "cross_entropy", "bce"),
)
def prior_bias_(
    layer: nn.Module, class_frequencies: float | Sequence[float] | Tensor, multilabel: bool = False
) -> Tensor:
    """Set an output layer's bias so that, with zero weights, it predicts the frequencies.

    Math:
        K outputs, softmax: b_k = log(f_k / sum f)
        one output, sigmoid: b = log(p / (1 - p)), p the share of the positive class
        multilabel, sigmoid: b_k = log(p_k / (1 - p_k))

    Args:
        layer: the output layer, with one bias for each class; changed in place.
        class_frequencies: counts or shares of the classes; for one output the share of the
            positive class, or counts (negative, positive); one number stands for all outputs of a
            multilabel layer.
        multilabel: outputs are yes-or-no questions of their own; shares p_k lie within (0, 1).

    Raises:
        ValueError: no bias, a wrong count of frequencies, or a frequency whose logarithm is not
            finite (a class that never occurs).

    Example:
        >>> head = nn.Linear(4, 2)
        >>> prior_bias_(head, [300, 100]).exp()
        tensor([0.7500, 0.2500])

    Reference:
        Lin et al. 2017, arXiv:1708.02002, section 4.1.
    """
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, nn.Parameter) or bias.is_meta:
        raise ValueError(
            f"prior_bias_ needs a layer with a bias that has values, got {type(layer).__name__}; "
            f"make it with bias=True"
        )
    given = torch.as_tensor(class_frequencies, dtype=torch.float64).detach().cpu().flatten()
    classes = len(bias)
    if classes == 1 and len(given) == 2 and not multilabel:
        given = given[1:] / given.sum()
    yes_or_no = multilabel or classes == 1
    if yes_or_no and len(given) == 1:
        given = given.expand(classes)
    if len(given) != classes:
        raise ValueError(
            f"prior_bias_ needs one frequency for each of {classes} outputs, got {len(given)}"
        )
    share = given if yes_or_no else given / given.sum()
    value = torch.logit(share) if yes_or_no else share.log()
    if not bool(value.isfinite().all()) or bool((given < 0).any()):
        rule = "lie within (0, 1)" if yes_or_no else "be positive"
        raise ValueError(
            f"prior_bias_: frequencies must {rule}, got {given.tolist()}; give a class that never "
            f"occurs a small share"
        )
    with torch.no_grad():
        bias.copy_(value)
    return bias.detach()


@brick(
    "initializer",
    "zero_residual_",
    public=_PUBLIC,
    aliases=("zero_gamma", "zero_init_residual"),
    summary="Zeroes the last layer of every residual branch, so that the network starts as its "
    "skip paths.",
    use_when="A residual network of more than about 20 layers trains with a large rate or batch.",
    avoid_when="The branches already end in residual_scale or layer_scale at zero: nothing would "
    "learn. With a learning rate schedule far too short to grow the branches.",
    best_for="ResNets with large batches; pre-norm transformers.",
    paper="Goyal et al. 2017, Accurate, Large Minibatch SGD, arXiv:1706.02677, section 5.1; "
    "without norms: Zhang, Dauphin & Ma 2019, arXiv:1901.09321",
    tune_first="Nothing in it; it permits a higher learning rate.",
    cost="One write a zeroed weight, once.",
    pairs_with=("residual", "kaiming_normal_", "batch_norm"),
)
def zero_residual_(model: nn.Module) -> list[str]:
    """Zero the last weighted layer of every :class:`Residual` branch; return its name for each.

    Math:
        y = x + branch(x) with branch(x) = 0 at the start

    Args:
        model: changed in place. In each branch the last layer (in the order of definition) that
            has a weight is taken: a norm's gain and shift, or a linear layer's weight and bias.

    Raises:
        ValueError: no :class:`Residual` inside, a branch without weights, or a branch that a zero
            :class:`ResidualScale` or :class:`LayerScale` silences already.

    Example:
        >>> zero_residual_(nn.Sequential(Residual(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))))
        ['0.branch.1']

    Reference:
        Goyal et al. 2017, arXiv:1706.02677, section 5.1.
    """
    blocks = {name: m for name, m in model.named_modules() if isinstance(m, Residual)}
    if not blocks:
        raise ValueError(
            "zero_residual_ zeroes branches of brickyard.nn.Residual, and the model has none"
        )
    names = []
    for name, block in blocks.items():
        where = f"{name}.branch" if name else "branch"
        factor = _factor(block.scale)
        if factor is not None and not bool(factor.any()):
            raise ValueError(
                f"{where}: its scale is zero already; two zero factors pass no gradient to each "
                f"other. Start one of them off zero"
            )
        weighted = [(path, m) for path, m in block.branch.named_modules() if _weighs(m)]
        if not weighted:
            raise ValueError(f"{where} has no layer with a weight to zero")
        path, layer = weighted[-1]
        if parametrize.is_parametrized(layer):
            raise ValueError(
                f"{where}.{path} computes its weight (weight_norm or the like) and cannot start at "
                f"zero; give the branch a ResidualScale(0.0) instead"
            )
        with torch.no_grad():
            for parameter in layer.parameters(recurse=False):
                parameter.zero_()
        names.append(f"{where}.{path}" if path else where)
    return names


def _weighs(layer: nn.Module) -> bool:
    """Say whether a layer's output is zero when its parameters are."""
    if isinstance(layer, nn.PReLU) or not hasattr(layer, "weight"):
        return False
    return isinstance(layer.weight, nn.Parameter) or parametrize.is_parametrized(layer)


def _factor(scale: nn.Module | None) -> Tensor | None:
    if isinstance(scale, ResidualScale):
        return scale.alpha
    return scale.gamma if isinstance(scale, LayerScale) else None
