"""Known bad pairs: bricks that are fine alone and wrong together, each with its source.

A rule is a condition on what a recipe put together (:class:`Made`, plain data), and what to say
when it holds: what is wrong and why, and what to do instead. Rules without a condition are for
the cards alone: they concern what a recipe does not see, such as how a teacher was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from brickyard.catalog import _conditions as when
from brickyard.catalog.made import Layer, Made

__all__ = ["RULES", "Layer", "Made", "Rule", "bad_pairs", "not_with"]


@dataclass(frozen=True)
class Rule:
    """Hold one known bad pair.

    Args:
        key: short name, for tests and the report.
        sides: keys of the bricks that do not go together, one side and the other; their cards
            show the rule. The other side is empty where an option or a size is what is wrong.
        wrong: what happens and why.
        instead: what to do.
        source: where it is shown.
        when: returns where in what was made the rule applies, or "". None: for cards alone.
    """

    key: str
    sides: tuple[tuple[str, ...], tuple[str, ...]]
    wrong: str
    instead: str
    source: str
    when: Callable[[Made], str] | None = None

    @property
    def bricks(self) -> tuple[str, ...]:
        """Return the keys of both sides."""
        return (*self.sides[0], *self.sides[1])

    def others(self, key: str) -> tuple[str, ...]:
        """Return what a brick does not go together with: the other side."""
        return self.sides[0] if key in self.sides[1] else self.sides[1]


def bad_pairs(made: Made) -> Iterator[tuple[Rule, str]]:
    """Yield the rules that apply to what was made, each once, and where.

    Example:
        >>> made = Made(layers=[Layer("act", "selu", "activation"),
        ...                     Layer("drop", "dropout", "dropout", rate=0.1)])
        >>> [(rule.key, where) for rule, where in bad_pairs(made)]
        [('selu_dropout', 'act, drop')]
    """
    for rule in RULES:
        where = rule.when(made) if rule.when is not None else ""
        if where:
            yield rule, where


def not_with(key: str) -> list[Rule]:
    """Return the rules that name a brick, for its card."""
    return [rule for rule in RULES if key in rule.bricks]


# --- The table ------------------------------------------------------------------------------------

_SNN = "Klambauer et al. 2017, Self-Normalizing Neural Networks, arXiv:1706.02515"
_RECTIFIERS = "He et al. 2015, Delving Deep into Rectifiers, arXiv:1502.01852"

RULES: tuple[Rule, ...] = (
    Rule(
        "selu_kaiming", (("selu",), when.HE),
        "SELU keeps mean 0 and variance 1 only for weights of variance 1 / fan_in; kaiming's "
        "factor 2 for rectifiers takes the signal away from that point, layer by layer.",
        "init: {name: kaiming_normal_, nonlinearity: linear}, which is LeCun's start",
        f"{_SNN}, section 2 and theorem 1",
        lambda made: when.start_under(made, ["selu"], when.not_doubled),
    ),
    Rule(
        "selu_torch_start", (("selu",), ()),
        "torch's own start has a third of the variance that SELU's fixed point needs: signals "
        "shrink layer by layer.",
        "init: lecun_normal_",
        f"{_SNN}, section 2 and theorem 1",
        when.torch_start,
    ),
    Rule(
        "selu_dropout", (("selu",), ("dropout",)),
        "Dropout sets values to zero, which is not SELU's lower end: mean and variance move, and "
        "the network no longer normalizes itself.",
        "dropout: {name: alpha_dropout, p: 0.1}, which keeps both",
        f"{_SNN}, section 'Alpha Dropout'",
        when.selu_dropout,
    ),
    Rule(
        "selu_norm", (("selu",), ("batch_norm",)),
        "SELU's point is to need no normalization: its fixed point holds mean and variance "
        "already, and a norm with its own scale and shift moves them away again.",
        "normalization: null with selu, or relu with the normalization",
        f"{_SNN}, sections 1 and 2",
        lambda made: when.both(made, ["selu"], when.NORMS),
    ),
    Rule(
        "alpha_dropout_alone", (("alpha_dropout",), ("relu", "gelu", "silu", "tanh")),
        "Alpha dropout puts dropped values at SELU's lower end and rescales for its mean and "
        "variance; behind another activation it only shifts the signal.",
        "dropout: dropout, or activation: selu",
        f"{_SNN}, section 'Alpha Dropout'",
        when.alpha_dropout,
    ),
    Rule(
        "dropout_before_batch_norm", (("dropout",), ("batch_norm",)),
        "Dropout changes the variance in training but not in evaluation, and a batch norm behind "
        "it keeps the training one: the two disagree where it counts.",
        "drop behind the last batch norm only, or take layer_norm or group_norm, which keep no "
        "running statistics",
        "Li et al. 2019, Understanding the Disharmony between Dropout and Batch Normalization by "
        "Variance Shift, arXiv:1801.05134",
        when.variance_shift,
    ),
    Rule(
        "bias_before_norm", (("batch_norm", "instance_norm"), ()),
        "The norm subtracts each channel's mean, and with it the bias of the layer before: a "
        "parameter that does nothing, and that weight decay and statistics still carry along.",
        "bias=False in the layer before the norm; the norm has a shift of its own",
        "Ioffe & Szegedy 2015, Batch Normalization, arXiv:1502.03167, section 3.2",
        when.idle_bias,
    ),
    Rule(
        "frn_relu", (("frn",), ("relu",)),
        "FRN does not centre, so values may lie far from zero on either side; ReLU's fixed "
        "threshold then cuts off too much or nothing.",
        "activation: tlu, whose threshold is learned, behind frn",
        "Singh & Krishnan 2020, Filter Response Normalization Layer, arXiv:1911.09737, section 3.2",
        when.frn_relu,
    ),
    Rule(
        "batch_norm_small_batch", (("batch_norm",), ()),
        "Means and variances of fewer than 8 samples are noise: error grows fast as batches get "
        "smaller, and evaluation uses other statistics than training did.",
        "normalization: {name: group_norm, num_groups: 8}, or a larger batch_size",
        "Wu & He 2018, Group Normalization, arXiv:1803.08494, section 4.1 (batch sizes 32 to 2)",
        when.small_batch,
    ),
    Rule(
        "one_value_weights", (("zeros_", "ones_", "constant_"), ()),
        "Equal weights get equal gradients: all units of a layer stay copies of one another "
        "for good.",
        "init: kaiming_normal_ for weights; one value is for biases and gains",
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4 (breaking symmetry)",
        when.one_value,
    ),
    Rule(
        "wide_start", (("normal_", "uniform_"), ()),
        "A spread that does not shrink with the layer's width makes signals grow by about "
        "sqrt(fan_in) a layer.",
        "init: kaiming_normal_ or xavier_normal_, which know the fan; or std: 0.02",
        "LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.6",
        when.too_wide,
    ),
    Rule(
        "kaiming_saturating", (("tanh", "sigmoid"), when.HE),
        "Kaiming doubles the variance for the half that a rectifier cuts off; tanh and sigmoid "
        "cut nothing off, so values drift into their flat ends, where no gradient passes.",
        "init: xavier_normal_",
        f"Glorot & Bengio 2010, AISTATS, sections 3 and 4.2; {_RECTIFIERS}, section 2.2",
        lambda made: when.start_under(made, ["tanh", "sigmoid"], when.not_doubled),
    ),
    Rule(
        "xavier_deep_relu", (("relu",), (*when.XAVIER, "orthogonal_")),
        "A rectifier halves the second moment and this start does not make up for it: in a deep "
        "stack without normalization signal and gradients fade (30 layers did not learn at all).",
        "init: kaiming_normal_ (or gain 1.414), a normalization, or skip paths",
        f"{_RECTIFIERS}, section 2.2 and figure 3",
        when.fading,
    ),
    Rule(
        "deep_sigmoid", (("sigmoid",), ()),
        "In stacks of four or more hidden sigmoid layers the last one saturates early and learning "
        "stalls.",
        "activation: relu or gelu (or tanh with init xavier_normal_)",
        "Glorot & Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural "
        "Networks, AISTATS, section 3.1 and figure 2",
        when.saturating,
    ),
    Rule(
        "adam_coupled_decay", (when.COUPLED, ()),
        "Weight decay inside the gradient is divided by Adam's running scale: weights with large "
        "gradients are decayed least, and decay and learning rate cannot be tuned apart.",
        "optimizer: adamw (or decoupled_weight_decay: true where there is that option)",
        "Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101, "
        "section 2",
        when.coupled,
    ),
    Rule(
        "large_batch_cold_start", (("sgd", "nag"), ()),
        "At the rates that large batches want, the first steps of SGD are unstable: weights move "
        "fast, and the linear scaling of the rate does not hold yet.",
        "schedule: [{name: warmup, steps: 5%}, cosine]",
        "Goyal et al. 2017, Accurate, Large Minibatch SGD, arXiv:1706.02677, section 2.2",
        when.cold_start,
    ),
    Rule(
        "warmup_last", (("warmup",), ()),
        "A schedule that ends with a warmup ends at its highest rate, and the last steps undo what "
        "the falling rate before them reached.",
        "schedule: [{name: warmup, steps: 5%}, cosine], the warmup first",
        "Goyal et al. 2017, Accurate, Large Minibatch SGD, arXiv:1706.02677, section 2.2: warmup "
        "is for the start of training",
        when.warmup_last,
    ),
    Rule(
        "deep_plain_residual", (("residual",), ()),
        "Without normalization every block adds its variance to the path: outputs and gradients "
        "grow exponentially with depth.",
        "residual: residual_scale (SkipInit), or init zero_residual_, or a normalization",
        "De & Smith 2020, Batch Normalization Biases Residual Blocks, arXiv:2002.10444, section 2; "
        "Zhang, Dauphin & Ma 2019, Fixup Initialization, arXiv:1901.09321",
        when.growing,
    ),
    Rule(
        "dropout_on_maps", (("dropout",), ("cnn",)),
        "Neighbours on a convolutional map carry the same information: dropping single values "
        "takes little away and mostly lowers the learning rate.",
        "dropout: spatial_dropout, which drops whole channels",
        "Tompson et al. 2015, Efficient Object Localization Using Convolutional Networks, "
        "arXiv:1411.4280, section 3.2",
        when.single_values,
    ),
    Rule(
        "prelu_decay", (("prelu",), ()),
        "Weight decay pulls PReLU's slopes to zero, and PReLU towards ReLU.",
        "groups: {no_decay: auto}, which leaves slopes, gains and biases out",
        f"{_RECTIFIERS}, section 2.1",
        when.decayed_slopes,
    ),
    Rule(
        "smoothed_teacher", (("distillation",), ("cross_entropy",)),
        "A teacher trained with label smoothing teaches less well, however accurate: smoothing "
        "erases what it knew of the likeness between classes.",
        "train the teacher with cross_entropy and label_smoothing: 0",
        "Mueller, Kornblith & Hinton 2019, When Does Label Smoothing Help?, arXiv:1906.02629, "
        "section 4",
    ),
    Rule(
        "batch_norm_critic", (("gradient_penalty",), ("batch_norm",)),
        "The penalty is on the critic's slope at each sample; a batch norm makes outputs depend on "
        "the whole batch, so that the slope at one sample means nothing.",
        "layer_norm in the critic, or no normalization",
        "Gulrajani et al. 2017, Improved Training of Wasserstein GANs, arXiv:1704.00028, section 4",
    ),
)  # fmt: skip
