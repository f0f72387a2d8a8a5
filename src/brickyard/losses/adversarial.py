"""Adversarial pairs: one object holds the losses of generator and discriminator."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_finite,
    check_floating,
    check_not_empty,
    check_same_shape,
    reduce,
    single,
)

__all__ = ["GANHinge", "GANLeastSquares", "GANMinimax", "GANNonSaturating", "Wasserstein"]


class _Game(Loss, ABC):
    """Hold both sides of a game; a subclass gives three functions of a score."""

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def generator(self, fake: Tensor) -> Tensor:
        """Return the generator's loss for the scores of its samples."""
        return self._reduce(self._fool(self._score("fake", fake)))

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss for scores of real and generated samples.

        Detach the generated samples before scoring them, or the generator is trained too.
        """
        real, fake = self._score("real", real), self._score("fake", fake)
        if self.reduction == "none":
            check_same_shape(type(self).__name__, real, fake, "real and fake")
        return self._reduce(self._accept(real)) + self._reduce(self._reject(fake))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss."""
        return self.discriminator(real, fake)

    def _score(self, name: str, score: Tensor) -> Tensor:
        who = type(self).__name__
        check_floating(who, name, score)
        check_not_empty(who, score, self.reduction)
        if self.validate == "full":
            check_finite(who, **{name: score})
        return single(score)

    def _reduce(self, loss: Tensor) -> Tensor:
        return reduce(type(self).__name__, loss, self.reduction)

    @abstractmethod
    def _accept(self, score: Tensor) -> Tensor:
        """Return the discriminator's loss for each score of what is real."""

    @abstractmethod
    def _reject(self, score: Tensor) -> Tensor:
        """Return the discriminator's loss for each score of what was generated."""

    @abstractmethod
    def _fool(self, score: Tensor) -> Tensor:
        """Return the generator's loss for each score of what it generated."""


@brick(
    "loss", "gan_minimax", public="brickyard.losses", output="scores", target="none",
    summary="The original game: the generator lowers log(1 - D); its gradient dies when D wins.",
    use_when="You study the original game or compare with it.",
    avoid_when="You want to train: the generator's gradient vanishes early; take non-saturating.",
    best_for="Theory, baselines.",
    paper="Goodfellow et al. 2014, Generative Adversarial Nets, eq. 1",
    tune_first="the two learning rates",
    cost="Negligible beside the networks.",
    pairs_with=("gan_non_saturating", "r1_penalty"),
)  # fmt: skip
class GANMinimax(_Game):
    """Play the original minimax game on logits.

    Math:
        discriminator: softplus(-real) + softplus(fake)
        generator:     -softplus(fake), which is log(1 - sigmoid(fake))

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the scores of each side, or ``"none"``.
        validate: ``"cheap"`` checks dtypes; ``"full"`` refuses non-finite scores too.

    Raises:
        ValueError: no scores, or non-finite ones under ``"full"``.
        TypeError: scores are not floating point.

    Example:
        >>> import torch
        >>> GANMinimax().generator(torch.zeros(4))  # -ln 2
        tensor(-0.6931)

    Reference:
        Goodfellow et al. 2014, Generative Adversarial Nets, eq. 1 and algorithm 1.
    """

    def _accept(self, score: Tensor) -> Tensor:
        return F.softplus(-score)

    def _reject(self, score: Tensor) -> Tensor:
        return F.softplus(score)

    def _fool(self, score: Tensor) -> Tensor:
        return -F.softplus(score)


@brick(
    "loss", "gan_non_saturating", public="brickyard.losses", output="scores", target="none",
    summary="The generator raises log D instead: strong gradients while it is still bad.",
    use_when="A first GAN, with r1_penalty on the discriminator.",
    avoid_when="The discriminator separates the sides perfectly and no penalty bounds it.",
    best_for="StyleGAN-like image models.",
    paper="Goodfellow et al. 2014, Generative Adversarial Nets, section 3",
    tune_first="the weight of r1_penalty, then the rates",
    cost="Negligible beside the networks.",
    pairs_with=("r1_penalty", "adam"),
)  # fmt: skip
class GANNonSaturating(GANMinimax):
    """Play the game in which the generator raises the log of the discriminator's output.

    Math:
        discriminator: softplus(-real) + softplus(fake)
        generator:     softplus(-fake)

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the scores of each side, or ``"none"``.
        validate: ``"cheap"`` checks dtypes; ``"full"`` refuses non-finite scores too.

    Raises:
        ValueError: no scores, or non-finite ones under ``"full"``.
        TypeError: scores are not floating point.

    Example:
        >>> import torch
        >>> GANNonSaturating().generator(torch.tensor([-4.0]))
        tensor(4.0181)

    Reference:
        Goodfellow et al. 2014, Generative Adversarial Nets, section 3, last paragraph.
    """

    def _fool(self, score: Tensor) -> Tensor:
        return F.softplus(-score)


@brick(
    "loss", "gan_least_squares", public="brickyard.losses", output="scores", target="none",
    summary="Squared distance of scores to 1 (real) and 0 (fake): no saturation on either side.",
    use_when="Training is unstable with log losses, as in image translation.",
    avoid_when="Scores drift far off: the squared term then dominates.",
    best_for="CycleGAN-like models, vocoders.",
    paper="Mao et al. 2017, Least Squares Generative Adversarial Networks, eq. 9",
    tune_first="the two learning rates",
    cost="Negligible beside the networks.",
    pairs_with=("mae", "adam"),
)  # fmt: skip
class GANLeastSquares(_Game):
    """Play the game with squared distances to 1 and 0; scores need no sigmoid.

    Math:
        discriminator: 0.5*(real - 1)^2 + 0.5*fake^2
        generator:     0.5*(fake - 1)^2

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the scores of each side, or ``"none"``.
        validate: ``"cheap"`` checks dtypes; ``"full"`` refuses non-finite scores too.

    Raises:
        ValueError: no scores, or non-finite ones under ``"full"``.
        TypeError: scores are not floating point.

    Example:
        >>> import torch
        >>> GANLeastSquares().discriminator(torch.tensor([1.0]), torch.tensor([1.0]))
        tensor(0.5000)

    Reference:
        Mao et al. 2017, Least Squares Generative Adversarial Networks, eq. 9.
    """

    def _accept(self, score: Tensor) -> Tensor:
        return 0.5 * (score - 1).square()

    def _reject(self, score: Tensor) -> Tensor:
        return 0.5 * score.square()

    def _fool(self, score: Tensor) -> Tensor:
        return 0.5 * (score - 1).square()


@brick(
    "loss", "gan_hinge", public="brickyard.losses", output="scores", target="none",
    summary="The discriminator stops at a margin of 1; the generator follows its score.",
    use_when="Large image GANs with spectral normalization.",
    avoid_when="The discriminator has no bound on its slope.",
    best_for="SAGAN and BigGAN-like models, VQ-GAN decoders.",
    paper="Lim & Ye 2017, Geometric GAN; Miyato et al. 2018, Spectral Normalization, eq. 16-17",
    tune_first="the two learning rates (the discriminator's is often 4 times larger)",
    cost="Negligible beside the networks.",
    pairs_with=("adam", "gan_non_saturating"),
)  # fmt: skip
class GANHinge(_Game):
    """Play the game with a margin for the discriminator.

    Math:
        discriminator: max(0, 1 - real) + max(0, 1 + fake)
        generator:     -fake

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the scores of each side, or ``"none"``.
        validate: ``"cheap"`` checks dtypes; ``"full"`` refuses non-finite scores too.

    Raises:
        ValueError: no scores, or non-finite ones under ``"full"``.
        TypeError: scores are not floating point.

    Example:
        >>> import torch
        >>> GANHinge().discriminator(torch.tensor([2.0]), torch.tensor([0.5]))
        tensor(1.5000)

    Reference:
        Miyato et al. 2018, Spectral Normalization for Generative Adversarial Networks, eq. 16, 17.
    """

    def _accept(self, score: Tensor) -> Tensor:
        return F.relu(1 - score)

    def _reject(self, score: Tensor) -> Tensor:
        return F.relu(1 + score)

    def _fool(self, score: Tensor) -> Tensor:
        return -score


@brick(
    "loss", "wasserstein", public="brickyard.losses", output="scores", target="none",
    summary="Difference of mean scores: an estimate of the earth mover's distance.",
    use_when="Modes collapse with other games, or you want a loss that tracks quality.",
    avoid_when="The critic is not kept 1-Lipschitz (gradient penalty or spectral normalization).",
    best_for="WGAN-GP on hard distributions.",
    paper="Arjovsky, Chintala & Bottou 2017, Wasserstein GAN, eq. 2 and algorithm 1",
    tune_first="critic steps per generator step (5), then the penalty's weight",
    cost="Negligible; the penalty beside it costs a second backward.",
    pairs_with=("gradient_penalty", "adam"),
)  # fmt: skip
class Wasserstein(_Game):
    """Play the game of critic and generator on unbounded scores.

    Minus the critic's loss estimates the distance, if the critic is 1-Lipschitz.

    Math:
        critic:    fake - real
        generator: -fake

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the scores of each side, or ``"none"``.
        validate: ``"cheap"`` checks dtypes; ``"full"`` refuses non-finite scores too.

    Raises:
        ValueError: no scores, or non-finite ones under ``"full"``.
        TypeError: scores are not floating point.

    Example:
        >>> import torch
        >>> Wasserstein().discriminator(real=torch.tensor([3.0]), fake=torch.tensor([1.0]))
        tensor(-2.)

    Reference:
        Arjovsky, Chintala & Bottou 2017, Wasserstein GAN, eq. 2 and algorithm 1.
    """

    def _accept(self, score: Tensor) -> Tensor:
        return -score

    def _reject(self, score: Tensor) -> Tensor:
        return score

    def _fool(self, score: Tensor) -> Tensor:
        return -score
