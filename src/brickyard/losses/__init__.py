"""Losses: a function for each, a thin module around it, and a card."""

from brickyard.losses.classification import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    NLLLoss,
    bce_with_logits_loss,
    cross_entropy_loss,
    nll_loss,
)
from brickyard.losses.regression import (
    L1Loss,
    MSELoss,
    l1_loss,
    mse_loss,
)
from brickyard.losses.robust import (
    HuberLoss,
    LogCoshLoss,
    QuantileLoss,
    SmoothL1Loss,
    huber_loss,
    log_cosh_loss,
    quantile_loss,
    smooth_l1_loss,
)

__all__ = [
    "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "LogCoshLoss", "MSELoss",
    "NLLLoss", "QuantileLoss", "SmoothL1Loss", "bce_with_logits_loss", "cross_entropy_loss",
    "huber_loss", "l1_loss", "log_cosh_loss", "mse_loss", "nll_loss", "quantile_loss",
    "smooth_l1_loss",
]  # fmt: skip
