"""Optimizers to be timed: ours beside torch's fused ones, ours beside the bytes, and peers."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from brickyard import optim
from brickyard.optim import adaptive_clip, chain, clip_by_global_norm, decay, ema_weights
from brickyard.optim import scale_by_adam as adam
from brickyard.optim.bench import gpt2, mlp, resnet50

Make = Callable[[list[torch.nn.Parameter]], Any]
WORKLOADS = {"A": resnet50, "B": gpt2, "C": mlp}


class TorchRecipe:
    """torch's clip, fused AdamW and EMA, one after the other."""

    def __init__(self, params: list[torch.nn.Parameter]) -> None:
        self.params, self.average = params, [p.detach().clone() for p in params]
        self.optimizer = torch.optim.AdamW(params, fused=True)

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.params, 1e9)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1e-3)


def our_recipe(params: list[torch.nn.Parameter]) -> Any:
    made = chain(clip_by_global_norm(1e9), adam(), decay(0.01), ema_weights(0.999))
    return optim.Optimizer(params, made, lr=1e-3)


def agc_chain(params: list[torch.nn.Parameter]) -> Any:
    return optim.Optimizer(params, chain(adaptive_clip(), adam(), decay(0.01)), lr=1e-3)


#: Ours and torch's fused form.
FUSED: dict[str, tuple[Make, Make]] = {
    "adamw": (optim.AdamW, lambda p: torch.optim.AdamW(p, fused=True)),
    "adam": (optim.Adam, lambda p: torch.optim.Adam(p, fused=True)),
    "sgd+momentum": (lambda p: optim.SGD(p, lr=1e-3, momentum=0.9),
                     lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True)),
}  # fmt: skip
#: Elementwise options that a key alone does not show, and chains with barriers.
MORE: dict[str, Make] = {
    "sgd nesterov": lambda p: optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
    "rmsprop centered momentum": lambda p: optim.RMSprop(p, centered=True, momentum=0.9),
    "adafactor momentum": lambda p: optim.Adafactor(p, momentum=0.9),
    "agc > adam > decay": agc_chain,
    "clip > adam > decay > ema": our_recipe,
}
#: What has sums of tensors, rows or units: limited to twice the bound.
BARRIERS = {"lamb", "lars", "adafactor", "adafactor momentum", "agc > adam > decay",
            "clip > adam > decay > ema"}  # fmt: skip

#: By optimizer: our class and, by package, the peers' (module of timm.optim: class).
PEERS: dict[str, tuple[Make, dict[str, str]]] = {
    "nadam": (optim.NAdam, {"torch": "NAdam", "pytorch_optimizer": "NAdam",
                            "timm": "nadamw:NAdamW"}),
    "radam": (optim.RAdam, {"torch": "RAdam", "pytorch_optimizer": "RAdam", "optimi": "RAdam",
                            "timm": "radam:RAdamLegacy"}),
    "adamax": (optim.Adamax, {"torch": "Adamax", "pytorch_optimizer": "AdaMax"}),
    "adadelta": (optim.Adadelta, {"torch": "Adadelta", "pytorch_optimizer": "AdaDelta"}),
    "rmsprop": (optim.RMSprop, {"torch": "RMSprop", "pytorch_optimizer": "RMSprop",
                                "timm": "rmsprop_tf:RMSpropTF"}),
    "yogi": (optim.Yogi, {"pytorch_optimizer": "Yogi"}),
    "lion": (optim.Lion, {"pytorch_optimizer": "Lion", "optimi": "Lion", "timm": "lion:Lion"}),
    "lamb": (optim.LAMB, {"pytorch_optimizer": "Lamb", "timm": "lamb:Lamb"}),
    "adafactor": (optim.Adafactor, {"torch": "Adafactor", "pytorch_optimizer": "AdaFactor",
                                    "timm": "adafactor:Adafactor"}),
    "lookahead(adamw)": (lambda p: optim.Lookahead(optim.AdamW(p)),
                         {"pytorch_optimizer": "Lookahead", "timm": "lookahead:Lookahead"}),
}  # fmt: skip
PACKAGES = {"torch": "torch", "pytorch_optimizer": "pytorch_optimizer", "optimi": "torch-optimi",
            "timm": "timm"}  # fmt: skip


def peer(package: str, name: str) -> Make:
    """Return what makes a peer's optimizer with its default options.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    if package == "torch":
        return getattr(torch.optim, name)
    if package == "timm":
        found = _timm(name)
    else:
        found = getattr(importlib.import_module(package), name)
    if name.endswith("Lookahead"):
        return lambda p: found(torch.optim.AdamW(p), k=5, alpha=0.5)
    if package == "optimi":
        return lambda p: found(p, lr=1e-3)
    return found


def _timm(name: str) -> Any:
    """Return a class of timm.optim, whose package itself cannot be imported without torchvision."""
    module, _, kind = name.partition(":")
    if "timm" not in sys.modules:
        spec = importlib.util.find_spec("timm")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("timm is not installed")
        base = Path(next(iter(spec.submodule_search_locations)))
        for package, folder in (("timm", base), ("timm.optim", base / "optim")):
            empty = types.ModuleType(package)
            empty.__path__ = [str(folder)]
            sys.modules[package] = empty
    return getattr(importlib.import_module(f"timm.optim.{module}"), kind)


def versions() -> dict[str, str]:
    """Return the peers' versions."""
    found = {}
    for package, name in PACKAGES.items():
        try:
            found[package] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
