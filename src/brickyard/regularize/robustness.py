"""Robust accuracy: how much of a model's accuracy an attack leaves."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.regularize.adversarial import PGD, Attack

__all__ = ["RobustAccuracy", "robust_accuracy"]


def robust_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Return the share of samples that are right both as they are and under attack.

    Math:
        mean over samples of [argmax model(x) = y and argmax model(attack(x)) = y]

    Args:
        model: a classifier; evaluated in eval mode, and as it was afterwards.
        x: inputs (N, ...), floating point.
        y: class indices (N,); 0 or 1 for a model of a single logit.
        attack: an FGSM or PGD; PGD with its defaults when left out.
        generator: of the attack's random starts.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> x, y = torch.tensor([[0.05], [3.0], [-3.0]]), torch.tensor([1, 1, 1])
        >>> round(robust_accuracy(model, x, y, PGD(eps=0.1)).item(), 4)
        0.3333

    Reference:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018,
        section 5.
    """
    return _robust(model, x, y, attack or PGD(), generator).float().mean()


def _robust(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, generator: torch.Generator | None
) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            right = _right(model(x), y)
            moved = attack(model, x, y, generator=generator)
            return right & _right(model(moved), y)
    finally:
        for module, training in modes:
            module.training = training


def _right(output: Tensor, y: Tensor) -> Tensor:
    if output.ndim == 2 and output.shape[1] == 1:
        return (output > 0).reshape(-1) == (y.reshape(-1) > 0)
    return output.argmax(1) == y


@brick(
    "metric", "robust_accuracy", public="brickyard.regularize",
    summary="Share of samples that stay right under an attack within a small ball.",
    use_when="Robustness is trained for, or promised; as monitor of adversarial training.",
    avoid_when="It would be read as a guarantee: a stronger attack finds more. Inputs without a "
    "meaningful distance (tables of mixed units).",
    best_for="Images, with the eps that the task asks for.",
    paper="Madry et al. 2018 (arXiv:1706.06083); Carlini et al. 2019 (arXiv:1902.06705) on how to "
    "measure it.",
    tune_first="eps for the task; more steps and restarts until the figure no longer falls.",
    cost="steps times max(1, restarts) forward and backward passes over the validation data.",
    pairs_with=("pgd", "fgsm"),
    task="classification", better="higher",
)  # fmt: skip
class RobustAccuracy:
    """Measure accuracy under projected gradient attacks.

    A sample counts when it is right as it is and under attack. The attack climbs cross-entropy,
    whatever loss was trained on. Its random starts are the same in every evaluation and leave
    torch's own random numbers alone.

    Math:
        mean over samples of [argmax model(x) = y and argmax model(attack(x)) = y]

    Args:
        eps: radius of the ball, in units of the inputs (for standardised ones divide by their
            deviation).
        steps: gradient steps.
        step_size: length of one; 2.5 * eps / steps unless given.
        norm: ``"inf"`` or ``"2"``: of the ball.
        restarts: random starts; a sample counts when it withstands its worst. 0 starts at the
            inputs themselves.
        clip: lowest and highest value of valid inputs; None where there is no such range.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> metric = RobustAccuracy(eps=0.1)
        >>> model = nn.Linear(1, 2)
        >>> metric.update_on(model, torch.randn(8, 1), torch.zeros(8, dtype=torch.long))
        >>> 0 <= metric.compute().item() <= 1
        True

    Reference:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018,
        section 5.
    """

    higher_is_better = True

    def __init__(
        self, eps: float = 8 / 255, steps: int = 20, step_size: float | None = None,
        norm: Literal["inf", "2"] = "inf", restarts: int = 1,
        clip: tuple[float, float] | None = None,
    ):  # fmt: skip
        self.attack = PGD(eps, steps, step_size, norm, restarts, clip)
        self.reset()

    def update_on(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """Attack a batch and count what stays right.

        Args:
            model: the network.
            x: inputs.
            y: class indices.
        """
        if self._generator is None or self._generator.device != x.device:
            self._generator = torch.Generator(x.device).manual_seed(0)
        found = _robust(model, x, y, self.attack, self._generator)
        self._right += int(found.sum())
        self._count += found.numel()

    def update(self, preds: Any, target: Any) -> None:
        """Refuse predictions: this metric attacks the model itself.

        Raises:
            TypeError: always; call :meth:`update_on`.
        """
        raise TypeError("robust accuracy needs the model and the inputs: call update_on()")

    def compute(self) -> Tensor:
        """Return the share over all batches since the reset."""
        return torch.tensor(self._right / self._count if self._count else float("nan"))

    def reset(self) -> None:
        """Forget all batches, and start the random numbers anew."""
        self._right = self._count = 0
        self._generator: torch.Generator | None = None
