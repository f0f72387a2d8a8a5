"""Regularization: penalties, constraints, averages and stopping."""

from brickyard.regularize.stopping import EarlyStopping

__all__ = ["EarlyStopping"]
