"""Means and scales of scikit-learn's fitted scalers, told by what they hold: scikit-learn need not be installed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]

KNOWN = "StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler"


def moments(scaler: Any, name: str) -> Moments:
    """Mean and scale [features] in float32, so that what the scaler gives is (x - mean) / scale.

    Raises InputError for a scaler that is not fitted, that clips, or whose arithmetic is another.
    """
    if hasattr(scaler, "data_range_") and hasattr(scaler, "min_"):  # MinMaxScaler: x · scale_ + min_
        if getattr(scaler, "clip", False):
            raise InputError(f"{name} clips what lies outside of its range, which no artifact undoes. Fit one without.")
        factor = np.asarray(scaler.scale_, np.float64)
        mean, scale = -np.asarray(scaler.min_, np.float64) / factor, 1 / factor
    elif hasattr(scaler, "max_abs_"):
        scale = np.asarray(scaler.scale_, np.float64)
        mean = np.zeros_like(scale)
    elif hasattr(scaler, "center_"):  # RobustScaler
        mean, scale = _given(scaler, scaler.center_, scaler.scale_, name)
    elif hasattr(scaler, "mean_") and hasattr(scaler, "with_mean"):  # StandardScaler
        # which keeps the mean that it does not use
        mean, scale = _given(scaler, scaler.mean_ if scaler.with_mean else None, scaler.scale_, name)
    elif callable(getattr(scaler, "fit", None)) and type(scaler).__name__ in KNOWN:
        raise InputError(f"{name} is a {type(scaler).__name__} that is not fitted. Give the one that training used.")
    else:
        raise InputError(
            f"{name} must be scikit-learn's {KNOWN}, not {type(scaler).__name__}: an artifact computes (x - mean) / "
            "scale for each feature and nothing else. Transform by yourself around predict, or train on such a scaler."
        )
    features = getattr(scaler, "n_features_in_", mean.size)
    if mean.shape != (features,) or scale.shape != (features,):
        raise InputError(
            f"{name} was fitted on {features} feature(s), but holds means of shape {mean.shape} and scales of shape "
            f"{scale.shape}."
        )
    return mean.astype(np.float32), scale.astype(np.float32)


def _given(scaler: Any, mean: Any, scale: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Either is None where the scaler leaves it out."""
    known = next((np.asarray(v, np.float64) for v in (mean, scale) if v is not None), None)
    if known is None:
        features = getattr(scaler, "n_features_in_", None)
        if not features:
            raise InputError(f"{name} neither centres nor scales, and does not say how many features it has.")
        known = np.zeros(features)
    return (
        np.zeros_like(known) if mean is None else np.asarray(mean, np.float64),
        np.ones_like(known) if scale is None else np.asarray(scale, np.float64),
    )
