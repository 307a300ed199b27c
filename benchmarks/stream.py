"""How many rows a second a stream follows: the tutorial's LSTM, 256 draws, one sequence; the result is checked.

Run: python benchmarks/stream.py [--write docs/benchmark.md]. Beside it the same answers from whole windows, which is
what a plain artifact needs.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from studies import write_section

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime.compare import raw_units, relative_error
from murho.train import builtin_series, prepare

DRAWS, SEED = 256, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    options = parser.parse_args()
    rows = options.rows
    warnings.simplefilter("ignore", UserWarning)  # an untrained network is as fast as a trained one
    torch.manual_seed(0)
    data = prepare(builtin_series(), values="levels")
    window, prices = data.window, data.test.x[:1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.onnx"
        to_onnx(Forecaster(), path, data.train.x[:32], scaling=data.scaling, streaming=True)
        model = murho.load(path)
    stream = model.stream(DRAWS, seed=SEED)
    for t in range(window):
        last = stream.step(prices[:, t])
    whole = model.predict(prices, DRAWS, seed=SEED)
    error, allowed = relative_error(last.samples, whole.samples, *raw_units(data.scaling, prices))
    if error > allowed:
        raise SystemExit(f"The stream differs from the whole window by {error:.2g} of the largest value.")
    times = []
    for t in range(rows):
        start = time.perf_counter()
        stream.step(prices[:, t % window])
        times.append(time.perf_counter() - start)
    windows = []
    for _ in range(rows // 10):
        start = time.perf_counter()
        model.predict(prices, DRAWS, seed=SEED)
        windows.append(time.perf_counter() - start)
    median, slow, long = np.median(times), np.quantile(times, 0.99), np.median(windows)
    lines = [
        f"`python benchmarks/stream.py`: {DRAWS} draws, LSTM of 10 hidden units, {rows} rows, the answer within "
        f"{error:.1e} of the whole window's.",
        "",
        f"- A row: {1000 * median:.3f} ms, {1 / median:.0f} rows a second; 99 % within {1000 * slow:.3f} ms.",
        f"- A window of {window} rows, same draws: {1000 * long:.2f} ms, {long / median:.1f} times as long.",
    ]
    write_section(options.write, "Streams", "\n".join(lines), head="# Benchmark")


if __name__ == "__main__":
    main()
