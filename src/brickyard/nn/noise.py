"""Dropouts of our own: on weights, on a branch's samples, and one mask for all time steps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrize

from brickyard.catalog import brick

__all__ = ["DropConnect", "DropPath", "VariationalDropout", "drop_path", "variational_dropout"]


def check_probability(who: str, name: str, value: float) -> float:
    """Return ``value`` as a float; refuse what is no probability.

    Args:
        who: name of the layer, for the message.
        name: name of the option.
        value: what was given.

    Raises:
        ValueError: it lies outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{who}: {name} must be a probability from 0 to 1, got {value}")
    return float(value)


def _masked(x: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """Multiply ``x`` by a mask of ``shape`` that is 0 with chance ``p``, else 1 / (1 - p)."""
    mask = x.new_empty(shape).bernoulli_(1 - p)
    return x * (mask.div_(1 - p) if p < 1 else mask)


def drop_path(x: Tensor, p: float = 0.1, training: bool = True) -> Tensor:
    """Zero whole samples with chance ``p`` and scale the others up; see :class:`DropPath`.

    Raises:
        ValueError: ``p`` outside [0, 1].
    """
    check_probability("drop_path", "p", p)
    if not training or p == 0:
        return x
    return _masked(x, (x.shape[0], *[1] * (x.ndim - 1)), p)


@brick(
    "dropout",
    "drop_path",
    aliases=("stochastic_depth", "droppath"),
    public="brickyard.nn",
    granularity="a residual branch's whole output, for each sample",
    summary="Skips a residual branch at random for each sample: the network is shallower while it "
    "trains.",
    use_when="A residual network of more than about 20 branches overfits, or trains too slowly for "
    "its depth.",
    avoid_when="Outside a residual branch: the sample would be gone. Short runs on much data, and "
    "small or shallow networks, which it makes underfit.",
    best_for="Vision transformers and ConvNeXt trained from scratch; ResNets of 100 layers.",
    paper="Huang et al. 2016, Deep Networks with Stochastic Depth, arXiv:1603.09382",
    tune_first="p of the last branch, 0.1 to 0.4, with p growing linearly from 0 at the first.",
    cost="One draw a sample and one multiplication a value in training; the branch is computed all "
    "the same; nothing in evaluation.",
    pairs_with=("residual", "layer_scale"),
)
class DropPath(nn.Module):
    """Drop a residual branch's output for random samples of the batch.

    Math:
        training: y_n = x_n * m_n / (1 - p), m_n ~ Bernoulli(1 - p), one draw a sample
        evaluation: y = x

    The last layer of a branch: ``Residual(nn.Sequential(branch, DropPath(p)))``. Survivors are
    scaled up in training; the paper scales by 1 - p in evaluation instead, with the same mean.
    For branch i of n the paper takes p * (i + 1) / n.

    Args:
        p: chance that a sample loses the branch.

    Raises:
        ValueError: ``p`` outside [0, 1].

    Example:
        >>> import torch
        >>> DropPath(0.5).eval()(torch.ones(2, 3)).sum().item()
        6.0

    Reference:
        Huang et al. 2016, arXiv:1603.09382, section 3.
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p = check_probability("DropPath", "p", p)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with random samples zeroed in training; same shape."""
        return drop_path(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"p={self.p}"


def variational_dropout(
    x: Tensor, p: float = 0.5, training: bool = True, batch_first: bool = False
) -> Tensor:
    """Zero features for a whole sequence at once; see :class:`VariationalDropout`.

    Raises:
        ValueError: ``p`` outside [0, 1], or ``x`` with fewer than three axes.
    """
    check_probability("variational_dropout", "p", p)
    if x.ndim < 3:
        wanted = "(N, T, *)" if batch_first else "(T, N, *)"
        raise ValueError(
            f"VariationalDropout takes sequences {wanted} of features, got {tuple(x.shape)}; "
            f"input without a time axis wants dropout"
        )
    if not training or p == 0:
        return x
    time = 1 if batch_first else 0
    return _masked(x, (*x.shape[:time], 1, *x.shape[time + 1 :]), p)


@brick(
    "dropout",
    "variational_dropout",
    aliases=("locked_dropout", "recurrent_dropout"),
    public="brickyard.nn",
    granularity="a feature of a sample, for all its time steps",
    summary="Dropout for sequences: one mask for all time steps, so that what is hidden stays "
    "hidden.",
    use_when="Inputs or outputs of a recurrent network overfit: around nn.LSTM and between its "
    "layers.",
    avoid_when="Input without a time axis. Transformers, whose published recipes drop values one "
    "by one. It does not reach the state inside an LSTM: drop_connect or zoneout do.",
    best_for="Language models and taggers with recurrent layers, as in AWD-LSTM.",
    paper="Gal & Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent "
    "Neural Networks, arXiv:1512.05287; Merity, Keskar & Socher 2017, arXiv:1708.02182",
    tune_first="p: 0.1 to 0.5; batch_first as in the layer beside it.",
    cost="One draw a sample and feature and one multiplication a value in training; nothing in "
    "evaluation.",
    pairs_with=("zoneout",),
)
class VariationalDropout(nn.Module):
    """Drop features of a sequence with one mask for all its time steps.

    Math:
        training: y_(n,t,i) = x_(n,t,i) * m_(n,i) / (1 - p), m_(n,i) ~ Bernoulli(1 - p)
        evaluation: y = x

    Args:
        p: chance that a feature of a sample is hidden.
        batch_first: the input is ``(N, T, *)``; otherwise ``(T, N, *)``, as for ``nn.LSTM``.

    Raises:
        ValueError: ``p`` outside [0, 1], or an input with fewer than three axes.

    Example:
        >>> import torch
        >>> y = VariationalDropout(0.5, batch_first=True)(torch.ones(2, 7, 3))
        >>> bool((y == y[:, :1]).all())
        True

    Reference:
        Gal & Ghahramani 2016, arXiv:1512.05287, section 4 (the masks of inputs and outputs).
    """

    def __init__(self, p: float = 0.5, batch_first: bool = False) -> None:
        super().__init__()
        self.p, self.batch_first = check_probability("VariationalDropout", "p", p), batch_first

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with features hidden for whole sequences in training; same shape."""
        return variational_dropout(x, self.p, self.training, self.batch_first)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"p={self.p}, batch_first={self.batch_first}"


@brick(
    "dropout",
    "drop_connect",
    aliases=("dropconnect", "weight_drop"),
    public="brickyard.nn",
    granularity="every weight by itself, one mask for the whole batch",
    summary="Dropout on the weights of a layer instead of its outputs.",
    use_when="A wide dense layer overfits and dropout on its outputs is not enough.",
    avoid_when="Dropout has not been tried: gains over it are small and not steady. In the sense "
    "of EfficientNet's code, whose 'drop connect' is drop_path.",
    best_for="Wide dense layers of classifiers.",
    paper="Wan et al. 2013, Regularization of Neural Networks using DropConnect, ICML",
    tune_first="p: 0.2 to 0.5.",
    cost="One draw and one multiplication a weight in training; nothing in evaluation.",
    pairs_with=("relu",),
)
class DropConnect(nn.Module):
    """Drop random weights of a linear or convolutional layer in each training step.

    Math:
        training: y = f(x; W * M / (1 - p), b), M_ij ~ Bernoulli(1 - p)
        evaluation: y = f(x; W, b), the mean weights

    The paper draws a mask for every sample and integrates over a normal approximation in
    evaluation; here, as in other frameworks, one mask serves the batch, biases stay, and
    evaluation takes the mean weights.

    Args:
        linear: ``nn.Linear`` or a convolution; its parameters stay its own (``linear.weight``).
        p: chance that a weight is zero in a step.

    Raises:
        TypeError: another layer, or a convolution whose weight is computed (weight_norm).
        ValueError: ``p`` outside [0, 1].

    Example:
        >>> import torch
        >>> layer = DropConnect(nn.Linear(4, 2), p=0.3)
        >>> x = torch.ones(1, 4)
        >>> bool((layer.eval()(x) == layer.linear(x)).all())
        True

    Reference:
        Wan et al. 2013, ICML, section 3.
    """

    def __init__(self, linear: nn.Module, p: float = 0.5) -> None:
        super().__init__()
        conv = isinstance(linear, nn.modules.conv._ConvNd)
        if not (conv or isinstance(linear, nn.Linear)) or (
            conv and parametrize.is_parametrized(linear, "weight")
        ):
            raise TypeError(
                f"DropConnect drops weights of nn.Linear, or of a convolution whose weight is a "
                f"parameter, got {type(linear).__name__}"
            )
        self.linear = linear
        self.p = check_probability("DropConnect", "p", p)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of ``x``, with random weights zeroed in training."""
        if not self.training or self.p == 0:
            return self.linear(x)
        weight = F.dropout(self.linear.weight, self.p, True)  # pyright: ignore[reportArgumentType]
        if isinstance(self.linear, nn.Linear):
            return F.linear(x, weight, self.linear.bias)
        return functional_call(self.linear, {"weight": weight}, (x,))

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"p={self.p}"
