"""Regularization: penalties, constraints, averages and stopping."""

from brickyard.regularize.constraints import MaxNorm, WeightDecay, max_norm_
from brickyard.regularize.penalties import (
    ElasticNet,
    L1Penalty,
    L2Penalty,
    elastic_net,
    l1_penalty,
    l2_penalty,
)
from brickyard.regularize.stopping import EarlyStopping

__all__ = [
    "EarlyStopping",
    "ElasticNet",
    "L1Penalty",
    "L2Penalty",
    "MaxNorm",
    "WeightDecay",
    "elastic_net",
    "l1_penalty",
    "l2_penalty",
    "max_norm_",
]
