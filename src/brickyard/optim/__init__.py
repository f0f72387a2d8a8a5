"""Optimizers: rules, chains and plans, behind ``torch.optim.Optimizer``."""

from brickyard.optim.barriers import (
    clip_by_global_norm,
    clip_by_layer_norm,
    clip_by_rms,
    clip_by_value,
    scale_by_factored_rms,
    scale_by_param_rms,
    scale_by_trust_ratio,
    scale_by_unfactored_rms,
)
from brickyard.optim.chain import Chain, chain
from brickyard.optim.engine import NonFiniteError
from brickyard.optim.groups import ParamGroups, param_groups
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.optimizers import LAMB, SGD, Adafactor, Adam, AdamW, Lion, RMSprop
from brickyard.optim.rule import rule
from brickyard.optim.rules import (
    decay,
    ema_weights,
    l2,
    lookahead,
    scale_by_adam,
    scale_by_lion,
    scale_by_momentum,
    scale_by_rms,
    velocity,
)
from brickyard.optim.state import StateError

__all__ = [
    "LAMB", "SGD", "Adafactor", "Adam", "AdamW", "Chain", "Lion", "NonFiniteError", "Optimizer",
    "ParamGroups", "RMSprop", "StateError", "chain", "clip_by_global_norm", "clip_by_layer_norm",
    "clip_by_rms", "clip_by_value", "decay", "ema_weights", "l2", "lookahead", "param_groups",
    "rule", "scale_by_adam", "scale_by_factored_rms", "scale_by_lion", "scale_by_momentum",
    "scale_by_param_rms", "scale_by_rms", "scale_by_trust_ratio", "scale_by_unfactored_rms",
    "velocity",
]  # fmt: skip
