"""Initializers under one roof: torch's own, each with its card, and ours."""

from __future__ import annotations

from torch import Tensor
from torch.nn.init import (
    constant_,
    dirac_,
    eye_,
    kaiming_normal_,
    kaiming_uniform_,
    normal_,
    ones_,
    orthogonal_,
    sparse_,
    trunc_normal_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
    zeros_,
)

from brickyard.catalog import brick
from brickyard.nn.initialize import initialize
from brickyard.nn.lsuv import lsuv_
from brickyard.nn.starts import lecun_normal_, lecun_uniform_, prior_bias_, zero_residual_

__all__ = [
    "constant_", "identity_", "initialize", "kaiming_normal_", "kaiming_uniform_",
    "lecun_normal_", "lecun_uniform_", "lsuv_", "normal_", "ones_", "orthogonal_", "prior_bias_",
    "sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_",
    "zero_residual_", "zeros_",
]  # fmt: skip

_PUBLIC = "brickyard.nn.init"
_GLOROT = (
    "Glorot & Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural "
    "Networks, AISTATS"
)
_HE = "He et al. 2015, Delving Deep into Rectifiers, arXiv:1502.01852, section 2.2"

brick(
    "initializer",
    "uniform_",
    public=_PUBLIC,
    formula="w ~ U(a, b)",
    summary="Draws every weight evenly from a range that you give.",
    use_when="A paper or a checkpoint's recipe names the range.",
    avoid_when="For weight matrices in general: the right range depends on the layer's fan, which "
    "xavier and kaiming know. The default range (0, 1) is all positive and fits no weight.",
    best_for="Reproducing old recipes; embeddings and codebooks.",
    paper="LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.6 (how wide)",
    tune_first="a and b; the standard deviation is (b - a) / sqrt(12).",
    cost="One draw a weight, once.",
)(uniform_)

brick(
    "initializer",
    "normal_",
    public=_PUBLIC,
    formula="w ~ N(mean, std^2)",
    summary="Draws every weight from a normal distribution of the spread that you give.",
    use_when="The recipe names a spread: 0.02 for embeddings and GPT-2, 0.01 for output layers.",
    avoid_when="With its default std=1 on weight matrices: signals grow by sqrt(fan_in) a layer.",
    best_for="Embeddings and output layers.",
    paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners (0.02, as "
    "BERT)",
    tune_first="std.",
    cost="One draw a weight, once.",
)(normal_)

brick(
    "initializer",
    "trunc_normal_",
    public=_PUBLIC,
    formula="w ~ N(mean, std^2), redrawn outside [a, b]",
    summary="A normal distribution without its tails.",
    use_when="You build a transformer or ConvNeXt as published: std=0.02.",
    avoid_when="You expect a cut at two standard deviations: a and b are absolute, so the default "
    "(-2, 2) cuts nothing at std=0.02. Give a=-2*std, b=2*std for that.",
    best_for="Vision transformers and their embeddings.",
    paper="Devlin et al. 2019, BERT, arXiv:1810.04805 (its code: std 0.02, cut at two deviations)",
    tune_first="std, then a and b as multiples of it.",
    cost="One draw a weight, once.",
)(trunc_normal_)

brick(
    "initializer",
    "constant_",
    public=_PUBLIC,
    formula="w = val",
    summary="Sets every entry to one value: for biases and gates, never for weight matrices.",
    use_when="A bias should start off zero: 1 on an LSTM's forget gate.",
    avoid_when="On a weight matrix: units of a layer then get equal gradients and stay equal for "
    "good.",
    best_for="Biases of gates.",
    paper="Jozefowicz, Zaremba & Sutskever 2015, An Empirical Exploration of Recurrent Network "
    "Architectures, ICML (forget bias 1)",
    tune_first="val.",
    cost="One write a weight, once.",
)(constant_)

brick(
    "initializer",
    "zeros_",
    public=_PUBLIC,
    formula="w = 0",
    summary="Sets every entry to zero: for biases, and for the last layer of a residual branch.",
    use_when="Biases (the default choice), or a branch that should add nothing at the start.",
    avoid_when="On hidden weight matrices: all units stay equal, and no gradient passes.",
    best_for="Biases; second factors of low-rank adapters; last layers of residual branches.",
    paper="Zhang, Dauphin & Ma 2019, Fixup Initialization, arXiv:1901.09321 (last layer of "
    "branches)",
    tune_first="Nothing in it.",
    cost="One write a weight, once.",
    pairs_with=("zero_residual_",),
)(zeros_)

brick(
    "initializer",
    "ones_",
    public=_PUBLIC,
    formula="w = 1",
    summary="Sets every entry to one: for the gains of normalization layers.",
    use_when="A learned gain should start as no change.",
    avoid_when="On weight matrices: all units stay equal.",
    best_for="Gains of norms, which torch starts at one already.",
    paper="Ioffe & Szegedy 2015, Batch Normalization, arXiv:1502.03167, section 3",
    tune_first="Nothing in it.",
    cost="One write a weight, once.",
)(ones_)

brick(
    "initializer",
    "xavier_uniform_",
    public=_PUBLIC,
    aliases=("glorot", "xavier_uniform", "glorot_uniform"),
    formula="w ~ U(-r, r), r = gain * sqrt(6 / (fan_in + fan_out))",
    summary="A spread between what keeps signals and what keeps gradients level, for tanh-like "
    "layers.",
    use_when="tanh, sigmoid or softmax follows, or the layer is linear: attention, output layers.",
    avoid_when="ReLU follows in a deep stack without normalization: the signal halves in variance "
    "a layer (take kaiming).",
    best_for="Shallow tanh networks, attention projections; Keras starts dense layers so.",
    paper=_GLOROT,
    tune_first="gain: 1 for linear and sigmoid; 1.1 for tanh in deep stacks (torch's "
    "calculate_gain says 5/3, which keeps activations level but lets gradients grow).",
    cost="One draw a weight, once.",
    pairs_with=("tanh", "sigmoid"),
)(xavier_uniform_)

brick(
    "initializer",
    "xavier_normal_",
    public=_PUBLIC,
    aliases=("xavier_normal", "glorot_normal"),
    formula="w ~ N(0, s^2), s = gain * sqrt(2 / (fan_in + fan_out))",
    summary="Xavier's spread with a normal distribution.",
    use_when="As xavier_uniform_; no study finds a steady difference between the two.",
    avoid_when="ReLU follows in a deep stack without normalization (take kaiming).",
    best_for="tanh and linear layers.",
    paper=_GLOROT + " (the uniform form; same variance)",
    tune_first="gain: 1 for linear and sigmoid, 1.1 for tanh in deep stacks.",
    cost="One draw a weight, once.",
    pairs_with=("tanh", "sigmoid"),
)(xavier_normal_)

brick(
    "initializer",
    "kaiming_uniform_",
    public=_PUBLIC,
    aliases=("he", "kaiming_uniform", "he_uniform"),
    formula="w ~ U(-r, r), r = g * sqrt(3 / fan), g = sqrt(2 / (1 + a^2)) for leaky_relu",
    summary="He's spread, which makes up for what ReLU cuts off, with a uniform distribution.",
    use_when="ReLU or a relative follows, and the network is deep or has no normalization.",
    avoid_when="SELU follows (lecun_normal_), or tanh (xavier). "
    "torch's own start of Linear and Conv calls it with a=sqrt(5): variance 1/(3 fan_in), a sixth "
    "of He's.",
    best_for="Convolutional networks and perceptrons with ReLU.",
    paper=_HE,
    tune_first="mode: 'fan_out' keeps gradients level instead of signals; then a, the slope of "
    "leaky_relu.",
    cost="One draw a weight, once.",
    pairs_with=("relu", "leaky_relu"),
)(kaiming_uniform_)

brick(
    "initializer",
    "kaiming_normal_",
    public=_PUBLIC,
    aliases=("kaiming_normal", "he_normal"),
    formula="w ~ N(0, s^2), s = g / sqrt(fan), g = sqrt(2 / (1 + a^2)) for leaky_relu",
    summary="He's spread, which makes up for what ReLU cuts off: the default of ReLU networks.",
    use_when="ReLU or a relative follows, and the network is deep or has no normalization.",
    avoid_when="SELU follows (lecun_normal_), or tanh (xavier). It is "
    "not torch's own start of Linear and Conv, whose variance is a sixth of it.",
    best_for="Residual networks (mode='fan_out', as torchvision starts its ResNets).",
    paper=_HE,
    tune_first="mode: 'fan_out' keeps gradients level instead of signals; then a, the slope of "
    "leaky_relu.",
    cost="One draw a weight, once.",
    pairs_with=("relu", "leaky_relu", "batch_norm"),
)(kaiming_normal_)

brick(
    "initializer",
    "orthogonal_",
    public=_PUBLIC,
    aliases=("orthogonal",),
    formula="w = gain * Q, Q from the QR decomposition of a normal matrix: orthonormal rows or "
    "columns, whichever are fewer",
    summary="A random matrix that keeps lengths, so that repeated products neither blow up nor "
    "vanish.",
    use_when="Recurrent matrices; policy networks; very deep plain stacks.",
    avoid_when="Very wide layers, where the decomposition takes noticeable time and a normal draw "
    "is nearly orthogonal anyway.",
    best_for="Hidden-to-hidden weights of RNNs; policy gradient networks (gain sqrt(2), 0.01 "
    "last).",
    paper="Saxe, McClelland & Ganguli 2014, Exact Solutions to the Nonlinear Dynamics of Learning "
    "in Deep Linear Neural Networks, arXiv:1312.6120",
    tune_first="gain: 1 for linear and recurrent, sqrt(2) before ReLU.",
    cost="One QR decomposition a weight, cubic in its shorter side, once.",
    pairs_with=("tanh",),
)(orthogonal_)

brick(
    "initializer",
    "sparse_",
    public=_PUBLIC,
    aliases=("sparse",),
    formula="w ~ N(0, std^2) with a share `sparsity` of each column set to zero",
    summary="Gives each input a few connections and leaves the other weights at zero.",
    use_when="Units should start with few inputs so that they differ: the setting of Martens 2010.",
    avoid_when="As a way to a sparse network: zeros learn like any other weight. Reproducible "
    "runs by generator: the places of the zeros come from torch's default generator whatever you "
    "pass.",
    best_for="Second-order training of deep autoencoders, as published; research.",
    paper="Martens 2010, Deep Learning via Hessian-Free Optimization, ICML, section 5 (a fixed "
    "number of inputs a unit: rows, where torch counts by columns)",
    tune_first="sparsity, then std: with few inputs it must grow.",
    cost="One draw a weight and a permutation a column, once; two axes only.",
)(sparse_)


@brick(
    "initializer",
    "identity_",
    public=_PUBLIC,
    aliases=("eye", "dirac"),
    summary="Starts a layer as the identity, so that it passes its input on unchanged.",
    use_when="Recurrent weights with ReLU, or layers added to a trained network that must not "
    "disturb it at the start.",
    avoid_when="Several layers of one width in a plain stack: they start equal and without "
    "mixing; a residual block is the usual way to the same end.",
    best_for="ReLU recurrent networks; convolutions inserted into a trained model.",
    paper="Le, Jaitly & Hinton 2015, arXiv:1504.00941 (recurrent); Zagoruyko & Komodakis 2017, "
    "DiracNets, arXiv:1706.00388 (convolutions)",
    tune_first="groups, to that of the convolution.",
    cost="One write a weight, once.",
    pairs_with=("relu",),
)
def identity_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a weight so that its layer is the identity on as many channels as it has.

    Math:
        matrix: w[i, j] = 1 if i == j else 0
        convolution: w[i, i, centre] = 1, all else 0, within each group

    Args:
        tensor: weight of a linear layer (2 axes) or a convolution (3 to 5 axes); filled in place.
        groups: groups of the convolution; 1 for a matrix.

    Raises:
        ValueError: another number of axes, or ``groups`` for a matrix.

    Example:
        >>> import torch
        >>> identity_(torch.empty(2, 3))
        tensor([[1., 0., 0.],
                [0., 1., 0.]])

    Reference:
        Le, Jaitly & Hinton 2015, arXiv:1504.00941; Zagoruyko & Komodakis 2017, arXiv:1706.00388.
    """
    if tensor.ndim == 2:
        if groups != 1:
            raise ValueError(f"a matrix has no groups, got groups={groups}; leave it at 1")
        return eye_(tensor)
    if tensor.ndim in (3, 4, 5):
        return dirac_(tensor, groups)
    raise ValueError(
        f"identity_ fills weights of 2 to 5 axes (linear, convolution), got {tuple(tensor.shape)}"
    )
