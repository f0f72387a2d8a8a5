"""Loggers: where a run's rows go besides its own folder."""

from brickyard.train.loggers.base import Logger, Rows, RunFacts, check_logger
from brickyard.train.loggers.build import build_loggers
from brickyard.train.loggers.files import CsvLog, JsonlLog
from brickyard.train.loggers.mlflow import MLflow
from brickyard.train.loggers.tensorboard import TensorBoard

__all__ = [
    "CsvLog",
    "JsonlLog",
    "Logger",
    "MLflow",
    "Rows",
    "RunFacts",
    "TensorBoard",
    "build_loggers",
    "check_logger",
]
