"""Conditions of known bad pairs: each returns where in what was made it holds, or ""."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any

from brickyard.catalog.made import Made

HE = ("kaiming_normal_", "kaiming_uniform_")
XAVIER = ("xavier_normal_", "xavier_uniform_")
BATCH = ("batch_norm", "ghost_batch_norm")
NORMS = (*BATCH, "layer_norm", "group_norm", "rms_norm")
PER_CHANNEL = (*BATCH, "instance_norm")
COUPLED = ("adam", "amsgrad", "nadam", "radam", "adamax")


def both(made: Made, one: Collection[str], other: Collection[str]) -> str:
    a, b = made.first(*one), made.first(*other)
    return f"{a.path}, {b.path}" if a and b else ""


def start_under(made: Made, activations: Collection[str], fits: Callable[[dict], bool]) -> str:
    layer, start = made.first(*activations), made.start()
    return f"{layer.path}, model.init" if layer and start and not fits(start) else ""


def torch_start(made: Made) -> str:
    layer, model = made.first("selu"), made.part("model")
    return f"{layer.path}, model.init null" if layer and model.get("init", "") is None else ""


def not_doubled(start: dict[str, Any]) -> bool:
    """Say whether an initializer is no kaiming, or one without the factor 2 for rectifiers."""
    linear = ("linear", "sigmoid", "tanh", "selu")
    return start.get("name") not in HE or start.get("nonlinearity") in linear


def selu_dropout(made: Made) -> str:
    wrong = [a for a in made.some("dropout") if a.rate and "alpha_dropout" not in a.key]
    layer = made.first("selu")
    return f"{layer.path}, {wrong[0].path}" if layer and wrong else ""


def alpha_dropout(made: Made) -> str:
    others = [a for a in made.some("activation") if a.key != "selu"]
    layer = made.first("alpha_dropout")
    if layer is None or not layer.rate or not others or made.first("selu"):
        return ""
    return f"{layer.path}, {others[0].path}"


def variance_shift(made: Made) -> str:
    places = [i for i, layer in enumerate(made.layers) if layer.kind == "dropout" and layer.rate]
    for i in places[:1]:
        norm = next((layer for layer in made.layers[i:] if layer.key in BATCH), None)
        if norm:
            return f"{made.layers[i].path}, then {norm.path}"
    return ""


def idle_bias(made: Made) -> str:
    together = [(a, b) for a, b in pairwise(made.layers) if b.key in PER_CHANNEL]
    found = [a.path for a, _ in together if a.kind in ("linear", "convolution") and a.bias]
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def frn_relu(made: Made) -> str:
    return next((f"{a.path}, {b.path}" for a, b in pairwise(made.layers)
                 if a.key == "frn" and b.key == "relu"), "")  # fmt: skip


def small_batch(made: Made) -> str:
    layer, size = made.first("batch_norm"), made.recipe.get("batch_size", 8)
    return f"{layer.path}, batch_size {size}" if layer and size < 8 else ""


def one_value(made: Made) -> str:
    start = made.start().get("name", "")
    return f"model.init {start}" if start in ("zeros_", "ones_", "constant_") else ""


def too_wide(made: Made) -> str:
    start = made.start()
    if start.get("name") == "normal_" and start.get("std", 1.0) >= 0.5:
        return f"model.init normal_, std {start.get('std', 1.0):g}"
    if start.get("name") == "uniform_" and start.get("a", 0.0) >= 0:
        return f"model.init uniform_, from {start.get('a', 0.0):g} to {start.get('b', 1.0):g}"
    return ""


def fading(made: Made) -> str:
    """Return where a deep rectifier stack without norm or skip path starts too small."""
    start, deep = made.start(), len(made.some("linear", "convolution"))
    plain = not made.some("normalization", "residual") and made.first("relu", "leaky_relu")
    small = start.get("name") in (*XAVIER, "orthogonal_") and start.get("gain", 1.0) < 1.2
    return f"model.init {start.get('name')}, {deep} layers" if plain and small and deep > 22 else ""


def saturating(made: Made) -> str:
    hidden = [layer for layer in made.some("activation") if layer.key == "sigmoid"]
    if len(hidden) < 4 or made.some("normalization", "residual"):
        return ""
    return f"{hidden[0].path} and {len(hidden) - 1} more"


def coupled(made: Made) -> str:
    optimizer = made.part("optimizer")
    decay = optimizer.get("weight_decay") or 0.0
    if optimizer.get("name") not in COUPLED or optimizer.get("decoupled_weight_decay"):
        return ""
    return f"optimizer.weight_decay {decay:g}" if decay else ""


def cold_start(made: Made) -> str:
    optimizer, size = made.part("optimizer"), made.recipe.get("batch_size", 0)
    pieces = made.recipe.get("schedule") or []
    warm = {p.get("name") for p in pieces} & {"warmup", "one_cycle", "wsd"}
    own = any(p.get("target") for p in pieces)  # the user's own schedule may warm up too
    if optimizer.get("name") not in ("sgd", "nag") or warm or own or size < 1024:
        return ""
    return f"optimizer.lr {optimizer.get('lr', 0):g}, batch_size {size}"


def warmup_last(made: Made) -> str:
    pieces = made.recipe.get("schedule") or []
    late = len(pieces) > 1 and pieces[-1].get("name") == "warmup"
    return f"schedule.{len(pieces) - 1}, after {pieces[-2].get('name')}" if late else ""


def growing(made: Made) -> str:
    blocks = [layer for layer in made.some("residual") if layer.key == "residual"]
    tamed = made.some("normalization") or made.first("residual_scale", "layer_scale")
    tamed = tamed or made.start().get("name") in ("zero_residual_", "zeros_")
    return f"{len(blocks)} blocks" if len(blocks) >= 16 and not tamed else ""


def single_values(made: Made) -> str:
    """Return where values of convolutional maps are dropped one by one."""
    spatial = ""
    for layer in made.layers:
        if layer.kind == "convolution":
            spatial = layer.path
        elif layer.kind == "linear" or layer.path == "" or "flatten" in layer.path.lower():
            spatial = ""
        elif spatial and layer.key == "dropout" and layer.rate:
            return f"{layer.path}, behind {spatial}"
    return ""


def decayed_slopes(made: Made) -> str:
    slopes = [n for layer in made.layers if layer.key == "prelu" for n in layer.parameters]
    return next((name for name in slopes if name in made.decayed), "")
