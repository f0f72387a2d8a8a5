"""Metrics of tasks without targets: how near drawn samples are, what episodes return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["coverage", "mean_return", "sliced_wasserstein"]


@brick(
    "metric", "sliced_wasserstein", aliases=("swd",), task=("gan",), better="lower",
    summary="Distance of drawn and held-out samples, averaged over random directions.",
    use_when="Generated samples are compared with real ones and there is no trained judge.",
    avoid_when="Images are large and natural: pixels say little there; take the Frechet distance "
    "in the features of a network that knows such images.",
    best_for="Digits, tables, point clouds; watching a GAN.",
    paper="Bonneel et al. 2015, Sliced and Radon Wasserstein Barycenters of Measures, section 3",
    tune_first="Nothing; projections when the value must be known to more digits.",
    cost="A product with features x projections numbers and a sort per direction, per evaluation.",
    pairs_with=("coverage", "wasserstein"),
)  # fmt: skip
def sliced_wasserstein(projections: int = 512, seed: int = 0) -> Metric:
    """Make a metric of how far generated samples are from as many held-out ones.

    Directions are the same in every evaluation. Even samples of the same distribution are some
    way apart: hold the value against that of training samples.

    Math:
        W_2^2(t) = mean_i (sort(<t, fake>)_i - sort(<t, real>)_i)^2,  t uniform on the unit sphere
        sliced = sqrt(mean over directions t of W_2^2(t))

    Args:
        projections: number of directions.
        seed: draws the directions.

    Raises:
        ValueError: fewer than one direction, or unequal numbers of samples.

    Example:
        >>> import torch
        >>> metric = sliced_wasserstein()
        >>> metric.update(torch.ones(5, 1) + 2, torch.ones(5, 1))
        >>> float(metric.compute())
        2.0

    Reference:
        Bonneel et al. 2015, Journal of Mathematical Imaging and Vision 51, section 3.
    """
    from brickyard.train.scores_games import SlicedDistance

    return SlicedDistance(projections, seed)


@brick(
    "metric", "coverage", task=("gan",), better="higher",
    summary="Share of held-out samples that have a generated one among their neighbours.",
    use_when="A generator may have forgotten modes, which averages do not show.",
    avoid_when="It stands alone: blurred samples lie near to many real ones, so early in training "
    "it is high. Distances between samples mean nothing, as between pixels of natural images.",
    best_for="Digits, tables, features of a trained network.",
    paper="Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models, eq. 5",
    tune_first="Nothing: with the usual neighbors of 5 a perfect generator gets 0.97.",
    cost="All distances between held-out and generated samples: memory and time grow with the "
    "square of their number.",
    pairs_with=("sliced_wasserstein",),
)  # fmt: skip
def coverage(neighbors: int = 5) -> Metric:
    """Make a metric of how many held-out samples the generated ones come near to.

    Near is nearer than a real sample's ``neighbors``-th neighbour among the other real ones.
    With as many generated as real samples, both of the same distribution, it is about
    ``1 - 2^-neighbors``.

    Math:
        r_i = distance of real_i to its neighbors-th nearest other real sample
        coverage = mean_i [ min_j |real_i - fake_j| < r_i ]

    Args:
        neighbors: which neighbour bounds a sample's surroundings.

    Raises:
        ValueError: no neighbour asked for, or fewer samples than neighbours.

    Example:
        >>> import torch
        >>> real = torch.tensor([[0.0], [1.0], [5.0]])
        >>> metric = coverage(neighbors=1)
        >>> metric.update(torch.tensor([[0.5], [0.6], [9.5]]), real)
        >>> float(metric.compute())
        0.6666666666666666

    Reference:
        Naeem et al. 2020, arXiv:2002.09797, section 3.2 and lemma 2.
    """
    from brickyard.train.scores_games import Coverage

    return Coverage(neighbors)


@brick(
    "metric", "mean_return", aliases=("reward", "episode_return"), task=("policy", "dqn"),
    better="higher",
    summary="Mean sum of rewards of the held-out episodes, played without exploring.",
    use_when="An agent learns to act: it is what the agent is there for.",
    avoid_when="Returns are spread over orders of magnitude: a few lucky episodes make the mean.",
    best_for="CartPole and other games with one scale of reward.",
    paper="Sutton & Barto 2018, Reinforcement Learning, section 3.3",
    tune_first="Nothing; the data's val is the number of episodes, and 100 tell more than 10.",
    cost="Playing the episodes, side by side.",
    pairs_with=("policy_gradient", "ppo_clip", "td", "early_stopping"),
)  # fmt: skip
def mean_return() -> Metric:
    """Make a metric that averages the undiscounted returns of episodes.

    Math:
        mean over episodes of  sum_t r_t

    Example:
        >>> import torch
        >>> metric = mean_return()
        >>> metric.update(torch.tensor([500.0, 300.0]), torch.tensor([7, 8]))
        >>> float(metric.compute())
        400.0

    Reference:
        Sutton & Barto 2018, Reinforcement Learning, section 3.3.
    """
    from brickyard.train.scores_games import MeanReturn

    return MeanReturn()
