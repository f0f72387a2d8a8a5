"""Losses: a function for each, a thin module around it, and a card."""

from brickyard.losses.classification import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    NLLLoss,
    bce_with_logits_loss,
    cross_entropy_loss,
    nll_loss,
)
from brickyard.losses.focal import (
    BinaryFocalLoss,
    FocalLoss,
    binary_focal_loss,
    focal_loss,
)
from brickyard.losses.hinge import (
    HingeLoss,
    MulticlassHingeLoss,
    SquaredHingeLoss,
    hinge_loss,
    multiclass_hinge_loss,
    squared_hinge_loss,
)
from brickyard.losses.probabilistic import (
    DistillationLoss,
    ELBOLoss,
    KLDivergence,
    distillation_loss,
    elbo_loss,
    gaussian_kl,
    kl_divergence,
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
    "BCEWithLogitsLoss", "BinaryFocalLoss", "CrossEntropyLoss", "DistillationLoss", "ELBOLoss",
    "FocalLoss", "HingeLoss", "HuberLoss", "KLDivergence", "L1Loss", "LogCoshLoss", "MSELoss",
    "MulticlassHingeLoss", "NLLLoss", "QuantileLoss", "SmoothL1Loss", "SquaredHingeLoss",
    "bce_with_logits_loss", "binary_focal_loss", "cross_entropy_loss", "distillation_loss",
    "elbo_loss", "focal_loss", "gaussian_kl", "hinge_loss", "huber_loss", "kl_divergence",
    "l1_loss", "log_cosh_loss", "mse_loss", "multiclass_hinge_loss", "nll_loss",
    "quantile_loss", "smooth_l1_loss", "squared_hinge_loss",
]  # fmt: skip
