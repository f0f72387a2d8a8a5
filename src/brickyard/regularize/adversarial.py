"""Adversarial examples: inputs changed a little so that the loss grows most, and their uses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.regularize._attack import (
    Loss,
    attacked,
    check_inputs,
    direction,
    each,
    length,
    sample_loss,
    slope,
)

__all__ = ["FGSM", "PGD", "Attack", "adversarial_loss", "fgsm", "pgd"]

Clip = tuple[float, float] | list[float] | None


class Attack(ABC):
    """Hold the ball an attack may search, and train on what it finds.

    Args:
        eps: radius of the ball, in units of the inputs.
        norm: ``"inf"`` or ``"2"``.
        clip: range of valid inputs, or None.
        train_mode: attack modules in the modes they are in; else all in eval mode.
        weight: share of the adversarial loss in training.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, eps: float, norm: str, clip: Clip, train_mode: bool, weight: float):
        if not (isinstance(eps, int | float) and 0 <= eps < math.inf):
            raise ValueError(f"eps must be a number from 0; got {eps!r}")
        if norm not in ("inf", "2"):
            raise ValueError(f"norm must be 'inf' or '2'; got {norm!r}")
        if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
            raise ValueError(f"clip must be (lowest, highest) or None; got {clip!r}")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must be from 0 to 1; got {weight!r}")
        self.eps, self.norm, self.clip = eps, norm, clip
        self.train_mode, self.weight = train_mode, weight

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss = sample_loss,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Return adversarial inputs, without graph; everything else is as before afterwards.

        Args:
            model: the network.
            x: inputs (N, ...), floating point.
            y: targets, as the loss takes them.
            loss: what is made large: a number, or one per sample.
            generator: of random starts; torch's own for the inputs' device when left out.

        Raises:
            ValueError: inputs that are no floats, a loss that does not depend on them.
        """
        check_inputs(x)
        with attacked(model, self.train_mode):
            y = y.clone() if y.is_inference() else y.detach()
            return self._search(model, x.detach().clone(), y, loss, generator).detach()

    @abstractmethod
    def _search(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss,
        generator: torch.Generator | None,
    ) -> Tensor:  # fmt: skip
        """Return the changed inputs; the model is in the modes that the attack wants."""

    def batch_loss(
        self, model: nn.Module, loss: Loss, x: Tensor, y: Tensor, clean: Tensor
    ) -> Tensor:
        """Return the loss to train on: what the trainer calls for every batch.

        Args:
            model: the network.
            loss: the recipe's.
            x: inputs.
            y: targets, as the loss takes them.
            clean: the loss on the inputs as they are.
        """
        return adversarial_loss(model, x, y, self, loss, clean=clean)

    def _bounded(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(*self.clip)


@brick(
    "regularizer", "fgsm", aliases=("fast_gradient_sign", "adversarial_training"),
    public="brickyard.regularize",
    summary="Trains on inputs moved one step along the sign of the loss's gradient.",
    use_when="Robustness to small changes is wanted cheaply, or a first look at how fragile a "
    "model is.",
    avoid_when="Real robustness: models learn to fool the single step while pgd still breaks them "
    "(catastrophic overfitting). Plain accuracy: it usually falls a little.",
    best_for="Small eps, as a regularizer; quick tests.",
    paper="Goodfellow, Shlens & Szegedy 2015 (arXiv:1412.6572); Wong, Rice & Kolter 2020 "
    "(arXiv:2001.03994) on its overfitting.",
    tune_first="eps, in units of the inputs: 8/255 of images in [0, 1], less when standardised.",
    cost="One more forward and backward pass for the attack and one of each to train on it: some "
    "three times the time of a step (two with weight 1).",
    pairs_with=("robust_accuracy", "early_stopping"),
)  # fmt: skip
class FGSM(Attack):
    """Move inputs once along the sign of the gradient, the whole way; train on the mix.

    As a regularizer of a recipe it is adversarial training with the recipe's own loss; called, it
    returns adversarial inputs. Draws no random numbers.

    Math:
        x' = clip(x + eps * sign(grad_x L(model(x), y)))
        norm "2": x' = clip(x + eps * g/||g||), g = grad_x L of each sample
        trained on: (1 - weight) * L(x) + weight * L(x')

    Args:
        eps: how far, in units of the inputs (for standardised ones divide by their deviation).
        norm: ``"inf"`` (every element by eps) or ``"2"`` (every sample by a vector of that length).
        clip: lowest and highest value of valid inputs; None where there is no such range.
        train_mode: attack the modules in the modes they are in (batch norm's statistics then move,
            dropout draws); else all in eval mode.
        weight: share of the adversarial loss in training, from 0 to 1.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
        >>> round((FGSM(eps=0.1)(model, x, y) - x).abs().max().item(), 4)
        0.1

    Reference:
        Goodfellow, Shlens & Szegedy, Explaining and Harnessing Adversarial Examples, 2015,
        sections 4 and 6.
    """

    def __init__(
        self, eps: float = 8 / 255, norm: Literal["inf", "2"] = "inf",
        clip: tuple[float, float] | None = None, train_mode: bool = False, weight: float = 0.5,
    ):  # fmt: skip
        super().__init__(eps, norm, clip, train_mode, weight)

    def _search(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss, generator: Any) -> Tensor:
        return self._bounded(x + self.eps * direction(slope(model, x, y, loss), self.norm))


@brick(
    "regularizer", "pgd", aliases=("projected_gradient_descent", "madry"),
    public="brickyard.regularize",
    summary="Trains on the worst inputs that several gradient steps find within a small ball.",
    use_when="Robustness within a known ball is a requirement, and can be paid for.",
    avoid_when="Clean accuracy is all that counts: it falls, and training takes far longer.",
    best_for="Robust image classifiers; the attack to measure robustness with.",
    paper="Madry et al. 2018 (arXiv:1706.06083); Tsipras et al. 2019 (arXiv:1805.12152) on what it "
    "costs in clean accuracy.",
    tune_first="eps for the task; steps 7 to train, 20 and more with restarts to measure.",
    cost="steps (times restarts) more forward and backward passes, and one of each to train on it.",
    pairs_with=("robust_accuracy", "early_stopping"),
)  # fmt: skip
class PGD(Attack):
    """Climb the loss within a ball around each input by projected steps; train on the result.

    As a regularizer of a recipe it is adversarial training with the recipe's own loss; called, it
    returns adversarial inputs. Random starts draw from the generator that the call is given, or
    from torch's own for the inputs' device (which the trainer's checkpoints hold).

    Math:
        x_0 = x + noise, uniform in the ball
        x_k = clip(project(x_(k-1) + step_size * direction(grad_x L(x_(k-1)))))
        direction: sign for "inf", gradient divided by its length for "2"
        trained on: (1 - weight) * L(x) + weight * L(x_steps)

    Args:
        eps: radius of the ball, in units of the inputs (for standardised ones divide by their
            deviation).
        steps: gradient steps.
        step_size: length of one; 2.5 * eps / steps unless given.
        norm: ``"inf"`` or ``"2"``: of the ball.
        restarts: random starts; each sample keeps its worst (a loss that gives a mean is asked
            sample by sample for that). 0 starts at the inputs themselves and draws nothing.
        clip: lowest and highest value of valid inputs; None where there is no such range.
        train_mode: attack the modules in the modes they are in (batch norm's statistics then move,
            dropout draws); else all in eval mode.
        weight: share of the adversarial loss in training, from 0 to 1; Madry et al. have 1.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
        >>> far = PGD(eps=0.1, steps=3, clip=(-1.0, 0.05))(model, x, y)
        >>> bool((far.abs() <= 0.1 + 1e-6).all() and (far <= 0.05).all())
        True

    Reference:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018,
        section 2.1.
    """

    def __init__(
        self, eps: float = 8 / 255, steps: int = 7, step_size: float | None = None,
        norm: Literal["inf", "2"] = "inf", restarts: int = 1,
        clip: tuple[float, float] | None = None, train_mode: bool = False, weight: float = 0.5,
    ):  # fmt: skip
        super().__init__(eps, norm, clip, train_mode, weight)
        for name, value, least in (("steps", steps, 1), ("restarts", restarts, 0)):
            if not (isinstance(value, int) and value >= least):
                raise ValueError(f"{name} must be a whole number from {least}; got {value!r}")
        if step_size is not None and not step_size > 0:
            raise ValueError(f"step_size must be above 0; got {step_size!r}")
        self.steps, self.restarts = steps, restarts
        self.step_size = 2.5 * eps / steps if step_size is None else step_size

    def _search(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss,
        generator: torch.Generator | None,
    ) -> Tensor:  # fmt: skip
        best, worst = x, None
        for _ in range(max(1, self.restarts)):
            moved = self._start(x, generator) if self.restarts else x
            for _ in range(self.steps):
                along = direction(slope(model, moved, y, loss), self.norm)
                moved = self._project(x, moved + self.step_size * along)
            if self.restarts < 2:
                return moved
            losses = each(model, loss, moved, y)
            if worst is None:
                best, worst = moved, losses
            else:
                higher = losses > worst
                best = torch.where(higher.reshape(-1, *[1] * (x.ndim - 1)), moved, best)
                worst = torch.where(higher, losses, worst)
        return best

    def _start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a point of the ball, drawn evenly."""
        if self.norm == "inf":
            noise = torch.empty_like(x).uniform_(-1, 1, generator=generator)
        else:  # directions of normal vectors are uniform, and so is radius^dimensions
            noise = torch.empty_like(x).normal_(generator=generator)
            shape = (len(x), *[1] * (x.ndim - 1))
            share = torch.rand(shape, generator=generator, dtype=x.dtype, device=x.device)
            noise = direction(noise, "2") * share ** (1 / max(1, x[:1].numel()))
        return self._bounded(x + self.eps * noise)

    def _project(self, x: Tensor, moved: Tensor) -> Tensor:
        """Return the nearest inputs within the ball, then within the valid range."""
        gap = moved - x
        if self.norm == "inf":
            gap = gap.clamp(-self.eps, self.eps)
        else:
            gap = gap * (self.eps / length(gap).clamp_min(1e-12)).clamp(max=1.0)
        return self._bounded(x + gap)


def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, eps: float = 8 / 255, loss: Loss = sample_loss,
    **options: Any,
) -> Tensor:  # fmt: skip
    """Return inputs moved once along the sign of the gradient; see :class:`FGSM`.

    Example:
        >>> x, y = torch.rand(4, 2), torch.zeros(4, dtype=torch.long)
        >>> fgsm(nn.Linear(2, 2), x, y, eps=0.1, clip=(0.0, 1.0)).shape
        torch.Size([4, 2])
    """
    return FGSM(eps, **options)(model, x, y, loss)


def pgd(
    model: nn.Module, x: Tensor, y: Tensor, eps: float = 8 / 255, steps: int = 10,
    loss: Loss = sample_loss, generator: torch.Generator | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """Return the worst inputs that gradient steps find within a ball; see :class:`PGD`.

    Example:
        >>> x, y = torch.rand(4, 2), torch.zeros(4, dtype=torch.long)
        >>> pgd(nn.Linear(2, 2), x, y, eps=0.5, norm="2", restarts=2).shape
        torch.Size([4, 2])
    """
    return PGD(eps, steps, **options)(model, x, y, loss, generator)


def adversarial_loss(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack | Callable[..., Tensor] | None = None,
    loss: Loss = sample_loss, weight: float | None = None, clean: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return a mix of the loss on the inputs and on adversarial ones made from them.

    Math:
        (1 - weight) * L(model(x), y) + weight * L(model(attack(x)), y)

    Args:
        model: the network, in training mode as usual.
        x: inputs (N, ...).
        y: targets, as the loss takes them.
        attack: an :class:`FGSM` or :class:`PGD`, or your own ``attack(model, x, y, loss=loss)``;
            FGSM with its defaults when left out.
        loss: of a batch; its mean is taken where it gives one value per sample.
        weight: share of the adversarial loss, from 0 to 1; the attack's own unless given.
        clean: the loss on ``x``, where it is known already.

    Raises:
        ValueError: a share outside 0 to 1.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> adversarial_loss(model, x, y, PGD(eps=0.1, steps=3)).backward()

    Reference:
        Goodfellow, Shlens & Szegedy, 2015, section 6; with weight 1 Madry et al., 2018.
    """
    attack = FGSM() if attack is None else attack
    share = getattr(attack, "weight", 0.5) if weight is None else weight
    if not 0 <= share <= 1:
        raise ValueError(f"weight must be from 0 to 1; got {share!r}")
    parts = []
    if share < 1:
        parts.append((1 - share) * (loss(model(x), y) if clean is None else clean).mean())
    if share > 0:
        parts.append(share * loss(model(attack(model, x, y, loss=loss)), y).mean())
    return sum(parts[1:], parts[0])
