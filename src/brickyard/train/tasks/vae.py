"""Variational autoencoding: a code of few numbers from which a sample can be drawn again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.train.data import Data
from brickyard.train.tasks.base import Task

__all__ = ["Coded", "Vae", "vae"]

_SEED = 2**31 - 1


class AtMean(nn.Module):
    """Code samples and decode the means of their codes: nothing is drawn.

    Args:
        model: has ``encoder``, which returns means and log-variances side by side, and ``decode``.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstructions, means and log-variances for samples (N, ...)."""
        model: Any = self.model
        mu, log_var = model.encoder(x).chunk(2, dim=1)
        return model.decode(mu), mu, log_var


class Coded(NamedTuple):
    """Hold what an autoencoder gives, and the samples that it was given."""

    recon: Tensor
    mu: Tensor
    log_var: Tensor
    x: Tensor


@dataclass
class Vae(Task):
    """Code samples and draw them again; the loss is a bound on their code length.

    Args:
        outputs: numbers a code.
        picture: shape (H, W) or (C, H, W) of the pictures that samples hold; empty for none.
        likelihood: of the decoder, as the loss has it.
        criterion: the loss, for single samples in the report.
    """

    outputs: int
    picture: tuple[int, ...] = ()
    likelihood: str = "bernoulli"
    criterion: Any = field(default=None, repr=False)
    name = "vae"
    mixable = False
    reads_targets = False
    wants = "it bounds the nats that code a sample, from its reconstruction and a spread of codes"
    meaning = (
        "It returns (reconstructions, means of the codes, logarithms of their variances), the "
        "reconstructions before a sigmoid where the likelihood is bernoulli. The program decodes "
        "the means; the module draws from the codes as the loss does, and its `decode(z)` makes "
        "samples of codes z drawn from N(0, 1)."
    )

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the numbers a code."""
        return self.outputs

    def takes(self, loss: Card) -> bool:
        """Say whether a loss is the bound."""
        return loss.key == "elbo"

    def begin(self, model: nn.Module, loss: Any, total: int, epoch: int) -> None:
        """Learn the decoder's likelihood."""
        self.likelihood = str(getattr(loss, "likelihood", "bernoulli"))
        self.criterion = loss

    def forward(self, model: nn.Module, x: Tensor) -> Coded:
        """Return reconstructions, means and log-variances of the codes, and the samples."""
        output = model(x)
        if not isinstance(output, tuple) or len(output) != 3:
            raise ValueError(
                "vae needs a model that returns (reconstruction, mu, log_var); got "
                f"{type(output).__name__}. Take variational_autoencoder"
            )
        return Coded(*output, x)

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the negative bound of a batch, in nats a sample."""
        return criterion(output.recon, output.x, output.mu, output.log_var)

    def means(self, recon: Tensor) -> Tensor:
        """Return what the decoder means: probabilities of logits, or values as they are."""
        return torch.sigmoid(recon) if self.likelihood == "bernoulli" else recon

    def exported(self, model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
        """Return the network without draws, where it can be had, and samples."""
        parts = hasattr(model, "encoder") and hasattr(model, "decode")
        return (AtMean(model).eval() if parts else model), x

    def scored(self, output: Any, y: Tensor) -> tuple[Any, Tensor]:
        """Return the code and the decoder's means, and the samples."""
        return Coded(self.means(output.recon), *output[1:]), output.x

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the squared error of every sample's reconstruction."""
        return {"loss": (self.means(output.recon) - output.x).square().flatten(1).sum(1)}

    def show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return samples, what comes back of them, and what codes drawn from the prior mean."""
        if not self.picture:
            return {}
        panels = [x, self.means(self.forward(model, x).recon)]
        told = "The validation samples whose reconstructions are furthest off"
        decode = getattr(model, "decode", None)
        if decode is not None:
            generator = torch.Generator().manual_seed(_SEED)
            panels.append(
                self.means(
                    decode(torch.randn(len(x), self.outputs, generator=generator).to(x.device))
                )
            )
            told += ", and beside them what codes drawn at random stand for"
        grey = torch.stack([p.reshape(len(x), -1, *self.picture[-2:])[:, 0] for p in panels], 1)
        return {
            "heading": "What comes back",
            "told": f"{told}.",
            "pictures": (grey.clamp(0, 1) * 255).round().to(torch.uint8).cpu(),
            "titles": ["sample", "reconstruction", "drawn"][: len(panels)],
        }  # fmt: skip


@brick(
    "task", "vae", aliases=("autoencoding", "generative_coding"), public="brickyard.train.tasks",
    takes=("classification", "regression", "multi_label"),
    summary="Code samples in a few numbers and draw samples from such codes; labels are not used.",
    use_when="You want to draw new samples, to see what varies in the data, or to find outliers.",
    avoid_when="Sharp pictures are wanted (a GAN or diffusion), or only features (two_view).",
    best_for="Small images and tables with values in [0, 1].",
    paper="Kingma & Welling 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114",
    tune_first="latents; then the loss's beta when codes are not used.",
    pairs_with=("elbo", "variational_autoencoder", "latent_kl", "reconstruction_error"),
    cost="The decoder's outputs for every value of a sample.",
)  # fmt: skip
def vae(data: Data, latents: int = 8) -> Vae:
    """Make the task of coding samples; the loss elbo is in nats a sample, lower is better.

    The Bernoulli likelihood takes values in [0, 1]; take ``likelihood: gaussian`` for others.

    Args:
        data: its labels are not used.
        latents: numbers a code; the model's number of outputs.

    Raises:
        ValueError: ``latents`` below 1.

    Example:
        >>> Vae(outputs=8).takes(__import__("brickyard").catalog.get("elbo"))
        True

    Reference:
        Kingma & Welling 2014, arXiv:1312.6114, section 2.
    """
    if latents < 1:
        raise ValueError(f"latents must be at least 1; got {latents}")
    whole = data.input_shape if len(data.input_shape) == 3 else ()
    shape = tuple(data.facts.get("image") or whole)
    return Vae(latents, shape)
