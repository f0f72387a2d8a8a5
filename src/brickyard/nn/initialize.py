"""Start a whole model: each layer by what it is and what follows it, with a table of it all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from brickyard.catalog import brick
from brickyard.nn.follow import Follower, followers, has_fan
from brickyard.nn.frn import FRN
from brickyard.nn.gains import LINEAR, Start, best_of, gate, of_function, start_before
from brickyard.nn.gated import GeGLU, Maxout, SwiGLU
from brickyard.nn.starts import check_real, zero_residual_

__all__ = ["Initialized", "Row", "initialize"]

_SCHEMES = ("auto", "kaiming", "xavier", "lecun", "orthogonal")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, FRN)
_LEFT = "left as it was"
_UNPLACED = "cannot tell what follows: not traced, and no activation defined behind it"


@dataclass(frozen=True)
class Row:
    """Say what was done to one parameter, and why."""

    parameter: str
    shape: tuple[int, ...]
    done: str
    why: str

    @property
    def left(self) -> bool:
        """Say whether the parameter was left alone."""
        return self.done == _LEFT


class Initialized:
    """List what :func:`initialize` did to each parameter; ``print`` shows it as a table."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    @property
    def left(self) -> list[str]:
        """Return the names of parameters that were left alone."""
        return [row.parameter for row in self.rows if row.left]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [("parameter", "shape", "done", "why")]
        cells += [(r.parameter, "x".join(map(str, r.shape)), r.done, r.why) for r in self.rows]
        wide = [max(len(row[i]) for row in cells) for i in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, wide, strict=False)), row[3]])
                 for row in cells]  # fmt: skip
        left = len(self.left)
        end = f"{len(self) - left} of {len(self)} parameters set" + (f", {left} left" * (left > 0))
        return "\n".join([*lines, end])

    __repr__ = __str__


@brick(
    "initializer",
    "initialize",
    aliases=("auto",),
    public="brickyard.nn.init",
    summary="Starts a whole model, each layer by the activation that follows it, and says what it "
    "did and why.",
    use_when="A model of your own mixes layers and activations, or is deep without normalization.",
    avoid_when="Weights are pretrained (freeze them first: it leaves frozen ones alone), or the "
    "model's paper says how each part starts, as for most transformers.",
    best_for="Plain and residual networks of linear, convolutional and recurrent layers.",
    paper="He et al. 2015, arXiv:1502.01852; Glorot & Bengio 2010, AISTATS; Klambauer et al. 2017, "
    "arXiv:1706.02515; Saxe et al. 2014, arXiv:1312.6120; the gain 1.1 of tanh: tests/nn/"
    "test_depth.py",
    tune_first="Read the table: what it left alone is yours to set. Then zero_residual.",
    cost="One trace of the model and one draw a weight, once.",
    pairs_with=("relu", "tanh", "selu", "zero_residual_"),
)
def initialize(
    model: nn.Module,
    scheme: Literal["auto", "kaiming", "xavier", "lecun", "orthogonal"] = "auto",
    *,
    distribution: Literal["normal", "uniform"] = "normal",
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    zero_residual: bool = False,
    forget_bias: float = 0.0,
    generator: torch.Generator | None = None,
) -> Initialized:
    """Start every layer by what it is and what follows it; return a table of what was done.

    Math:
        kaiming: variance gain^2 / fan (before ReLU, leaky, GELU, SiLU ...: gain^2 = 1 / E[f(z)^2])
        xavier: variance gain^2 * 2 / (fan_in + fan_out) (tanh: gain 1.1; sigmoid, none: 1)
        lecun: variance 1 / fan_in (SELU);   recurrent matrices: orthogonal;   biases 0, norms 1, 0

    What follows is read from a ``torch.fx`` trace, past norms, dropout, pooling and sums; where
    the model cannot be traced, from traces of its parts, then from the order of definition (the
    table says so). Frozen parameters, embeddings, scales, layers it does not know and layers of
    which it cannot tell what follows are named and left alone. Running statistics of norms that
    are not frozen are reset.

    Args:
        model: changed in place.
        scheme: ``"auto"``, or one family for all linear and convolutional layers (each with the
            gain of what follows).
        distribution: of weights that are not orthogonal.
        mode: fan of the kaiming family: ``"fan_in"`` keeps signals level, ``"fan_out"`` gradients.
        zero_residual: zero the last layer of each residual branch at the end (zero_residual_).
        forget_bias: start of LSTM forget gates' biases; 1 helps to remember from the first step.
        generator: source of randomness, on the device of the weights; torch's own when None.

    Raises:
        ValueError: an unknown scheme, distribution or mode; parameters without values (meta
            device, lazy layers); ``zero_residual`` without residual branches.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> print(initialize(model))
        parameter  shape  done                 why
        0.weight   8x4    kaiming, std 0.7071  ReLU follows
        0.bias     8      zero                 a bias
        2.weight   2x8    xavier, std 0.4472   no activation follows
        2.bias     2      zero                 a bias
        4 of 4 parameters set

    Reference:
        He et al. 2015, arXiv:1502.01852, section 2.2; Glorot & Bengio 2010; Klambauer et al. 2017,
        arXiv:1706.02515, section 2.
    """
    for name, value, allowed in (
        ("scheme", scheme, _SCHEMES),
        ("distribution", distribution, ("normal", "uniform")),
        ("mode", mode, ("fan_in", "fan_out")),
    ):
        if value not in allowed:
            raise ValueError(
                f"initialize: {name} must be one of {', '.join(allowed)}; got {value!r}"
            )
    check_real("initialize", model)
    return _Work(model, scheme, distribution, mode, forget_bias, generator).run(zero_residual)


class _Work:
    """Walk over a model once; hold the options and the rows so far."""

    def __init__(
        self, model: nn.Module, scheme: str, distribution: str, mode: str, forget_bias: float,
        generator: torch.Generator | None,
    ) -> None:  # fmt: skip
        self.model, self.scheme, self.distribution, self.mode = model, scheme, distribution, mode
        self.forget_bias, self.generator = forget_bias, generator
        self.rows: dict[str, Row] = {}
        self.seen: dict[int, str] = {}

    @torch.no_grad()
    def run(self, zero_residual: bool) -> Initialized:
        self.starts = self._starts()
        for name, module in self.model.named_modules():
            if ".parametrizations" in f".{name}":
                continue
            self._module(f"{name}." if name else "", module)
        if zero_residual:
            for name in zero_residual_(self.model):
                for key, row in self.rows.items():
                    if key.rpartition(".")[0] == name:
                        why = "last of its residual branch"
                        self.rows[key] = replace(row, done="zero", why=why)
        named = dict(self.model.named_parameters(remove_duplicate=False))
        for name, parameter in named.items():
            if name not in self.rows:  # shared modules; what a layer holds beside its weight
                self._note(name, parameter, _LEFT, "no rule for it")
        return Initialized([self.rows[name] for name in named])

    def _starts(self) -> dict[str, Follower]:
        """Return what follows each layer; layers inside known blocks by what the block does."""
        found = followers(self.model)
        for name, module in self.model.named_modules():
            dot = f"{name}." if name else ""
            inside: dict[str, Start] = {}
            if isinstance(module, Maxout):
                best = best_of(module.pieces)
                inside["linear"] = Start("lecun", best, f"the largest of {module.pieces} follows")
            elif isinstance(module, SwiGLU | GeGLU):
                kind = "silu" if isinstance(module, SwiGLU) else "gelu"
                inside["w_in"] = Start("lecun", 1.0, f"a {kind} gate follows")
                inside["w_out"] = Start("lecun", gate(kind), f"behind a {kind} gate")
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                active = module.activation
                known = active if isinstance(active, nn.Module) else of_function(active)
                inside["linear1"] = (start_before(known) if known else None) or LINEAR
                inside["linear2"] = LINEAR
            elif isinstance(module, nn.MultiheadAttention):
                inside["out_proj"] = LINEAR
            found |= {dot + key: Follower(start, "graph") for key, start in inside.items()}
        return found

    def _module(self, dot: str, module: nn.Module) -> None:
        if has_fan(module):
            self._weighted(dot, module)
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            self._recurrent(dot, module)
        elif isinstance(module, nn.MultiheadAttention):
            self._attention(dot, module)
        elif isinstance(module, _NORMS):
            self._norm(dot, module)
        else:
            why = {
                nn.Embedding: "a table of vectors has no fan; its recipe knows the spread",
                nn.EmbeddingBag: "a table of vectors has no fan; its recipe knows the spread",
                nn.PReLU: "a slope, not a weight",
            }.get(type(module), f"no rule for {type(module).__name__}")
            for key, parameter in module.named_parameters(recurse=False):
                self._note(dot + key, parameter, _LEFT, why)

    def _note(self, name: str, parameter: Tensor, done: str, why: str) -> bool:
        """Write a row; say whether the parameter may be changed."""
        first = self.seen.setdefault(id(parameter), name)
        if first != name:
            done, why = _LEFT, f"the same parameter as {first}"
        elif not parameter.requires_grad:
            done, why = _LEFT, "frozen"
        self.rows[name] = Row(name, tuple(parameter.shape), done, why)
        return done != _LEFT

    def _zero(self, name: str, parameter: Tensor, value: float = 0.0, why: str = "a bias") -> None:
        if self._note(name, parameter, {0.0: "zero", 1.0: "one"}.get(value, f"{value:g}"), why):
            parameter.fill_(value)

    def _weighted(self, dot: str, layer: nn.Module) -> None:
        if isinstance(layer.bias, nn.Parameter):
            self._zero(f"{dot}bias", layer.bias)
        weight: Tensor = layer.weight  # pyright: ignore[reportAssignmentType]
        computed = parametrize.is_parametrized(layer, "weight")
        held = dict(layer.get_submodule("parametrizations.weight").named_parameters()
                    if computed else layer.named_parameters(recurse=False))  # fmt: skip
        prefix = f"{dot}parametrizations.weight." if computed else dot
        names = list(held) if computed else ["weight"] * ("weight" in held)
        if not names:
            return  # computed by a hook: run() names what it is computed from
        if self.scheme == "auto" and dot[:-1] not in self.starts:
            for key in names:
                self._note(prefix + key, held[key], _LEFT, _UNPLACED)
            return
        start, source = self.starts.get(dot[:-1], Follower(LINEAR, "unknown"))
        why = {"order": f"{start.why}, by order of definition", "unknown": _UNPLACED}.get(
            source, start.why
        )
        family = start.family if self.scheme == "auto" else self.scheme
        fan_in, fan_out = _fans(layer)
        fan = fan_out if self.mode == "fan_out" else fan_in
        std = {
            "kaiming": start.gain / math.sqrt(fan),
            "xavier": start.gain * math.sqrt(2 / (fan_in + fan_out)),
            "lecun": start.gain / math.sqrt(fan_in),
        }.get(family)
        if std is not None:
            done, value = f"{family}, std {std:.4f}", self._draw(weight, std)
        else:
            wide = math.sqrt(max(1.0, fan_out / fan_in))  # keeps the variance of each output
            done = f"orthogonal, gain {start.gain * wide:.4f}"
            value = self._orthogonal(weight, start.gain * wide)
        free = [self._note(prefix + key, held[key], done, why) for key in names]
        if not computed:
            if free[0]:
                weight.copy_(value)
        elif all(free):
            layer.weight = value.to(weight.dtype)
            if not torch.allclose(layer.weight, value.to(weight.dtype), rtol=1e-2, atol=1e-3):
                for key in names:  # spectral_norm, orthogonal: the weight is not what was given
                    row = self.rows[prefix + key]
                    self.rows[prefix + key] = replace(row, why=f"{why}; its parametrization scales")
        else:
            for key in names:
                row = self.rows[prefix + key]
                why = row.why if row.left else "goes with what is left"
                self.rows[prefix + key] = replace(row, done=_LEFT, why=why)

    def _draw(self, like: Tensor, std: float) -> Tensor:
        value = torch.empty_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
        if self.distribution == "uniform":
            edge = math.sqrt(3) * std
            return value.uniform_(-edge, edge, generator=self.generator)
        return value.normal_(0, std, generator=self.generator)

    def _orthogonal(self, like: Tensor, gain: float = 1.0) -> Tensor:
        exact = torch.promote_types(like.dtype, torch.float32)
        value = torch.empty(like.shape, dtype=exact, device=like.device)
        return nn.init.orthogonal_(value, gain, generator=self.generator)

    def _recurrent(self, dot: str, layer: nn.Module) -> None:
        """Set gates one by one: input matrices xavier, recurrent ones orthogonal."""
        hidden: int = layer.hidden_size  # pyright: ignore[reportAssignmentType]
        for key, parameter in layer.named_parameters(recurse=False):
            gates = list(parameter.split(hidden)) if "weight_hr" not in key else [parameter]
            if key.startswith("weight_hh") and "weight_hr" not in key:
                done, why = "orthogonal, gain 1", "a recurrent matrix, gate by gate"
                if self._note(dot + key, parameter, done, why):
                    for part in gates:
                        part.copy_(self._orthogonal(part))
            elif key.startswith("weight"):
                std = math.sqrt(2 / sum(gates[0].shape))
                done, why = f"xavier, std {std:.4f}", "an input matrix, gate by gate"
                if self._note(dot + key, parameter, done, why):
                    parameter.copy_(self._draw(parameter, std))
            else:
                self._zero(dot + key, parameter)
                lstm = isinstance(layer, nn.LSTM | nn.LSTMCell)
                if lstm and self.forget_bias and key.startswith("bias_ih"):
                    done = f"zero, forget gate {self.forget_bias:g}"
                    if self.rows[dot + key].left:
                        continue
                    self.rows[dot + key] = replace(self.rows[dot + key], done=done)
                    gates[1].fill_(self.forget_bias)

    def _attention(self, dot: str, layer: nn.MultiheadAttention) -> None:
        for key, parameter in layer.named_parameters(recurse=False):
            if key.endswith("weight"):
                rows = layer.embed_dim
                std = math.sqrt(2 / (rows + parameter.shape[1]))
                done, why = f"xavier, std {std:.4f}", "a projection of attention"
                if self._note(dot + key, parameter, done, why):
                    parameter.copy_(self._draw(parameter, std))
            elif key == "in_proj_bias":
                self._zero(dot + key, parameter)
            else:
                self._note(dot + key, parameter, _LEFT, "an extra key or value, not a bias")

    def _norm(self, dot: str, layer: nn.Module) -> None:
        reset = getattr(layer, "reset_running_stats", None)
        if reset is not None and all(p.requires_grad for p in layer.parameters(recurse=False)):
            reset()
        for key, parameter in layer.named_parameters(recurse=False):
            if key in ("weight", "bias"):
                self._zero(dot + key, parameter, float(key == "weight"), "a normalization")
            else:
                self._note(dot + key, parameter, _LEFT, "its own start holds")


def _fans(layer: nn.Module) -> tuple[float, float]:
    """Return how many inputs feed one output of a layer, and how many outputs one input feeds."""
    if isinstance(layer, nn.Linear):
        return float(layer.in_features), float(layer.out_features)
    if not isinstance(layer, nn.modules.conv._ConvNd):
        raise TypeError(f"{type(layer).__name__} has no fan")
    kernel, stride = math.prod(layer.kernel_size), math.prod(layer.stride)
    into, out = layer.in_channels / layer.groups, layer.out_channels / layer.groups
    if layer.transposed:  # each output sees a kernel's share of the input, thinned by the stride
        return max(1.0, into * kernel / stride), out * kernel
    return into * kernel, out * kernel
