"""Metrics of autoencoders: what the code costs, what it uses, what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["active_latents", "latent_kl", "reconstruction_error"]


@brick(
    "metric", "latent_kl", aliases=("kl_to_prior",), task="vae", better="lower",
    summary="Nats a sample that the code costs: its divergence from the prior.",
    use_when="The two parts of the bound are to be told apart; the other is the loss less this.",
    avoid_when="You look for one figure to choose by: take the loss, which is the whole bound.",
    best_for="Seeing a collapse: near 0 the decoder ignores the code.",
    paper="Kingma & Welling 2014, arXiv:1312.6114, appendix B",
    tune_first="Nothing to tune.",
    pairs_with=("reconstruction_error", "elbo"),
    cost="A sum over the latents.",
)  # fmt: skip
def latent_kl(outputs: int) -> Metric:
    """Make a metric that gives the mean divergence of the codes from the standard normal.

    Math:
        (1 / N) * sum_i 0.5 * sum_k (mu_ik^2 + exp(log_var_ik) - 1 - log_var_ik)

    Args:
        outputs: number of latents.

    Example:
        >>> import torch
        >>> from brickyard.train.tasks.vae import Coded
        >>> metric, x = latent_kl(outputs=2), torch.zeros(4, 3)
        >>> metric.update(Coded(x, torch.ones(4, 2), torch.zeros(4, 2), x), x)
        >>> float(metric.compute())
        1.0

    Reference:
        Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    from brickyard.train.scores_codes import LatentKL

    return LatentKL(outputs)


@brick(
    "metric", "active_latents", aliases=("active_units",), task="vae", better="higher",
    summary="Latents that the code uses: those whose mean varies over the samples.",
    use_when="You wonder whether fewer latents would do.",
    avoid_when="Models with different numbers of latents are ranked: more is not better as such.",
    best_for="Choosing the number of latents.",
    paper="Burda, Grosse & Salakhutdinov 2016, Importance Weighted Autoencoders, "
    "arXiv:1509.00519, section 5.2",
    tune_first="Nothing to tune.",
    pairs_with=("latent_kl",),
    cost="Two sums a latent.",
)  # fmt: skip
def active_latents(outputs: int) -> Metric:
    """Make a metric that counts the latents whose mean has a variance above 0.01.

    Math:
        #(k: variance over i of mu_ik > 0.01)

    Args:
        outputs: number of latents.

    Example:
        >>> import torch
        >>> from brickyard.train.tasks.vae import Coded
        >>> metric, x = active_latents(outputs=2), torch.zeros(2, 3)
        >>> mu = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> metric.update(Coded(x, mu, torch.zeros(2, 2), x), x)
        >>> float(metric.compute())
        1.0

    Reference:
        Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519, section 5.2.
    """
    from brickyard.train.scores_codes import ActiveLatents

    return ActiveLatents(outputs)


@brick(
    "metric", "reconstruction_error", aliases=("reconstruction_mse",), task="vae", better="lower",
    summary="Mean squared difference of samples and what comes back from their codes.",
    use_when="You want to see how much of a sample its code keeps.",
    avoid_when="Models of different beta are compared by it alone: the lower, the dearer the code.",
    best_for="Beside latent_kl.",
    paper="Baldi & Hornik 1989, Neural Networks and Principal Component Analysis, Neural "
    "Networks 2(1)",
    tune_first="Nothing to tune.",
    pairs_with=("latent_kl", "elbo"),
    cost="One pass over the values.",
)  # fmt: skip
def reconstruction_error(outputs: int) -> Metric:
    """Make a metric that gives the mean squared error of the decoder's means, value by value.

    Math:
        mean over samples and values of (mean_ij - x_ij)^2

    Args:
        outputs: number of latents.

    Example:
        >>> import torch
        >>> from brickyard.train.tasks.vae import Coded
        >>> metric, x = reconstruction_error(outputs=1), torch.zeros(2, 4)
        >>> metric.update(Coded(x + 0.5, torch.zeros(2, 1), torch.zeros(2, 1), x), x)
        >>> float(metric.compute())
        0.25

    Reference:
        Baldi & Hornik 1989, Neural Networks 2(1).
    """
    from brickyard.train.scores_codes import CodedError

    return CodedError(outputs)
