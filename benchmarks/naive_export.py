"""What a plain export does to a BLiTZ network: it bakes in one sample of the noise, and every answer is the same.

Run: python benchmarks/naive_export.py. Prints the spread of 200 answers to one window: BLiTZ's own, and of each export.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import murho
from murho.export import to_onnx
from murho.models import Forecaster

CALLS = 200


def spread(call: Callable[[int], float]) -> float:
    return float(np.std([call(number) for number in range(CALLS)], ddof=1))


def main() -> None:
    torch.manual_seed(0)
    network, x = Forecaster(), torch.randn(1, 21, 1)
    with tempfile.TemporaryDirectory() as name, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        traced = torch.jit.trace(network, x, check_trace=False)
        torch.onnx.export(network, (x,), str(folder / "naive.onnx"), dynamo=False, input_names=["x"])
        naive = onnxruntime.InferenceSession(folder / "naive.onnx", providers=["CPUExecutionProvider"])
        to_onnx(network, folder / "murho.onnx", x)
        model = murho.load(folder / "murho.onnx")
        rows = {
            "BLiTZ, a forward pass each": spread(lambda _: network(x).item()),
            "torch.jit.trace": spread(lambda _: traced(x).item()),
            "torch.onnx.export (tracing)": spread(lambda _: naive.run(None, {"x": x.numpy()})[0].item()),
            "murho": float(model.predict(x.numpy(), draws=CALLS).std.item()),
        }
        try:
            torch.onnx.export(network, (x,), dynamo=True, verbose=False)
            outcome = "exported"
        except Exception as error:  # the point is that it raises, whatever it raises
            outcome = f"fails: {type(error).__name__}"
    for system, value in rows.items():
        print(f"{system:32} standard deviation over {CALLS} answers: {value:.4f}")
    print(f"{'torch.onnx.export (dynamo)':32} {outcome}")
    assert rows["torch.jit.trace"] == rows["torch.onnx.export (tracing)"] == 0
    assert abs(rows["murho"] / rows["BLiTZ, a forward pass each"] - 1) < 0.25  # five standard errors of a ratio of stds


if __name__ == "__main__":
    main()
