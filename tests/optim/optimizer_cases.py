"""Options under which every named optimizer is tested: each option is at a value that matters."""

from __future__ import annotations

from typing import Any

#: Class name to options. Rates are large, so that every option moves weights visibly.
CASES: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"lr": 0.03}, {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1},
        {"lr": 0.03, "momentum": 0.9, "dampening": 0.4}, {"momentum": 0.8, "nesterov": True},
        {"lr": 0.03, "momentum": 0.9, "velocity": "classic"},
        {"momentum": 0.9, "velocity": "classic", "nesterov": True},
    ],
    "RMSprop": [
        {}, {"lr": 0.03, "alpha": 0.7, "eps": 0.1, "weight_decay": 0.1},
        {"momentum": 0.8, "centered": True}, {"eps": 0.1, "eps_inside": True},
    ],
    "Adagrad": [
        {}, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1},
        {"initial_accumulator_value": 0.5, "eps": 0.1}, {"eps": 0.1, "eps_inside": True},
    ],
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.6, "eps": 1e-2, "weight_decay": 0.1}],
    "Adam": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.1},
        {"betas": (0.9, 0.6), "amsgrad": True},
    ],
    "AdamW": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.3},
        {"betas": (0.9, 0.6), "amsgrad": True},
    ],
    "AMSGrad": [{}, {"lr": 0.03, "betas": (0.7, 0.6), "eps": 0.1, "weight_decay": 0.1}],
    "Adamax": [{}, {"lr": 0.03, "betas": (0.7, 0.8), "eps": 0.1, "weight_decay": 0.1}],
    "NAdam": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.1},
        {"momentum_decay": 0.5, "weight_decay": 0.3, "decoupled_weight_decay": True},
    ],
    "RAdam": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.1},
        {"threshold": 4.0, "weight_decay": 0.3, "decoupled_weight_decay": True},
    ],
    "Ranger": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.3},
        {"k": 4, "alpha": 0.8, "threshold": 8.0},
    ],
    "Yogi": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.1},
        {"form": "code", "betas": (0.7, 0.9)},
    ],
    "AdaBound": [
        {}, {"lr": 0.3, "betas": (0.7, 0.9), "final_lr": 0.05, "gamma": 0.2, "weight_decay": 0.1},
        {"form": "code", "eps": 0.1}, {"betas": (0.9, 0.6), "amsbound": True, "lr": 0.02},
    ],
    "Lion": [{}, {"lr": 0.01, "betas": (0.5, 0.8), "weight_decay": 0.3}],
    "LAMB": [
        {}, {"lr": 0.03, "betas": (0.7, 0.9), "eps": 0.1, "weight_decay": 0.3},
        {"trust_ratio": False, "lr": 0.02},
    ],
    "LARS": [
        {}, {"lr": 3.0, "momentum": 0.7, "weight_decay": 0.3, "trust_coefficient": 0.01},
        {"trust_ratio": False, "lr": 0.02}, {"momentum": 0.0},
    ],
    "Adafactor": [
        {}, {"lr": 0.03, "beta2_decay": -0.5, "eps": (1e-2, 0.5), "d": 0.3, "weight_decay": 0.3},
        {"lr": 0.5, "relative_step": False, "momentum": 0.9}, {"lr": 0.5, "d": 2.0},
    ],
    "Muon": [
        {}, {"lr": 0.03, "weight_decay": 0.3, "momentum": 0.5, "nesterov": False},
        {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 3, "eps": 10.0, "lr": 0.02},
        {"adjust_lr_fn": "match_rms_adamw", "lr": 0.03, "betas": (0.5, 0.8)},
    ],
}  # fmt: skip
PAIRS = [(name, options) for name, all_options in CASES.items() for options in all_options]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, options in PAIRS]
