"""Ready Bayesian networks, built from BLiTZ's layers."""

from .classifier import Classifier
from .forecaster import Forecaster
from .regressor import Regressor

__all__ = ["Classifier", "Forecaster", "Regressor"]
