"""A variational autoencoder of dense layers: a code of few numbers, and what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.nn.build import Spec
from brickyard.nn.models import MLP
from brickyard.nn.shapes import size_of, sizes_of

__all__ = ["VariationalAutoencoder"]

_SEED = 2**31 - 1


@brick(
    "model", "variational_autoencoder", aliases=("vae_mlp",), public="brickyard.nn",
    summary="Dense encoder and decoder around a code of a few random numbers.",
    use_when="Small images or tables are to be drawn anew, coded or checked for outliers.",
    avoid_when="Sharp pictures are wanted, or images above some thousand pixels.",
    best_for="8 x 8 and 28 x 28 digits, tables.",
    paper="Kingma & Welling 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114",
    tune_first="The number of latents (an option of the task vae), then hidden.",
    cost="Weights of both nets once a sample, three times in training.",
    pairs_with=("vae", "elbo", "gelu", "adamw"),
)  # fmt: skip
class VariationalAutoencoder(nn.Module):
    """Code a sample as a normal distribution over latents, draw from it, and decode the draw.

    In training the draw is random; in evaluation it takes the same random numbers every time, so
    that evaluations compare and training is not disturbed by them.

    Math:
        (mu, log_var) = encoder(x);   z = mu + exp(log_var / 2) * noise;   recon = decoder(z)

    Args:
        input_shape: shape of one sample.
        outputs: number of latents.
        hidden: width of all hidden layers, or one width for each of the encoder; the decoder has
            them in reverse.
        depth: number of hidden layers of each net when ``hidden`` is one number; 2 when None.
        activation: key or mapping of an activation.
        normalization: key or mapping of a normalization; None for none.
        dropout: key or mapping of a dropout in the encoder; None for none.
        init: key or mapping of an initializer of single weights; None keeps torch's own start.

    Raises:
        ValueError: a size below 1, or ``depth`` beside a list.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> recon, mu, log_var = VariationalAutoencoder((1, 8, 8), 4)(torch.zeros(2, 1, 8, 8))
        >>> recon.shape, mu.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 4]))

    Reference:
        Kingma & Welling 2014, arXiv:1312.6114, section 3 and appendix C.
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, *, hidden: int | Sequence[int] = 256,
        depth: int | None = None, activation: Spec = "gelu", normalization: Spec = None,
        dropout: Spec = None, init: Spec = "kaiming_normal_",
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = tuple(sizes_of("input_shape", input_shape))
        self.latents = size_of("outputs", outputs)
        back = hidden if isinstance(hidden, int) else list(hidden)[::-1]
        self.encoder = MLP(
            self.shape, 2 * self.latents, hidden=hidden, depth=depth, activation=activation,
            normalization=normalization, dropout=dropout, init=init,
        )  # fmt: skip
        self.decoder = MLP(
            (self.latents,), prod(self.shape), hidden=back, depth=depth, activation=activation,
            normalization=normalization, init=init,
        )  # fmt: skip

    def decode(self, z: Tensor) -> Tensor:
        """Return what codes stand for, ``(N, *input_shape)``, for codes ``(N, outputs)``."""
        return self.decoder(z).view(-1, *self.shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstructions, means and log-variances for ``(N, *input_shape)``."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        if self.training:
            noise = torch.randn_like(mu)
        else:
            generator = torch.Generator(mu.device).manual_seed(_SEED)
            noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return self.decode(mu + (0.5 * log_var).exp() * noise), mu, log_var
