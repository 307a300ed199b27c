"""Ready Bayesian networks, built from BLiTZ's layers."""

from .autoregressor import Autoregressor
from .classifier import Classifier
from .forecaster import Forecaster
from .regressor import Regressor

__all__ = ["Autoregressor", "Classifier", "Forecaster", "Regressor"]
