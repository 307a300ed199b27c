"""Ready Bayesian networks, built from BLiTZ's layers."""

from .forecaster import Forecaster

__all__ = ["Forecaster"]
