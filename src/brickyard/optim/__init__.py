"""Optimizers: rules, chains and plans, behind ``torch.optim.Optimizer``."""

from brickyard.optim.optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW"]
