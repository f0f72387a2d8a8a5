"""Perceptual losses: compare what a frozen network sees."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.errors import near
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_choice,
    check_finite,
    check_floating,
    check_not_empty,
    check_same_shape,
    reduce,
    single,
)

__all__ = ["PerceptualLoss"]

Distance = Literal["mse", "mae", "gram"]
_DISTANCES = ("mse", "mae", "gram")


@brick(
    "loss", "perceptual", public="brickyard.losses", output="values", target="values",
    summary="Distance between the features that a frozen network computes of output and target.",
    use_when="Pixels agree and yet it looks wrong: blur, texture, style.",
    avoid_when="No network trained on similar data is at hand, or exact values matter.",
    best_for="Super-resolution, style transfer, decoders of image models; with a pixel loss.",
    paper="Johnson, Alahi & Fei-Fei 2016, Perceptual Losses for Real-Time Style Transfer, eq. 2-4",
    tune_first="layers (early: texture, late: content), then weights",
    cost="Two forward passes and one backward of the feature network.",
    pairs_with=("mae", "gan_hinge", "adam"),
)  # fmt: skip
class PerceptualLoss(Loss):
    """Compare features that a frozen network computes of output and target.

    Keeps its own copy of the network: never updated, always in eval mode (``train()`` does not
    change that), no gradients for its weights. Feed both images as that network expects them.

    Math:
        l_i = sum_k weight_k * distance(f_k(x_i), f_k(y_i))
        mse, mae: mean over channels and places;  gram: the same mse of G = F F^T / (C*H*W)

    Args:
        features: a network; its layers are named as by ``named_modules()``.
        layers: names of the modules whose outputs are compared.
        weights: one factor per layer; None weighs all 1.
        distance: ``"mse"`` and ``"mae"`` compare features, ``"gram"`` their correlations (style).
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        input and target ``(N, *)``, as the network takes them.

    Raises:
        ValueError: shapes differ, a layer is unknown, did not run or ran more than once, weights
            do not match the layers.
        TypeError: input or target is not floating point, a layer returns no tensor.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
        >>> loss = PerceptualLoss(network, layers=["1"])
        >>> image = torch.rand(2, 1, 8, 8)
        >>> loss(image, image)
        tensor(0.)

    Reference:
        Johnson, Alahi & Fei-Fei 2016, Perceptual Losses for Real-Time Style Transfer and
        Super-Resolution, eq. 2 (features), 3 and 4 (gram).
    """

    def __init__(
        self, features: nn.Module, layers: Sequence[str], weights: Sequence[float] | None = None,
        distance: Distance = "mse", reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        who = "PerceptualLoss"
        check_choice(who, "distance", distance, _DISTANCES)
        known = [name for name, _ in features.named_modules() if name]
        for name in layers:
            if name not in known:
                raise ValueError(f"{who}: features has no layer {name!r}{near(name, known)}")
        if isinstance(layers, str) or not layers or len(set(layers)) != len(layers):
            raise ValueError(f"{who}: layers must be a list of different names; got {layers!r}")
        self.layers = tuple(layers)
        self.weights = (1.0,) * len(layers) if weights is None else tuple(map(float, weights))
        if len(self.weights) != len(self.layers) or min(self.weights) < 0:
            raise ValueError(
                f"{who}: weights must hold one number of at least 0 for each of the "
                f"{len(self.layers)} layers; got {weights!r}"
            )
        self.distance = distance
        self.features = copy.deepcopy(features).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Keep the feature network in eval mode whatever is asked of this module."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the distance of ``input`` and ``target`` in the network's eyes."""
        who = "PerceptualLoss"
        check_floating(who, "input", input)
        check_floating(who, "target", target)
        check_same_shape(who, input, target)
        check_not_empty(who, input, self.reduction)
        if self.validate == "full":
            check_finite(who, input=input, target=target)
        with torch.no_grad():
            wanted = self._look(target)
        seen = self._look(input)
        loss = torch.zeros((), device=input.device)
        for weight, mine, theirs in zip(self.weights, seen, wanted, strict=True):
            loss = loss + weight * self._apart(single(mine), single(theirs))
        return reduce(who, loss, self.reduction)

    def _look(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of the wanted layers, in their order."""
        seen: dict[str, list[Tensor]] = {name: [] for name in self.layers}

        def keep(name: str, output: object) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(f"PerceptualLoss: layer {name!r} returns no tensor")
            seen[name].append(output)

        hooks = [
            self.features.get_submodule(name).register_forward_hook(
                lambda _module, _input, output, name=name: keep(name, output)
            )
            for name in self.layers
        ]
        try:
            self.features(image)
        finally:
            for hook in hooks:
                hook.remove()
        for name, outputs in seen.items():
            if len(outputs) != 1:
                raise ValueError(
                    f"PerceptualLoss: layer {name!r} must run once in a forward pass; it ran "
                    f"{len(outputs)} times. Choose another, or one inside or around it"
                )
        return [seen[name][0] for name in self.layers]

    def _apart(self, a: Tensor, b: Tensor) -> Tensor:
        """Return one distance per sample."""
        if self.distance == "gram":
            a, b = _gram(a), _gram(b)
        elementwise = F.l1_loss if self.distance == "mae" else F.mse_loss
        return elementwise(a, b, reduction="none").flatten(1).mean(1)


def _gram(features: Tensor) -> Tensor:
    """Return the correlations of channels, ``(N, C, C)``, over all places."""
    flat = features.flatten(2) if features.dim() > 2 else features.unsqueeze(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])
