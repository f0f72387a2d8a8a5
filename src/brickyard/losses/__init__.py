"""Losses: a function for each, a thin module around it, and a card."""

from brickyard.losses.adversarial import (
    GANHinge,
    GANLeastSquares,
    GANMinimax,
    GANNonSaturating,
    Wasserstein,
)
from brickyard.losses.boxes import (
    BoxIoULoss,
    CIoULoss,
    DIoULoss,
    GIoULoss,
    box_iou_loss,
    ciou_loss,
    diou_loss,
    giou_loss,
)
from brickyard.losses.classification import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    NLLLoss,
    bce_with_logits_loss,
    cross_entropy_loss,
    nll_loss,
)
from brickyard.losses.contrastive import (
    InfoNCELoss,
    NTXentLoss,
    SupConLoss,
    info_nce_loss,
    nt_xent_loss,
    sup_con_loss,
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
from brickyard.losses.lovasz import (
    LovaszLoss,
    lovasz_loss,
)
from brickyard.losses.metric import (
    BatchTripletLoss,
    ContrastiveLoss,
    TripletLoss,
    batch_triplet_loss,
    contrastive_loss,
    triplet_loss,
)
from brickyard.losses.penalties import (
    GradientPenalty,
    R1Penalty,
    gradient_penalty,
    r1_penalty,
)
from brickyard.losses.perceptual import (
    PerceptualLoss,
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
from brickyard.losses.q_learning import (
    TDLoss,
    td_loss,
)
from brickyard.losses.regression import (
    L1Loss,
    MSELoss,
    l1_loss,
    mse_loss,
)
from brickyard.losses.reinforcement import (
    PolicyGradientLoss,
    PPOClipLoss,
    ValueLoss,
    policy_gradient_loss,
    ppo_clip_loss,
    value_loss,
)
from brickyard.losses.returns import (
    discounted_returns,
    gae,
    n_step_returns,
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
from brickyard.losses.segmentation import (
    DiceLoss,
    FocalTverskyLoss,
    IoULoss,
    TverskyLoss,
    dice_loss,
    focal_tversky_loss,
    iou_loss,
    tversky_loss,
)
from brickyard.losses.sequence import (
    CTCLoss,
    LinearCrossEntropyLoss,
    ctc_loss,
    linear_cross_entropy_loss,
)

__all__ = [
    "BCEWithLogitsLoss", "BatchTripletLoss", "BinaryFocalLoss", "BoxIoULoss", "CIoULoss",
    "CTCLoss", "ContrastiveLoss", "CrossEntropyLoss", "DIoULoss", "DiceLoss",
    "DistillationLoss", "ELBOLoss", "FocalLoss", "FocalTverskyLoss", "GANHinge",
    "GANLeastSquares", "GANMinimax", "GANNonSaturating", "GIoULoss", "GradientPenalty",
    "HingeLoss", "HuberLoss", "InfoNCELoss", "IoULoss", "KLDivergence", "L1Loss",
    "LinearCrossEntropyLoss", "LogCoshLoss", "LovaszLoss", "MSELoss", "MulticlassHingeLoss",
    "NLLLoss", "NTXentLoss", "PPOClipLoss", "PerceptualLoss", "PolicyGradientLoss",
    "QuantileLoss", "R1Penalty", "SmoothL1Loss", "SquaredHingeLoss", "SupConLoss", "TDLoss",
    "TripletLoss", "TverskyLoss", "ValueLoss", "Wasserstein", "batch_triplet_loss",
    "bce_with_logits_loss", "binary_focal_loss", "box_iou_loss", "ciou_loss",
    "contrastive_loss", "cross_entropy_loss", "ctc_loss", "dice_loss", "diou_loss",
    "discounted_returns", "distillation_loss", "elbo_loss", "focal_loss", "focal_tversky_loss",
    "gae", "gaussian_kl", "giou_loss", "gradient_penalty", "hinge_loss", "huber_loss",
    "info_nce_loss", "iou_loss", "kl_divergence", "l1_loss", "linear_cross_entropy_loss",
    "log_cosh_loss", "lovasz_loss", "mse_loss", "multiclass_hinge_loss", "n_step_returns",
    "nll_loss", "nt_xent_loss", "policy_gradient_loss", "ppo_clip_loss", "quantile_loss",
    "r1_penalty", "smooth_l1_loss", "squared_hinge_loss", "sup_con_loss", "td_loss",
    "triplet_loss", "tversky_loss", "value_loss",
]  # fmt: skip
