"""Dropouts: torch's own, each with its card."""

from __future__ import annotations

from torch.nn import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)

from brickyard.catalog import brick

__all__ = [
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout",
]  # fmt: skip

brick(
    "dropout",
    "dropout",
    public="brickyard.nn",
    aliases=("drop_out",),
    formula="training: x * m / (1 - p), m ~ Bernoulli(1 - p) for every value; evaluation: x",
    granularity="every value by itself",
    summary="Zeroes random values in training and scales the rest up, so that units do not rely "
    "on each other.",
    use_when="A network with wide dense layers fits the training set much better than validation.",
    avoid_when="The network underfits. Right before batch_norm: its running variance is then one "
    "of training, wrong in evaluation (Li et al. 2018). On neighbouring pixels, which carry the "
    "same content: take spatial_dropout.",
    best_for="Dense layers of classifiers, and attention and feed-forward outputs of transformers.",
    paper="Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from "
    "Overfitting, JMLR 15; Li et al. 2018, arXiv:1801.05134 (with batch normalization)",
    tune_first="p: 0.1 in transformers, 0.2 to 0.5 on wide dense layers.",
    cost="One random draw and one multiplication a value in training; nothing in evaluation.",
)(Dropout)

brick(
    "dropout",
    "alpha_dropout",
    public="brickyard.nn",
    formula="training: a * (x * m - 1.7581 * (1 - m)) + b, m ~ Bernoulli(1 - p), with a and b "
    "that keep mean 0 and variance 1; evaluation: x",
    granularity="every value by itself",
    summary="Sets random values to SELU's lower limit instead of zero, keeping mean and variance.",
    use_when="The activation is selu and the network overfits.",
    avoid_when="With any other activation: the constant -1.7581 is where SELU saturates, and "
    "means nothing elsewhere. torch takes its option inplace and ignores it.",
    best_for="Self-normalizing networks, at small rates.",
    paper="Klambauer et al. 2017, Self-Normalizing Neural Networks, arXiv:1706.02515, section 2",
    tune_first="p: 0.05 or 0.1, as the paper found best.",
    cost="One random draw and two multiply-adds a value in training; nothing in evaluation.",
    pairs_with=("selu", "lecun_normal_"),
)(AlphaDropout)

brick(
    "dropout",
    "spatial_dropout",
    public="brickyard.nn",
    aliases=("dropout2d", "channel_dropout"),
    formula="training: x * m / (1 - p), m ~ Bernoulli(1 - p) for every sample and channel; "
    "evaluation: x",
    granularity="whole channels of a sample",
    summary="Zeroes whole feature maps, since neighbouring pixels would give a dropped one away.",
    use_when="A convolutional network overfits and plain dropout inside it does nothing.",
    avoid_when="Layers have few channels, each of which matters. On input without spatial axes: "
    "torch's Dropout1d reads (N, C) as (C, L) and drops whole samples.",
    best_for="Convolutional layers; Dropout1d, Dropout2d and Dropout3d by the number of spatial "
    "axes (reference models choose the right one).",
    paper="Tompson et al. 2015, Efficient Object Localization Using Convolutional Networks, "
    "arXiv:1411.4280, section 3.2",
    tune_first="p: 0.1 to 0.2, in the deeper layers first.",
    cost="One draw a channel and one multiplication a value in training; nothing in evaluation.",
)(Dropout2d)
