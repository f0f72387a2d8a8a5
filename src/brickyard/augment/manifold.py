"""Mix hidden features of pairs of samples: manifold mixup, by hooks on an unchanged model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.augment.base import seeded
from brickyard.augment.blend import mixed_targets, mixup
from brickyard.augment.mix import Mixing
from brickyard.catalog import brick
from brickyard.errors import near

__all__ = ["ManifoldMixup", "carry"]

#: Attribute of a batch that says how it is mixed inside of the model.
_MARK = "brickyard_mix"


@dataclass
class _Mix:
    layer: str
    weight: Tensor
    shift: int
    reached: bool = field(default=False)


def carry(old: Tensor, new: Tensor) -> Tensor:
    """Return ``new``, a moved or converted ``old``, with the note that a mixed batch carries."""
    mix = old.__dict__.get(_MARK)
    if mix is not None and new is not old:
        setattr(new, _MARK, mix)
    return new


@brick(
    "augmentation",
    "manifold_mixup",
    summary="Blends two samples in a hidden layer drawn for each batch, and their labels alike.",
    use_when="Mixup helps, or blends of raw inputs mean nothing while blends of features do "
    "(embedded text, tables with categories).",
    avoid_when="The model compiles with hooks forbidden, or blends samples of a batch itself.",
    best_for="Classifiers on small data; better calibrated probabilities and margins.",
    paper="Verma et al. 2019, Manifold Mixup: Better Representations by Interpolating Hidden "
    "States, arXiv:1806.05236",
    tune_first="layers (the paper takes the input and the first blocks), then alpha (1 to 2).",
    cost="One pass over the features of one layer.",
    pairs_with=("cross_entropy", "mixup"),
)
class ManifoldMixup(Mixing):
    """Blend features of one randomly chosen layer between pairs of samples of a batch.

    ``attach(model)`` puts hooks on the model; a call draws layer, partners and weights, blends the
    targets, and leaves a note on the batch that the hooks find when the model runs on it in
    training mode. Every run on that batch is mixed alike; other batches and evaluation are left
    alone. Call it on the very tensor that goes into the model.

    Math:
        k ~ U(layers), w ~ Beta(alpha, alpha);  f(x) = f_k(g_k(x)),
        f_k is applied to w_i g_k(x_i) + (1 - w_i) g_k(x_j);  y_i <- w_i y_i + (1 - w_i) y_j

    Args:
        alpha: of the Beta distribution; 0 mixes nothing.
        layers: names of modules or patterns such as ``"body.*"``, whose outputs may be mixed;
            ``"input"`` is the batch itself. When left out: the input and all parts of the model
            (and of the ``Sequential``s that it is made of) but the last.
        p: probability that a sample (or batch) is mixed at all.
        per: a weight for every ``"sample"``, or one for the whole ``"batch"`` as in the paper.
        targets: ``"soft"`` for losses that take probabilities or values, ``"pairs"`` for
            ``mixed_loss``.
        classes: number of classes, for targets that are indices; 1 for a single yes/no logit.
            Recipes fill it in.

    Raises:
        ValueError: an option out of range; at ``attach``: a name that matches no module; in the
            model: a layer that did not run or whose output has no row for every sample.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> mix = ManifoldMixup(layers=["1"], classes=3).attach(model)
        >>> x, soft = mix(torch.rand(6, 4), torch.arange(6) % 3, torch.Generator().manual_seed(0))
        >>> model(x).shape, soft.shape
        (torch.Size([6, 3]), torch.Size([6, 3]))

    Reference:
        Verma et al. 2019, arXiv:1806.05236, section 2.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        layers: list[str] | None = None,
        p: float = 1.0,
        per: Literal["sample", "batch"] = "sample",
        targets: Literal["soft", "pairs"] = "soft",
        classes: int | None = None,
    ) -> None:
        super().__init__(alpha, p, per, targets, classes)
        if layers is not None and (isinstance(layers, str) or not layers):
            raise ValueError(f"layers must be a list of names or patterns, got {layers!r}")
        self.layers = layers
        self.found: tuple[str, ...] = ()
        self._now: _Mix | None = None
        self._handles: list[Any] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> ManifoldMixup:
        return self  # hooks of a copied model (an average of weights) go on to belong to this one

    def attach(self, model: nn.Module) -> ManifoldMixup:
        """Put the hooks on a model; those of a model before are taken off.

        Raises:
            ValueError: a name or pattern that matches no module, or no layer to choose from.
        """
        self.detach()
        modules = dict(model.named_modules())
        names = _hidden(model) if self.layers is None else _matching(self.layers, list(modules))
        self.found = tuple(names)
        add = self._handles.append
        add(model.register_forward_pre_hook(self._begin))
        for name in self.found:
            if name != "input":
                add(modules[name].register_forward_hook(partial(self._mix, name)))
        add(model.register_forward_hook(self._end))
        return self

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.found, self._now = [], (), None

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return the batch with a note for the model, and blended targets.

        Args:
            x: samples, shape (N, ...); floats where the input may be mixed.
            y: targets, as in ``blend_targets``.
            generator: source of all randomness; torch's default generator when None.
        """
        if not self.found:
            raise ValueError("ManifoldMixup mixes inside of a model; call attach(model) first")
        rng = seeded(generator)
        share, shift = self._draw(len(x), rng)
        weight = torch.from_numpy(share.astype(np.float32)).expand(len(x))
        layer = self.found[int(rng.integers(len(self.found)))]
        if layer == "input":
            return mixup(x, y, weight, shift, self.classes, self.targets)
        marked = x.view_as(x)  # the note stands on this tensor, not on the caller's
        setattr(marked, _MARK, _Mix(layer, weight, shift))
        return marked, mixed_targets(y, weight.to(x.device), shift, self.classes, self.targets)

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        batch = inputs[0] if inputs else None
        mix = batch.__dict__.get(_MARK) if isinstance(batch, Tensor) else None
        self._now = mix if module.training else None
        if self._now is not None:
            self._now.reached = False

    def _mix(self, name: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        mix = self._now
        if mix is None or mix.layer != name or mix.reached:
            return None
        if not isinstance(output, Tensor) or not output.is_floating_point():
            what = type(output).__name__ if not isinstance(output, Tensor) else output.dtype
            raise ValueError(f"ManifoldMixup blends tensors of floats, and {name} gives {what}; "
                             "leave it out of layers")  # fmt: skip
        if output.ndim < 1 or len(output) != len(mix.weight):
            raise ValueError(
                f"ManifoldMixup needs one row for each of {len(mix.weight)} samples, and {name} "
                f"gives shape {tuple(output.shape)}; leave it out of layers"
            )
        mix.reached = True
        weight = mix.weight.to(output).view(-1, *(1,) * (output.ndim - 1))
        return torch.lerp(output.roll(mix.shift, 0), output, weight)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        mix, self._now = self._now, None
        if mix is not None and not mix.reached:
            raise ValueError(
                f"ManifoldMixup chose {mix.layer}, which the model did not run, so targets are "
                "mixed and features are not; leave it out of layers"
            )


def _hidden(model: nn.Module) -> list[str]:
    """Return the input and the names of the parts of a model but its last."""
    names = []
    for name, child in model.named_children():
        parts = child.named_children() if type(child) is nn.Sequential else ()
        inside = [f"{name}.{part}" for part, _ in parts]
        names += inside or [name]
    return ["input", *names[:-1]]


def _matching(patterns: Sequence[str], modules: Sequence[str]) -> list[str]:
    found: list[str] = []
    known = ["input", *(name for name in modules if name)]
    for pattern in patterns:
        fits = [name for name in known if fnmatchcase(name, pattern)]
        if not fits:
            raise ValueError(f"layers: {pattern!r} matches no module{near(pattern, known)}")
        found += [name for name in fits if name not in found]
    return found
