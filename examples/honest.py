"""Honest intervals from the first training to the last day: learned noise, calibration, and the truth told as it comes.

Run: python examples/honest.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.train import builtin_series, fit, prepare


def main() -> None:
    series = builtin_series()
    data = prepare(series, window=21, horizon=7, values="returns")
    noise = murho.Noise("student-t", degrees=5)
    torch.manual_seed(0)
    network = Forecaster(hidden=8, horizon=7, learned_noise=True)
    fit(network, data, noise=noise, epochs=8, samples=1, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(network, path, data.train.x[:32], scaling=data.scaling, task="forecast", noise=noise)

        model = murho.load(path)
        model.calibrate(data.calibration.x, data.calibration.y)  # rows that training did not see
        model.save(path)  # every host of this file now gets calibrated intervals

        answer = model.predict(data.test.x, level=0.9)
        print(f"calibrated: the 90 % interval covers {answer.coverage(data.test.y):.1%} of the test part")
        parts = model.predict(data.test.x[:1], parts=True)
        share = float(np.mean(parts.epistemic / parts.std**2))
        print(f"{share:.2%} of the variance comes from the weights, the rest from the noise")

        inside = []
        for x, y in zip(data.test.x[:200], data.test.y[:200], strict=True):
            today = model.predict(x[None], level=0.9)
            inside.append(today.coverage(y[None]))
            model.observe(y[:1])  # the next value is known: the interval adapts
        print(f"told the truth day by day, it covers {np.mean(inside):.1%} of the first 200 days")
        model.save_state(Path(folder) / "state.json")  # go on tomorrow: model.load_state(...)


if __name__ == "__main__":
    main()
