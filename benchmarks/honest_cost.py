"""What honest intervals cost beside the tutorial's network alone: noise, a path, calibration and observing.

Run: python benchmarks/honest_cost.py. Systems in turn, medians of one run. A minute on 2 cores. What is timed is
checked: with the noise switched off every artifact gives the first step of the plain one.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import murho
from murho.export import to_onnx, to_torchscript
from murho.models import Forecaster
from murho.runtime.planner import cores
from murho.train import builtin_series, prepare

STEPS, DRAWS, ROUNDS = 7, 1000, 15
WRITE = {"onnx": to_onnx, "pt": to_torchscript}


def main() -> None:
    data = prepare(builtin_series(), values="returns")
    torch.manual_seed(0)
    network, noise = Forecaster(), murho.Noise("student-t", 5, (1.0,))
    kinds = {
        "plain": {},
        "with noise": {"noise": noise},
        f"a path of {STEPS} steps": {"horizon": STEPS},
        f"a path of {STEPS} steps, with noise": {"horizon": STEPS, "noise": noise},
    }
    table = Table(title=f"{DRAWS} draws of the tutorial's network on {cores()} cores", title_justify="left")
    for column in ("format", "rows", "artifact", "median", "of plain"):
        table.add_column(column, justify="left" if column in ("format", "artifact") else "right")
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in WRITE.items():
            models = {}
            for k, (kind, options) in enumerate(kinds.items()):
                path = Path(folder) / f"{k}.{suffix}"
                write(network, path, data.train.x[:32], scaling=data.scaling, task="forecast", **options)
                models[kind] = murho.load(path, trusted=True)
            honest = models["with noise, calibrated, observed"] = murho.load(Path(folder) / f"1.{suffix}", trusted=True)
            honest.calibrate(data.calibration.x, data.calibration.y, draws=64)
            for rows in (1, 64):
                x, y = data.test.x[:rows], data.test.y[:rows, 0]
                check(models, x)
                calls = {kind: lambda m=model: m.predict(x, DRAWS) for kind, model in models.items()}  # noqa: B023

                def observed(x: np.ndarray = x, y: np.ndarray = y, honest: murho.Model = honest) -> None:
                    honest.predict(x, DRAWS)
                    honest.observe(y)

                calls["with noise, calibrated, observed"] = observed
                medians = timed(calls)
                for kind, median in medians.items():
                    ratio = f"{median / medians['plain']:.2f} ×"
                    table.add_row(
                        suffix, str(rows), kind, f"{median:.1f} ms", ratio, end_section=kind == list(medians)[-1]
                    )
    Console(markup=False).print(table)


def check(models: dict[str, murho.Model], x: np.ndarray) -> None:
    want = models["plain"].samples(x, 32)
    for kind, model in models.items():
        first = model.samples(x, 32, noise=False)[..., :1]
        np.testing.assert_allclose(first, want, rtol=1e-5, err_msg=kind)


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    laps: dict[str, list[float]] = {kind: [] for kind in calls}
    for turn in range(ROUNDS + 1):  # the first warms up
        for kind, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                laps[kind].append(1000 * (time.perf_counter() - start))
    return {kind: float(np.median(lap)) for kind, lap in laps.items()}


if __name__ == "__main__":
    main()
