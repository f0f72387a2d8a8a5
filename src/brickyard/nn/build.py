"""Make a layer from a key and options, for models that take their parts by name."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from brickyard.catalog import Card, get
from brickyard.catalog.options import coerce
from brickyard.errors import CatalogError, near
from brickyard.nn.frn import FRN
from brickyard.nn.initialize import initialize
from brickyard.nn.noise import DropPath, VariationalDropout
from brickyard.nn.zoneout import Zoneout, ZoneoutLSTM

#: How a model's option names a part: a key, ``{"name": key, **options}``,
#: ``{"target": "package.module:object", **options}``, or None for no such part.
Spec = str | Mapping[str, Any] | None


#: torch takes ``(N, C)`` input of these for one unbatched sample ``(C, L)``.
_NEED_SPACE = (nn.InstanceNorm1d, nn.Dropout1d)
#: Dropouts of recurrent networks, by what they work on.
_NEED_TIME = {
    VariationalDropout: "drops features of sequences (N, T, C)",
    Zoneout: "wraps a recurrent cell",
    ZoneoutLSTM: "is a recurrent layer of its own",
}


def make_layer(
    kind: str, spec: Spec, *, path: str = "", dims: int | None = None, **injected: Any
) -> nn.Module:
    """Build the layer that ``spec`` names; ``nn.Identity`` for None.

    Args:
        kind: kind of brick that the key must have, such as ``"activation"``.
        spec: what the user chose; see :data:`Spec`.
        path: where the choice stands, for messages; ``kind`` when empty.
        dims: number of spatial axes; picks ``BatchNorm1d`` for ``BatchNorm2d`` and the like.
        injected: sizes by name, such as ``num_features``; each goes to a required parameter of
            that name, and one that the layer does not have is left out.

    Raises:
        CatalogError: unknown key or option, an option of the wrong type, a missing option, or a
            value that the layer itself refuses; the message starts with the path.

    Example:
        >>> make_layer("activation", {"name": "leaky_relu", "negative_slope": 0.2})
        LeakyReLU(negative_slope=0.2)
    """
    if spec is None:
        return nn.Identity()
    path = path or kind
    target, options = resolve(kind, spec, path)
    if dims is not None:
        target = sibling(target, dims)
    if dims is not None:
        _check_axes(kind, spec, target, options, path, dims)
    sizes = _required(target, options, injected, path)
    try:
        layer = target(**{**sizes, **options})
    except (TypeError, ValueError) as error:
        raise CatalogError(f"{path}: {_name(spec)!r} refuses {options}: {error}") from error
    if not isinstance(layer, nn.Module):
        raise CatalogError(f"{path}: {_name(spec)!r} makes a {type(layer).__name__}, not a module")
    return layer


def _check_axes(
    kind: str, spec: Any, target: Any, options: Mapping[str, Any], path: str, dims: int
) -> None:
    """Refuse a layer whose statistics or features are not where this place has them."""
    if dims == 0 and inspect.isclass(target) and issubclass(target, _NEED_SPACE):
        raise CatalogError(
            f"{path}: {_name(spec)!r} works over spatial axes, and this layer's output has none; "
            f"torch would take the batch for channels. Take another {kind}"
        )
    if dims == 0 and target is FRN and not options.get("learn_eps"):
        raise CatalogError(
            f"{path}: {_name(spec)!r} works over spatial axes, and this layer's output has none: "
            f"only the sign of each value would be left. Give learn_eps: true, or take layer_norm"
        )
    if dims > 0 and getattr(target, "features_last", False):
        raise CatalogError(
            f"{path}: {_name(spec)!r} works on features along the last axis, which is the width "
            f"of an image here. Take an activation that works value by value, such as relu or silu"
        )


def resolve(kind: str, spec: str | Mapping[str, Any], path: str) -> tuple[Callable[..., Any], dict]:
    """Return the brick that ``spec`` names and its options, checked.

    Args:
        kind: kind of brick that the key must have.
        spec: a key or a mapping; see :data:`Spec`.
        path: where the choice stands, for messages.

    Raises:
        CatalogError: unknown key or option, or an option of the wrong type.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        raise CatalogError(
            f"{path}: give a key, a mapping with 'name' and options, or null; got {spec!r}"
        )
    options = {k: v for k, v in spec.items() if k not in ("name", "target")}
    if ("name" in spec) == ("target" in spec):
        raise CatalogError(f"{path}: give 'name' or 'target', one of the two; got {dict(spec)!r}")
    if "target" in spec:
        return _import(spec["target"], path), options
    try:
        card = get(str(spec["name"]), kind)
        return card.load(), _checked(card, options, path)
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from error


def sibling(target: Callable[..., Any], dims: int) -> Callable[..., Any]:
    """Return the class of ``target``'s family for ``dims`` spatial axes.

    Families are named by their last characters: ``BatchNorm1d``, ``BatchNorm2d``, ``BatchNorm3d``.
    Zero axes (``(N, C)`` input) take the ``1d`` member. Others are returned as they are.

    Args:
        target: a layer class or function.
        dims: number of axes behind the channels.
    """
    family = re.fullmatch(r"(.+)[123]d", getattr(target, "__name__", ""))
    if family is None:
        return target
    module = sys.modules[target.__module__]
    return getattr(module, f"{family[1]}{max(dims, 1)}d", target)


def normalize(
    layer: nn.Module, spec: Spec, *, path: str = "normalization", dims: int = 0, **injected: Any
) -> tuple[nn.Module, nn.Module]:
    """Return ``(layer, norm)``: the normalization that ``spec`` names, behind or inside ``layer``.

    Normalizations of activations follow the layer; those of weights (``weight_norm``,
    ``spectral_norm``) become a parametrization of the layer, and ``norm`` is an identity.
    A bias that the norm's own shift would make redundant is removed.

    Args:
        layer: a linear or convolutional layer.
        spec: what the user chose.
        path: where the choice stands, for messages.
        dims: number of spatial axes of the layer's output.
        injected: sizes by name, as for :func:`make_layer`.
    """
    if spec is None:
        return layer, nn.Identity()
    target, _ = resolve("normalization", spec, path)
    if "module" in _parameters(target):
        return make_layer("normalization", spec, path=path, module=layer), nn.Identity()
    norm = make_layer("normalization", spec, path=path, dims=dims, **injected)
    centers = getattr(norm, "centers", True)  # takes the mean away, and a bias with it
    if getattr(norm, "bias", None) is not None and centers:
        layer.register_parameter("bias", None)
    return layer, norm


def drop(
    layer: nn.Module, spec: Spec, *, path: str = "dropout", dims: int = 0, branch: bool = False,
    **injected: Any,
) -> tuple[nn.Module, nn.Module]:  # fmt: skip
    """Return ``(layer, dropout)``: the dropout that ``spec`` names, behind or around ``layer``.

    Args:
        layer: a linear or convolutional layer; ``drop_connect`` wraps it.
        spec: what the user chose.
        path: where the choice stands, for messages.
        dims: number of spatial axes of the layer's output.
        branch: the dropout ends a residual branch; elsewhere ``drop_path`` is refused.
        injected: sizes by name, as for :func:`make_layer`.

    Raises:
        CatalogError: as :func:`make_layer`; a dropout of recurrent networks; ``drop_path``
            outside a residual branch.
    """
    if spec is None:
        return layer, nn.Identity()
    target, _ = resolve("dropout", spec, path)
    if target in _NEED_TIME:
        raise CatalogError(
            f"{path}: {_name(spec)!r} {_NEED_TIME[target]}, and this network has no time axis. "
            f"Take dropout or drop_connect"
        )
    if target is DropPath and not branch:
        raise CatalogError(
            f"{path}: {_name(spec)!r} drops what a residual branch adds, and there is no branch "
            f"here; without a skip path the sample would be gone. Give residual, or take dropout"
        )
    if "linear" in _parameters(target):
        return make_layer("dropout", spec, path=path, linear=layer), nn.Identity()
    return layer, make_layer("dropout", spec, path=path, dims=dims, **injected)


def init_weights(model: nn.Module, spec: Spec, path: str = "init") -> None:
    """Fill the weights of all linear and convolutional layers by an initializer; biases zero.

    Args:
        model: changed in place.
        spec: key of an initializer or a mapping; None keeps torch's own start. ``initialize``
            is given the whole model.
        path: where the choice stands, for messages.

    Raises:
        CatalogError: unknown key or option, or an initializer that fills no single tensor.
    """
    if spec is None:
        return
    fill, options = resolve("initializer", spec, path)
    if fill is initialize:
        try:
            initialize(model, **options)
        except ValueError as error:
            raise CatalogError(f"{path}: {_name(spec)!r}: {error}") from error
        return
    if "tensor" not in _parameters(fill):
        raise CatalogError(
            f"{path}: {_name(spec)!r} works on a whole model or layer, with what only your code "
            f"has, not on one weight; call it yourself, or take initialize"
        )
    for layer in model.modules():
        if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            continue
        weight = torch.empty_like(layer.weight)
        try:
            fill(weight, **options)
        except (TypeError, ValueError) as error:
            shape = tuple(weight.shape)
            raise CatalogError(f"{path}: {_name(spec)!r} cannot fill {shape}: {error}") from error
        with torch.no_grad():
            if parametrize.is_parametrized(layer, "weight"):
                layer.weight = weight
            else:
                layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.zero_()


def _checked(card: Card, options: Mapping[str, Any], path: str) -> dict[str, Any]:
    kinds = {option.name: option.type for option in card.options}
    takes = {*kinds, *(card.about.injected & set(_parameters(card.load())))}
    done = {}
    for name, value in options.items():
        if name not in takes:
            raise CatalogError(f"{card.key!r} has no option {name!r}{near(name, takes)}")
        try:
            done[name] = coerce(value, kinds.get(name, "Any"))
        except TypeError:
            raise CatalogError(
                f"option {name!r} of {card.key!r} wants {kinds[name]}; got {value!r}"
            ) from None
    return done


def _required(
    target: Callable[..., Any], options: Mapping[str, Any], injected: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """Return the injected sizes that ``target`` cannot do without."""
    needed = [
        p.name
        for p in _parameters(target).values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    missing = [name for name in needed if name not in injected and name not in options]
    if missing:
        raise CatalogError(f"{path}: {_title(target)} needs the option {missing[0]!r}; add it")
    return {name: injected[name] for name in needed if name in injected}


def _import(target: Any, path: str) -> Callable[..., Any]:
    module, colon, name = str(target).partition(":")
    if not colon:
        raise CatalogError(f"{path}.target: write 'package.module:object'; got {target!r}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CatalogError(f"{path}.target: cannot import {target!r}: {error}") from error
    if not callable(found):
        raise CatalogError(f"{path}.target: {target!r} is {found!r}, which cannot be called")
    return found


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError:  # written in C, without a signature: nothing to check against
        return {}


def _name(spec: Any) -> str:
    return spec if isinstance(spec, str) else str(spec.get("name") or spec.get("target"))


def _title(target: Callable[..., Any]) -> str:
    return getattr(target, "__name__", repr(target))
