"""`Scaling.from_sklearn` against scikit-learn's own transform and inverse_transform."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from murho import InputError, Scaling

SCALERS = {
    "standard": StandardScaler(),
    "standard, mean alone": StandardScaler(with_std=False),
    "standard, scale alone": StandardScaler(with_mean=False),
    "standard, neither": StandardScaler(with_mean=False, with_std=False),
    "minmax": MinMaxScaler(),
    "minmax to another range": MinMaxScaler((-3, 5)),
    "maxabs": MaxAbsScaler(),
    "robust": RobustScaler(),
    "robust, centre alone": RobustScaler(with_scaling=False),
    "robust, scale alone": RobustScaler(with_centering=False),
    "robust, neither": RobustScaler(with_centering=False, with_scaling=False),
    "robust, unit variance": RobustScaler(quantile_range=(10, 90), unit_variance=True),
}
X = np.random.default_rng(0).gamma(2, [1, 100, 0.01], (50, 3)) + np.array([5, -300, 0])


@pytest.mark.parametrize("name", SCALERS)
@pytest.mark.parametrize("columns", [3, 1])
def test_a_scaling_is_the_scalers_transform(name: str, columns: int) -> None:
    x = X[:, :columns]
    scaler: Any = SCALERS[name].fit(x)
    scaling = Scaling.from_sklearn(scaler, scaler)
    mean, scale = np.asarray(scaling.input_mean), np.asarray(scaling.input_scale)
    assert (scaling.output_mean, scaling.output_scale) == (scaling.input_mean, scaling.input_scale)
    assert len(scaling.input_mean) == len(scaling.input_scale) == columns
    # What float32 loses of the mean and the scale, in the scaler's units.
    lost = 1e-7 * (np.abs(mean) + np.abs(x).max(axis=0)) / scale
    assert (np.abs((x - mean) / scale - scaler.transform(x)) <= 2 * lost + 1e-6).all()
    back = scaler.inverse_transform(scaler.transform(x))
    assert (np.abs(scaler.transform(x) * scale + mean - back) <= (2 * lost + 1e-6) * scale).all()


def test_each_side_may_be_left_out() -> None:
    scaler = StandardScaler().fit(X)
    assert Scaling.from_sklearn(scaler).output_scale == (1.0,)
    assert Scaling.from_sklearn(scaler_y=scaler).input_mean == (0.0,)
    assert Scaling.from_sklearn() == Scaling()


@pytest.mark.parametrize(
    ("scaler", "said"),
    [
        (StandardScaler(), "scaler_x is a StandardScaler that is not fitted"),
        (MinMaxScaler(clip=True).fit(X), "scaler_x clips what lies outside"),
        (Normalizer().fit(X), r"must be scikit-learn's .*, not Normalizer"),
        (PCA(3).fit(X), "not PCA"),
        (PowerTransformer().fit(X), "not PowerTransformer"),
        (QuantileTransformer(n_quantiles=10).fit(X), "not QuantileTransformer"),
        ("standard", "not str"),
    ],
)
def test_what_is_no_such_scaler_is_refused(scaler: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scaling.from_sklearn(scaler)


def test_a_scaler_that_was_tampered_with_is_refused() -> None:
    scaler = StandardScaler().fit(X)
    scaler.mean_ = scaler.mean_[:2]
    with pytest.raises(InputError, match=r"fitted on 3 feature\(s\), but holds means of shape \(2,\)"):
        Scaling.from_sklearn(scaler)


def test_reading_a_scaler_needs_no_scikit_learn() -> None:
    code = """
import sys, numpy as np
sys.modules["sklearn"] = None
from types import SimpleNamespace
import murho
scaler = SimpleNamespace(mean_=np.ones(2), with_mean=True, scale_=np.full(2, 4.0), n_features_in_=2)
print(murho.Scaling.from_sklearn(scaler).input_scale)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4.0, 4.0)"
