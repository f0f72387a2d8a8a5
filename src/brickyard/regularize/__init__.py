"""Regularization: penalties, constraints, averages, ensembles, attacks and stopping."""

from brickyard.regularize.adversarial import FGSM, PGD, adversarial_loss, fgsm, pgd
from brickyard.regularize.averaging import EMA, SWA
from brickyard.regularize.constraints import MaxNorm, WeightDecay, max_norm_
from brickyard.regularize.ensembles import Ensemble, SnapshotEnsemble
from brickyard.regularize.penalties import (
    ElasticNet,
    L1Penalty,
    L2Penalty,
    elastic_net,
    l1_penalty,
    l2_penalty,
)
from brickyard.regularize.robustness import RobustAccuracy, robust_accuracy
from brickyard.regularize.statistics import recalibrate
from brickyard.regularize.stopping import EarlyStopping

__all__ = [
    "EMA",
    "FGSM",
    "PGD",
    "SWA",
    "EarlyStopping",
    "ElasticNet",
    "Ensemble",
    "L1Penalty",
    "L2Penalty",
    "MaxNorm",
    "RobustAccuracy",
    "SnapshotEnsemble",
    "WeightDecay",
    "adversarial_loss",
    "elastic_net",
    "fgsm",
    "l1_penalty",
    "l2_penalty",
    "max_norm_",
    "pgd",
    "recalibrate",
    "robust_accuracy",
]
