"""Forms of a convolution with different weights for each draw, in ONNX Runtime on one thread, every result checked.

Run: python benchmarks/convolution.py. Takes about a minute. ONNX has no such operator; an artifact uses "scan", and
"channels" where one x serves every draw. "groups" is here to compare: its number of draws is fixed when the file is
written, so no artifact could use it.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx.parser
import onnxruntime
from rich.console import Console
from rich.table import Table
from torch import from_numpy
from torch.nn.functional import conv2d

ROUNDS = 15
DRAWS, ROWS = (16, 64), (1, 16)


@dataclass(frozen=True)
class Layer:
    channels: int
    filters: int
    kernel: int
    size: int
    """Height and width of x; no padding."""

    @property
    def out(self) -> int:
        return self.size - self.kernel + 1


LAYERS = {
    "LeNet's second": Layer(6, 16, 5, 12),
    "16 to 32, 3 × 3": Layer(16, 32, 3, 18),
    "64 to 64, 3 × 3": Layer(64, 64, 3, 10),
}
SHARED = Layer(1, 6, 5, 28)


def scan(layer: Layer, draws: int) -> str:
    return """y = Scan<num_scan_inputs = 3, body = step (float[?, ?, ?, ?] a, float[?, ?, ?, ?] b, float[?] c)
        => (float[?, ?, ?, ?] d) { d = Conv(a, b, c) }>(x, w, bias)"""


def groups(layer: Layer, draws: int) -> str:
    return f"""
    t = Transpose<perm = [1, 0, 2, 3, 4]>(x)
    x_shape = Constant<value_ints = [-1, {draws * layer.channels}, {layer.size}, {layer.size}]>()
    w_shape = Constant<value_ints = [-1, {layer.channels}, {layer.kernel}, {layer.kernel}]>()
    y_shape = Constant<value_ints = [-1, {draws}, {layer.filters}, {layer.out}, {layer.out}]>()
    flat = Constant<value_ints = [-1]>()
    all_x = Reshape(t, x_shape)
    all_w = Reshape(w, w_shape)
    all_bias = Reshape(bias, flat)
    z = Conv<group = {draws}>(all_x, all_w, all_bias)
    parts = Reshape(z, y_shape)
    y = Transpose<perm = [1, 0, 2, 3, 4]>(parts)"""


def unfold(layer: Layer, draws: int) -> str:
    """Shifted slices of x beside each other, then one batched MatMul."""
    places = list(itertools.product(range(layer.kernel), repeat=2))
    slices = "".join(
        f"""
    from_{i}_{j} = Constant<value_ints = [{i}, {j}]>()
    to_{i}_{j} = Constant<value_ints = [{i + layer.out}, {j + layer.out}]>()
    part_{i}_{j} = Slice(x, from_{i}_{j}, to_{i}_{j}, space)"""
        for i, j in places
    )
    depth = layer.channels * layer.kernel**2
    return f"""
    space = Constant<value_ints = [3, 4]>(){slices}
    parts = Concat<axis = 2>({", ".join(f"part_{i}_{j}" for i, j in places)})
    columns_shape = Constant<value_ints = [0, 0, {depth}, {layer.out**2}]>()
    columns = Reshape(parts, columns_shape)
    turned = Transpose<perm = [0, 1, 3, 4, 2]>(w)
    w_shape = Constant<value_ints = [0, 1, {layer.filters}, {depth}]>()
    rows = Reshape(turned, w_shape)
    product = MatMul(rows, columns)
    bias_shape = Constant<value_ints = [0, 1, {layer.filters}, 1]>()
    column = Reshape(bias, bias_shape)
    sum = Add(product, column)
    y_shape = Constant<value_ints = [0, 0, {layer.filters}, {layer.out}, {layer.out}]>()
    y = Reshape(sum, y_shape)"""


def channels(layer: Layer, draws: int) -> str:
    """For an x without draws: their outputs as channels of one convolution."""
    return f"""
    w_shape = Constant<value_ints = [-1, {layer.channels}, {layer.kernel}, {layer.kernel}]>()
    y_shape = Constant<value_ints = [0, -1, {layer.filters}, {layer.out}, {layer.out}]>()
    flat = Constant<value_ints = [-1]>()
    all_w = Reshape(w, w_shape)
    all_bias = Reshape(bias, flat)
    z = Conv(x, all_w, all_bias)
    parts = Reshape(z, y_shape)
    y = Transpose<perm = [1, 0, 2, 3, 4]>(parts)"""


def repeated_scan(layer: Layer, draws: int) -> str:
    return f"""
    repeats = Constant<value_ints = [{draws}, 1, 1, 1, 1]>()
    one = Constant<value_ints = [0]>()
    lifted = Unsqueeze(x, one)
    x_all = Expand(lifted, repeats)
    {scan(layer, draws).replace("(x, w", "(x_all, w")}"""


def session(body: str, x_rank: int) -> onnxruntime.InferenceSession:
    x_type, w_type = (f"float[{', '.join('?' * rank)}]" for rank in (x_rank, 5))
    head = f'<ir_version: 8, opset_import: ["": 18]>\nform ({x_type} x, {w_type} w, float[?, ?] bias) => ({w_type} y)'
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = onnx.parser.parse_model(f"{head} {{ {body} }}")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measure(forms: list[Callable[[Layer, int], str]], layer: Layer, draws: int, rows: int, shared: bool) -> list[float]:
    """Median microseconds per draw of each form, the forms in turn. Raises AssertionError for a wrong result."""
    random = np.random.default_rng(0)
    x_sizes = (rows, layer.channels, layer.size, layer.size)
    x = random.standard_normal(x_sizes if shared else (draws, *x_sizes), dtype=np.float32)
    w = random.standard_normal((draws, layer.filters, layer.channels, layer.kernel, layer.kernel), dtype=np.float32)
    bias = random.standard_normal((draws, layer.filters), dtype=np.float32)
    one_x = [from_numpy(x).double() if shared else from_numpy(part).double() for part in (draws * [x] if shared else x)]
    want = np.stack(
        [conv2d(a, from_numpy(b).double(), from_numpy(c).double()) for a, b, c in zip(one_x, w, bias, strict=True)]
    )
    feeds = {"x": x, "w": w, "bias": bias}
    sessions = [session(form(layer, draws), x.ndim) for form in forms]
    for made in sessions:
        error = np.abs(made.run(None, feeds)[0] - want).max() / np.abs(want).max()
        assert error < 1e-5, error  # float32 arithmetic in another order
    times = np.empty((ROUNDS, len(sessions)))
    for turn in range(ROUNDS):
        for k, made in enumerate(sessions):
            start = time.perf_counter()
            made.run(None, feeds)
            times[turn, k] = time.perf_counter() - start
    return list(np.median(times, axis=0) * 1e6 / draws)


def main() -> None:
    table = Table(title="Microseconds per draw, one thread", title_justify="left")
    for column in ("layer", "draws", "rows", "scan", "groups", "unfold", "channels"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for (name, layer), draws, rows in itertools.product(LAYERS.items(), DRAWS, ROWS):
        costs = measure([scan, groups, unfold], layer, draws, rows, shared=False)
        table.add_row(name, str(draws), str(rows), *(f"{cost:.0f}" for cost in costs), "")
    for draws, rows in itertools.product(DRAWS, ROWS):
        each, together = measure([repeated_scan, channels], SHARED, draws, rows, shared=True)
        table.add_row("LeNet's first (shared x)", str(draws), str(rows), f"{each:.0f}", "", "", f"{together:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
