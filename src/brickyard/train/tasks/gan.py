"""A generator and its critic: two networks, two optimizers, one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.errors import RecipeError
from brickyard.train.data import Data
from brickyard.train.tasks.base import Batch, Task, inputs_of
from brickyard.train.tasks.refusals import refuse, refuse_regularizers

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe
    from brickyard.train.scheduling import Schedules

__all__ = ["GAN", "Drawn"]

#: Seed of the noise in evaluations, which is the same in each of them.
_EVALUATION = 0x5EED
#: Samples in the report.
_SHOWN = 64


@dataclass(frozen=True)
class Drawn:
    """Hold generated samples, the real ones beside them, and what the critic makes of the former.

    Args:
        fake: generated samples, shape (N, ...).
        real: as many of the data's.
        scores: the critic's, of ``fake``.
    """

    fake: Tensor
    real: Tensor
    scores: Tensor


@brick(
    "task", "gan", aliases=("wgan_gp", "adversarial"), public="brickyard.train.tasks",
    takes=("classification", "regression"),
    summary="Train a generator against a critic: two optimizers, several critic steps a step.",
    use_when="You want to draw new samples, and a sharp look counts more than a likelihood.",
    avoid_when="Every sample needs a code or a likelihood: take a variational autoencoder. There "
    "are fewer than some thousand samples: the critic learns them by heart.",
    best_for="Small images; WGAN-GP where a quiet, readable training curve is wanted.",
    paper="Goodfellow et al. 2014, Generative Adversarial Nets, algorithm 1; WGAN-GP: Gulrajani et "
    "al. 2017, arXiv:1704.00028, algorithm 1",
    tune_first="The penalty's weight and the two rates; then critic_steps (5 for wasserstein, 1 "
    "for the others).",
    cost="For each step critic_steps forward and backward passes of the critic; a gradient penalty "
    "doubles them.",
    pairs_with=("wasserstein", "gan_hinge", "gan_non_saturating", "gradient_penalty", "r1_penalty",
                "sliced_wasserstein", "coverage", "generator_and_critic", "adam", "ema"),
)  # fmt: skip
class GAN(Task):
    """Let a generator draw samples that a critic cannot tell from the data.

    A step takes ``critic_steps`` batches. The critic takes a step of its own optimizer on each;
    then the generator takes one, of the recipe's optimizer, on as many samples as the last batch
    has. Schedule, clipping, penalties and averages of the recipe are the generator's. The critic's
    rate has a schedule of its own, counted in the critic's steps:
    ``critic_optimizer: {name: adam, lr: {base: 2.0e-4, schedule: [linear]}}``.

    Labels are not used. Noise comes from torch's generator, so a resumed run goes on with the same
    samples; evaluations draw the same noise each time, from a generator of their own.

    Math:
        critic:    critic_steps times  c <- c - step(loss.discriminator(C(x), C(G(z))) + penalty)
        generator: g <- g - step(loss.generator(C(G(z)))),  z ~ N(0, 1)

    Args:
        data: the samples.
        critic_optimizer: the optimizer of the critic, named like any other.
        critic_steps: steps of the critic for each of the generator.
        latent: numbers of noise that a sample is made of.
        penalty: a loss on the critic itself, ``gradient_penalty`` or ``r1_penalty``.

    Raises:
        ValueError: a count below 1, or a penalty or optimizer that cannot be used on a critic.

    Example:
        >>> from brickyard.train.data import digits
        >>> GAN(digits(), {"name": "adam", "lr": 1e-3, "betas": (0.5, 0.9)}, critic_steps=3).window
        3

    Reference:
        Goodfellow et al. 2014, Generative Adversarial Nets, algorithm 1; Gulrajani et al. 2017,
        Improved Training of Wasserstein GANs, algorithm 1.
    """

    name = "gan"
    held_out_loss = False
    wants = "the two losses of a game, the generator's and the discriminator's"
    given = "draws from the normal distribution N(0, 1)"
    meaning = "It returns as many generated samples, in the form of the training data."

    def __init__(
        self, data: Data, critic_optimizer: Mapping[str, Any], critic_steps: int = 5,
        latent: int = 64, penalty: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        for name, value in (("critic_steps", critic_steps), ("latent", latent)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}")
        self.window, self.latent = critic_steps, latent
        self.critic_optimizer = critic_optimizer
        self.penalty: Any = None if penalty is None else _penalty(penalty)
        self.image = tuple(data.facts.get("image", ()))
        self._noise = torch.Generator().manual_seed(_EVALUATION)
        self._losses: list[Tensor | float] = []

    def takes(self, loss: Card) -> bool:
        """Say whether a loss has a side for the generator and one for the discriminator."""
        return _is_game(loss.load())

    def check(self, recipe: Recipe) -> None:
        """Refuse what has no meaning for two networks that train each other."""
        who = "gan trains two networks in turn"
        if recipe.accumulate > 1:
            raise RecipeError(
                f"accumulate: {who}, and a step of the generator has the last batch of "
                f"critic_steps; leave accumulate out, and take a larger batch_size"
            )
        refuse(
            recipe,
            precision=f"{who}, and the critic's steps run in fp32",
            compile=f"{who} and differentiates the critic twice, which torch.compile cannot",
        )
        for at, optimizer in (("optimizer", recipe.optimizer.to_dict()),
                              ("task.critic_optimizer", self.critic_optimizer)):  # fmt: skip
            _check_optimizer(at, optimizer)
        refuse_regularizers(
            recipe, snapshot_ensemble="mean of several generators' samples is no sample"
        )
        mixing = [one.name for one in recipe.augmentation if one.name in _MIXES]
        if mixing:
            raise RecipeError(
                f"augmentation: {mixing[0]} blends samples, and the generator would learn to draw "
                "blends; leave it out"
            )

    def build(self, make: Callable[..., nn.Module], data: Data) -> nn.Module:
        """Return the pair of networks; a model of the user's own needs both by these names."""
        model = make(input_shape=data.input_shape, outputs=1, noise=self.latent)
        missing = [n for n in ("generator", "critic")
                   if not isinstance(getattr(model, n, None), nn.Module)]  # fmt: skip
        if missing:
            raise ValueError(
                f"gan needs a model with a generator and a critic, and {type(model).__name__} has "
                f"no {missing[0]}; take {{name: generator_and_critic, generator: mlp, critic: mlp}}"
            )
        return model

    def trained(self, model: Any) -> nn.Module:
        """Return the generator: the critic has an optimizer of its own."""
        return model.generator

    def begin(self, model: Any, loss: Any, total: int, epoch: int) -> None:
        """Make the critic's optimizer."""
        from brickyard.train.optimization import build_inner_optimizer
        from brickyard.train.scheduling import bind_schedules

        if not _is_game(loss):
            raise ValueError(
                f"gan trains on {self.wants}; {type(loss).__name__} has no methods generator(fake) "
                "and discriminator(real, fake)"
            )
        self.game, self.critic = loss, model.critic
        built = build_inner_optimizer(self.critic_optimizer, model.critic)
        self.optimizer: Any = built.optimizer
        self.scheduler: Schedules | None = bind_schedules(
            built, total * self.window, epoch * self.window
        )
        if self.scheduler is not None and self.scheduler.waits:
            raise ValueError(
                "critic_optimizer: reduce_on_plateau waits for a metric of the run, which the "
                "critic does not follow; take a schedule that is a function of the step"
            )
        self.critic.requires_grad_(False)

    def prepare(self, model: Any, window: Sequence[Batch]) -> Sequence[Batch]:
        """Take the critic's steps; leave the last batch to the generator."""
        self.critic.requires_grad_(True)
        for x, _ in window:
            with torch.no_grad():
                fake = model.generator(self._draw(x))
            self.optimizer.zero_grad()
            loss = self.game.discriminator(self.critic(x), self.critic(fake))
            if self.penalty is not None:
                loss = loss + self.penalty(self.critic, x, fake)
            loss.backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            self._losses.append(loss.detach())
        self.critic.requires_grad_(False)  # the generator's gradient needs none of its weights
        return window[-1:]

    def forward(self, model: Any, x: Tensor) -> Drawn:
        """Return as many samples as ``x`` has, and the critic's scores of them."""
        fake = model.generator(self._draw(x) if model.training else self.inputs(x))
        return Drawn(fake, x, self.critic(fake))

    def _draw(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), self.latent, device=x.device)

    def inputs(self, x: Tensor) -> Tensor:
        """Return noise for as many samples as ``x`` has, from a generator of its own."""
        return torch.randn(len(x), self.latent, generator=self._noise).to(x.device)

    def loss(self, criterion: Any, output: Drawn, x: Tensor, y: Tensor) -> Tensor:
        """Return the generator's loss."""
        return criterion.generator(output.scores)

    def evaluating(self) -> None:
        """Draw the same noise in every evaluation."""
        self._noise.manual_seed(_EVALUATION)

    def exported(self, model: Any, x: Tensor) -> tuple[nn.Module, Tensor]:
        """Return the generator, and noise; the critic has done its work."""
        self.evaluating()
        return model.generator, self.inputs(x)

    def measured(self) -> dict[str, float]:
        """Return the critic's mean loss, penalty included."""
        if not self._losses:
            return {}
        mean = sum(map(float, self._losses)) / len(self._losses)
        self._losses.clear()
        return {"critic_loss": mean}

    def scored(self, output: Drawn, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return generated and real samples."""
        return output.fake.float(), output.real

    def show(self, model: Any, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return a sheet of generated samples, where they are pictures."""
        fake = model.generator(self.inputs(x[:1].expand(_SHOWN, *x.shape[1:]))).float().cpu()
        shape = fake.shape[1:] if fake.ndim == 4 else self.image
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
            return {}
        drawn = fake.reshape(4, _SHOWN // 4, -1, *shape[-2:])
        low, high = drawn.min(), drawn.max()
        drawn = F.pad((drawn - low) / (high - low).clamp_min(1e-8), (1, 1, 1, 1))
        rows, columns, channels, height, width = drawn.shape
        sheet = drawn.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
        pixels = (sheet * 255).round().to(torch.uint8).numpy()
        return {
            "heading": "Generated samples",
            "told": f"{_SHOWN} samples of the generator with its best weights, none picked.",
            "pictures": (pixels if channels == 3 else pixels[..., 0])[None, None],
            "titles": ["Generated samples"],
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the critic's optimizer and schedule; its weights are in the model."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "losses": [float(loss) for loss in self._losses],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the critic's optimizer and schedule."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._losses = list(state["losses"])


_MIXES = ("mixup", "cutmix", "manifold_mixup")
#: Optimizers that need more of the loop than a gradient a step.
_ASKING = {
    "lbfgs": "its line search wants a loss that stands still, and the other network moves",
    "nag": "it asks for gradients itself, at weights of its own choice",
    "sophia_g": "it needs the curvature of a likelihood, and a game has none",
    "sophia_h": "its curvature is that of a loss that stands still, and the other network moves",
}


def _check_optimizer(at: str, optimizer: Any) -> None:
    """Refuse optimizers that need more than a gradient, inside of wrappers too."""
    while isinstance(optimizer, Mapping):
        name = optimizer.get("name", "")
        if name in _ASKING:
            raise RecipeError(f"{at}: gan cannot train with {name}: {_ASKING[name]}; take adam")
        optimizer = optimizer.get("inner")


def _is_game(loss: Any) -> bool:
    return all(callable(getattr(loss, side, None)) for side in ("generator", "discriminator"))


def _penalty(given: Mapping[str, Any]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Return the penalty as a function of critic, real and fake samples."""
    from brickyard import catalog
    from brickyard.train.make import make
    from brickyard.train.recipe import Component

    component = Component.parse(given)
    made = make(component, "loss")
    if component.target:
        return made
    wants = inputs_of(catalog.get(component.name, "loss"))
    if wants == ["critic", "real", "fake"]:
        return made
    if wants == ["critic", "real"]:
        return partial(_on_real, made)
    raise ValueError(
        f"penalty: {component.name} takes ({', '.join(wants)}) and not the critic itself; take "
        "gradient_penalty or r1_penalty"
    )


def _on_real(penalty: Callable[..., Tensor], critic: nn.Module, real: Tensor, _: Tensor) -> Tensor:
    return penalty(critic, real)
