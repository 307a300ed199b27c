"""Ready Bayesian networks, built from BLiTZ's layers."""

from ..runtime.errors import needs_extra

with needs_extra("murho.models", "train"):
    from .autoregressor import Autoregressor
    from .classifier import Classifier
    from .forecaster import Forecaster
    from .regressor import Regressor

__all__ = ["Autoregressor", "Classifier", "Forecaster", "Regressor"]
