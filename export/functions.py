"""The same layers as ONNX functions of domain "murho": the twins of kernels.py, sampling inside.

Inside a recurrent step the batch is the last axis: gates [S, 4H, B] = weight [S, 4H, F+H+1] @ (x, h, 1) [S, F+H+1, B].
"""

import onnx
import onnx.defs
import onnx.parser
from onnx import FunctionProto

from ..runtime.contract import NOISE_STREAM
from .generator import onnx_normals

DOMAIN = "murho"
OPSET = 18
ONE_BY_ONE = 2**15  # weights of a layer, from which on

_SIZES = """
  axis0 = Constant<value = int64[1] {0}>()
  axis1 = Constant<value = int64[1] {1}>()
  free = Constant<value = int64[1] {-1}>()
  count = Shape<start = 0, end = 1>(weight)
"""

# Large layers draw one network after another: what the generator keeps of one draw stays in a core's cache.
_WEIGHTS = f"""
  axis0 = Constant<value = int64[1] {{0}}>()
  n = Shape(mu)
  length = Squeeze(n, axis0)
  many = Constant<value = int64 {{{ONE_BY_ONE}}}>()
  is_large = GreaterOrEqual(length, many)
  weights = If<
    then_branch = one_by_one () => (float[?, ?] all_then)
  {{
    all_then = Scan<num_scan_inputs = 1, body = one_draw (int64 draw) => (float[?] own)
    {{
      name = Unsqueeze(draw, axis0)
      noise_row = murho.Normals<stream: int = @site>(name, seed, n)
      noise_one = Squeeze(noise_row, axis0)
      scatter_one = Mul(sigma, noise_one)
      own = Add(mu, scatter_one)
    }}>(draws)
  }},
    else_branch = together () => (float[?, ?] all_else)
  {{
    noise = murho.Normals<stream: int = @site>(draws, seed, n)
    scatter = Mul(sigma, noise)
    all_else = Add(mu, scatter)
  }}
  >(is_large)
"""

_LINEAR = """
  outputs1 = Shape<start = 1, end = 2>(weight)
  inputs1 = Shape<start = 2>(weight)
  x_shared0 = Constant<value_int: int = @shared>()
  x_shared = Cast<to = 9>(x_shared0)
  x_lead = Where(x_shared, axis1, count)
  rows_shape = Concat<axis = 0>(x_lead, free, inputs1)
  rows = Reshape(x, rows_shape)
  turned = Transpose<perm = [0, 2, 1]>(weight)
  product = MatMul(rows, turned)
  middle = Shape<start = 1, end = -1>(x)
  y_shape = Concat<axis = 0>(free, middle, outputs1)
"""

# The outputs are normal: mean x μᵀ, variance x² (σ²)ᵀ (Kingma, Salimans & Welling 2015, equation 6).
_LINEAR_LOCAL = """
  axis0 = Constant<value = int64[1] {0}>()
  axis1 = Constant<value = int64[1] {1}>()
  free = Constant<value = int64[1] {-1}>()
  count = Shape(draws)
  n = Shape(mu)
  inputs0 = Constant<value_int: int = @inputs>()
  inputs1 = Unsqueeze(inputs0, axis0)
  outputs0 = Constant<value_int: int = @outputs>()
  outputs1 = Unsqueeze(outputs0, axis0)
  area = Mul(inputs1, outputs1)
  weight_shape = Concat<axis = 0>(outputs1, inputs1)
  mu_flat = Slice(mu, axis0, area)
  mu_weight = Reshape(mu_flat, weight_shape)
  mu_t = Transpose(mu_weight)
  squares = Mul(sigma, sigma)
  squares_flat = Slice(squares, axis0, area)
  squares_weight = Reshape(squares_flat, weight_shape)
  squares_t = Transpose(squares_weight)
  x_shared0 = Constant<value_int: int = @shared>()
  x_shared = Cast<to = 9>(x_shared0)
  x_lead = Where(x_shared, axis1, count)
  rows_shape = Concat<axis = 0>(x_lead, free, inputs1)
  rows = Reshape(x, rows_shape)
  rows_squared = Mul(rows, rows)
  product = MatMul(rows, mu_t)
  product_squared = MatMul(rows_squared, squares_t)
  noise_rows = murho.Normals<stream: int = @site>(draws, seed, outputs1)
  noise = Unsqueeze(noise_rows, axis1)
  y_shape = Concat<axis = 0>(free, outputs1)
"""

_LOCAL_BIAS = """
  mu_bias = Slice(mu, area, n)
  mean = Add(product, mu_bias)
  squares_bias = Slice(squares, area, n)
  variance = Add(product_squared, squares_bias)
"""

_LOCAL_NO_BIAS = """
  mean = Identity(product)
  variance = Identity(product_squared)
"""

_LOCAL_END = """
  std = Sqrt(variance)
  scatter = Mul(std, noise)
  total = Add(mean, scatter)
  y = Reshape(total, y_shape)
"""

_CONV_OPTIONS = "strides: ints = @stride, pads: ints = @pads, dilations: ints = @dilation, group: int = @groups"

# A convolution for each draw: ONNX's groups are fixed when the file is written, the number of draws is not.
_CONV_EACH = """
  inner = Shape<start = 1>(x)
  x_shape = Concat<axis = 0>(count, free, inner)
  x_draws = Reshape(x, x_shape)
  y_draws = Scan<num_scan_inputs = {inputs}, body = step
    (float[{axes}] x_one, float[{axes}] w_one{bias_type}) => (float[{axes}] y_one)
  {{
    y_one = Conv<{options}>(x_one, w_one{bias_one})
  }}>(x_draws, weight{bias_many})
  y_inner = Shape<start = 2>(y_draws)
  y_shape = Concat<axis = 0>(free, y_inner)
  y = Reshape(y_draws, y_shape)
"""

# The same x for every draw: one convolution, the draws' outputs as its channels. A group's channels stand together.
_CONV_SHARED = """
  groups0 = Constant<value_int: int = @groups>()
  groups1 = Unsqueeze(groups0, axis0)
  outputs1 = Shape<start = 1, end = 2>(weight)
  part = Shape<start = 2>(weight)
  split_shape = Concat<axis = 0>(count, groups1, free, part)
  weight_split = Reshape(weight, split_shape)
  weight_groups = Transpose<perm = [1, 0, 2, {weight_axes}]>(weight_split)
  kernel_shape = Concat<axis = 0>(free, part)
  kernel = Reshape(weight_groups, kernel_shape)
  {bias_groups}
  channels = Conv<{options}>(x, kernel{bias_many})
  space = Shape<start = 2>(channels)
  rows = Shape<start = 0, end = 1>(x)
  channels_shape = Concat<axis = 0>(rows, groups1, count, free, space)
  channels_split = Reshape(channels, channels_shape)
  y_draws = Transpose<perm = [2, 0, 1, {space_axes}]>(channels_split)
  y_shape = Concat<axis = 0>(free, outputs1, space)
  y = Reshape(y_draws, y_shape)
"""

_BIAS_GROUPS = """bias_shape = Concat<axis = 0>(count, groups1, free)
  bias_split = Reshape(bias, bias_shape)
  bias_groups = Transpose<perm = [1, 0, 2]>(bias_split)
  bias_flat = Reshape(bias_groups, free)"""

# A number that has no row is an error of Gather's, or NaN where a host's Gather has none: never another draw's row.
_EMBEDDING = """
  rows1 = Shape<start = 1, end = 2>(weight)
  width1 = Shape<start = 2>(weight)
  table_shape = Concat<axis = 0>(free, width1)
  table = Reshape(weight, table_shape)
  x_shared0 = Constant<value_int: int = @shared>()
  x_shared = Cast<to = 9>(x_shared0)
  x_lead = Where(x_shared, axis1, count)
  index_shape = Concat<axis = 0>(x_lead, free)
  tokens = Reshape(x, index_shape)
  zero = Constant<value = int64 {0}>()
  one = Constant<value = int64 {1}>()
  count0 = Squeeze(count, axis0)
  order = Range(zero, count0, one)
  order_column = Unsqueeze(order, axis1)
  start = Mul(order_column, rows1)
  inside = Add(tokens, start)
  below = Less(tokens, zero)
  above = GreaterOrEqual(tokens, rows1)
  unknown = Or(below, above)
  end = Shape<start = 0, end = 1>(table)
  index = Where(unknown, end, inside)
  found = Gather<axis = 0>(table, index)
  unknown_column = Unsqueeze(unknown, free)
  nan = Constant<value = float {nan}>()
  vectors = Where(unknown_column, nan, found)
  middle = Shape<start = 1>(x)
  y_shape = Concat<axis = 0>(free, middle, width1)
"""

# As torch.embedding_renorm_: a vector longer than max_norm is shortened to it.
_MAX_NORM = """
  p = Constant<value_float: float = @norm_type>()
  unit = Constant<value = float {1}>()
  root = Div(unit, p)
  last = Constant<value = int64[1] {-1}>()
  sizes = Abs(vectors)
  powers = Pow(sizes, p)
  power = ReduceSum<keepdims = 1>(powers, last)
  length = Pow(power, root)
  most = Constant<value_float: float = @max_norm>()
  tiny = Constant<value = float {1e-7}>()
  length_tiny = Add(length, tiny)
  factor = Div(most, length_tiny)
  shortened = Mul(vectors, factor)
  long = Greater(length, most)
  kept = Where(long, shortened, vectors)
  y = Reshape(kept, y_shape)
"""

_NO_MAX_NORM = """
  y = Reshape(vectors, y_shape)
"""

_BIAS = """
  bias_row = Unsqueeze(bias, axis1)
  total = Add(product, bias_row)
  y = Reshape(total, y_shape)
"""

_NO_BIAS = """
  y = Reshape(product, y_shape)
"""

_SEQUENCE = """
  axis2 = Constant<value = int64[1] {2}>()
  inputs0 = Constant<value_int: int = @inputs>()
  inputs1 = Unsqueeze(inputs0, axis0)
  hidden0 = Constant<value_int: int = @hidden>()
  hidden1 = Unsqueeze(hidden0, axis0)
  x_shared0 = Constant<value_int: int = @shared>()
  x_shared = Cast<to = 9>(x_shared0)
  x_lead = Where(x_shared, axis1, count)
  steps = Shape<start = 1, end = 2>(x)
  x_shape = Concat<axis = 0>(x_lead, free, steps, inputs1)
  x_draws = Reshape(x, x_shape)
  x_lead_steps = Transpose<perm = [2, 0, 3, 1]>(x_draws)
  over_draws4 = Concat<axis = 0>(axis1, count, axis1, axis1)
  x_steps = Expand(x_lead_steps, over_draws4)
  batch = Shape<start = 3, end = 4>(x_steps)
  one_shape = Concat<axis = 0>(count, axis1, batch)
  one = ConstantOfShape<value = float[1] {1}>(one_shape)
  s_shared0 = Constant<value_int: int = @state_shared>()
  s_shared = Cast<to = 9>(s_shared0)
  s_lead = Where(s_shared, axis1, count)
  s_shape = Concat<axis = 0>(s_lead, free, hidden1)
  over_draws3 = Concat<axis = 0>(count, axis1, axis1)
  h_draws = Reshape(h, s_shape)
  h_lead = Transpose<perm = [0, 2, 1]>(h_draws)
  h_first = Expand(h_lead, over_draws3)
  last_shape = Concat<axis = 0>(free, hidden1)
  sequence_shape = Concat<axis = 0>(free, steps, hidden1)
"""

_H_LAST = """
  h_last_t = Transpose<perm = [0, 2, 1]>(h_end)
  h_last = Reshape(h_last_t, last_shape)
"""

_H_ALL = """
  h_all_t = Transpose<perm = [1, 3, 0, 2]>(h_all)
  sequence = Reshape(h_all_t, sequence_shape)
"""

_LSTM = """
  c_draws = Reshape(c, s_shape)
  c_lead = Transpose<perm = [0, 2, 1]>(c_draws)
  c_first = Expand(c_lead, over_draws3)
"""

_LSTM_STEPS = """
  h_end, c_end, h_all = Scan<num_scan_inputs = 1, body = step
    (float[?, ?, ?] h_old, float[?, ?, ?] c_old, float[?, ?, ?] x_now)
    => (float[?, ?, ?] h_new, float[?, ?, ?] c_new, float[?, ?, ?] h_out)
  {
    column = Concat<axis = 1>(x_now, h_old, one)
    gates = MatMul(weight, column)
    gate_i, gate_f, gate_g, gate_o = Split<axis = 1, num_outputs = 4>(gates)
    i = Sigmoid(gate_i)
    f = Sigmoid(gate_f)
    g = Tanh(gate_g)
    o = Sigmoid(gate_o)
    kept = Mul(f, c_old)
    added = Mul(i, g)
    c_new = Add(kept, added)
    c_out = Tanh(c_new)
    h_new = Mul(o, c_out)
    h_out = Identity(h_new)
  }>(h_first, c_first, x_steps)
"""

_C_LAST = """
  c_last_t = Transpose<perm = [0, 2, 1]>(c_end)
  c_last = Reshape(c_last_t, last_shape)
"""

# BLiTZ's own: the gates read c in place of h, the candidate neither, and the output gate is inside the last tanh.
_PEEPHOLE = """
  two = Constant<value = int64[1] {2}>()
  three = Constant<value = int64[1] {3}>()
  g_first = Mul(two, hidden1)
  g_end = Mul(three, hidden1)
  weight_g = Slice(weight, g_first, g_end, axis1)
  one_column = Add(inputs1, hidden1)
  last_column = Add(one_column, axis1)
  weight_gx = Slice(weight_g, axis0, inputs1, axis2)
  weight_gb = Slice(weight_g, one_column, last_column, axis2)
  weight_xg = Concat<axis = 2>(weight_gx, weight_gb)
  h_end, c_end, h_all = Scan<num_scan_inputs = 1, body = step
    (float[?, ?, ?] h_old, float[?, ?, ?] c_old, float[?, ?, ?] x_now)
    => (float[?, ?, ?] h_new, float[?, ?, ?] c_new, float[?, ?, ?] h_out)
  {
    column = Concat<axis = 1>(x_now, c_old, one)
    gates = MatMul(weight, column)
    gate_i, gate_f, gate_g, gate_o = Split<axis = 1, num_outputs = 4>(gates)
    x_one = Concat<axis = 1>(x_now, one)
    candidate = MatMul(weight_xg, x_one)
    i = Sigmoid(gate_i)
    f = Sigmoid(gate_f)
    g = Sigmoid(candidate)
    o = Sigmoid(gate_o)
    kept = Mul(f, c_old)
    added = Mul(i, g)
    c_new = Add(kept, added)
    c_out = Mul(o, c_new)
    h_new = Tanh(c_out)
    h_out = Identity(h_new)
  }>(h_first, c_first, x_steps)
"""

_GRU = """
  h_end, h_all = Scan<num_scan_inputs = 1, body = step
    (float[?, ?, ?] h_old, float[?, ?, ?] x_now) => (float[?, ?, ?] h_new, float[?, ?, ?] h_out)
  {
    column = Concat<axis = 1>(x_now, h_old, one)
    gates = MatMul(weight, column)
    gate_r, gate_z, new_x, new_h = Split<axis = 1, num_outputs = 4>(gates)
    r = Sigmoid(gate_r)
    z = Sigmoid(gate_z)
    reset = Mul(r, new_h)
    new_in = Add(new_x, reset)
    new = Tanh(new_in)
    change = Sub(h_old, new)
    kept = Mul(z, change)
    h_new = Add(new, kept)
    h_out = Identity(h_new)
  }>(h_first, x_steps)
"""

_SUMMARY = """
  axis0 = Constant<value = int64[1] {0}>()
  axis1 = Constant<value = int64[1] {1}>()
  count = Shape<start = 0, end = 1>(samples)
  last = Sub(count, axis1)
  last_float = CastLike(last, samples)
  last_double = Cast<to = 11>(last)
  mean = ReduceMean<keepdims = 0>(samples, axis0)
  off = Sub(samples, mean)
  squares = ReduceSumSquare<keepdims = 0>(off, axis0)
  variance = Div(squares, last_float)
  std = Sqrt(variance)
  levels_double = Cast<to = 11>(levels)
  unit = Constant<value = double {1}>()
  half = Constant<value = double {0.5}>()
  rows = Shape<start = 1>(samples)
  many = Shape(levels)
  rank = Shape(rows)
  ones = Expand(axis1, rank)
  share_shape = Concat<axis = 0>(many, ones)
  below_one = Sub(unit, levels_double)
  above_one = Add(unit, levels_double)
"""

# Only the tails that the levels reach into are sorted; places count from the outer end of a tail.
_END = """
  {end}_tail = Mul({side}_one, half)
  {end}_position = Mul({end}_tail, last_double)
  {end}_floor = Floor({end}_position)
  {end}_index = Cast<to = 7>({end}_floor)
  {end}_next = Add({end}_index, axis1)
  {end}_top = Min({end}_next, last)
  {end}_share64 = Sub({end}_position, {end}_floor)
  {end}_share32 = CastLike({end}_share64, samples)
  {end}_share = Reshape({end}_share32, share_shape)
  {places}
  {end}_innermost = ReduceMax<keepdims = 1>({inner})
  {end}_length = Add({end}_innermost, axis1)
  {end}_sorted, {end}_order = TopK<axis = 0, largest = {largest}>(samples, {end}_length)
  {end}_low = Gather<axis = 0>({end}_sorted, {low})
  {end}_high = Gather<axis = 0>({end}_sorted, {high})
  {end}_gap = Sub({end}_high, {end}_low)
  {end}_step = Mul({end}_share, {end}_gap)
  {end} = Add({end}_low, {end}_step)
"""

_UPPER_PLACES = """upper_low_place = Sub(last, upper_index)
  upper_high_place = Sub(last, upper_top)"""


# A Student-t number is a normal over the root mean square of `degrees` others.
_NOISE = f"""
  axis0 = Constant<value = int64[1] {{0}}>()
  axis1 = Constant<value = int64[1] {{1}}>()
  one = Constant<value = int64 {{1}}>()
  end = Constant<value = int64[1] {{9223372036854775807}}>()
  free = Constant<value = int64[1] {{-1}}>()
  width0 = Constant<value_int: int = @n>()
  width = Unsqueeze(width0, axis0)
  degrees0 = Constant<value_int: int = @degrees>()
  blocks0 = Add(degrees0, one)
  blocks = Unsqueeze(blocks0, axis0)
  total = Mul(width, blocks)
  normals = murho.Normals<stream = {NOISE_STREAM}>(draws, seed, total)
"""

_GAUSSIAN = """
  noise = Identity(normals)
"""

_STUDENT = """
  block_shape = Concat<axis = 0>(free, blocks, width)
  z = Reshape(normals, block_shape)
  top0 = Slice(z, axis0, axis1, axis1)
  top = Squeeze(top0, axis1)
  rest = Slice(z, axis1, end, axis1)
  squares = Mul(rest, rest)
  mean_square = ReduceMean<keepdims = 0>(squares, axis1)
  root = Sqrt(mean_square)
  noise = Div(top, root)
"""

# An artifact that was never calibrated, all factors 1, sorts nothing.
_STRETCH = """
  axis0 = Constant<value = int64[1] {0}>()
  axis1 = Constant<value = int64[1] {1}>()
  two = Constant<value = int64[1] {2}>()
  unit = Constant<value = float {1.0}>()
  zero = Constant<value = float {0.0}>()
  half = Constant<value = float {0.5}>()
  off = Sub(factors, unit)
  distance = Abs(off)
  most = ReduceMax<keepdims = 0>(distance)
  calibrated = Greater(most, zero)
  lower_end, upper_end = If<
    then_branch = stretched () => (float[?, ?, ?] lower_then, float[?, ?, ?] upper_then)
  {
    count = Shape<start = 0, end = 1>(samples)
    last = Sub(count, axis1)
    ordered, order = TopK<axis = 0, largest = 0>(samples, count)
    low_index = Div(last, two)
    high_index = Div(count, two)
    low = Gather<axis = 0>(ordered, low_index)
    high = Gather<axis = 0>(ordered, high_index)
    between = Sub(high, low)
    half_way = Mul(half, between)
    median = Add(low, half_way)
    column = Unsqueeze(levels, axis1)
    reached0 = LessOrEqual(slots, column)
    reached = Cast<to = 7>(reached0)
    number = ReduceSum<keepdims = 0>(reached, axis1)
    number_less = Sub(number, axis1)
    below = Max(number_less, axis0)
    many = Shape(slots)
    highest = Sub(many, axis1)
    next = Add(below, axis1)
    above = Min(next, highest)
    start = Gather(slots, below)
    stop = Gather(slots, above)
    gap = Sub(stop, start)
    over = Sub(levels, start)
    is_gap = Greater(gap, zero)
    safe_gap = Where(is_gap, gap, unit)
    raw_share = Div(over, safe_gap)
    inner_share = Clip(raw_share, zero, unit)
    share0 = Where(is_gap, inner_share, zero)
    share = Unsqueeze(share0, axis1)
    factor_low = Gather(factors, below)
    factor_high = Gather(factors, above)
    factor_gap = Sub(factor_high, factor_low)
    factor_step = Mul(share, factor_gap)
    factor = Add(factor_low, factor_step)
    less0 = Sub(unit, factor)
    less1 = Mul(less0, noise)
    less = Unsqueeze(less1, axis1)
    lower_side = Sub(median, lower)
    lower_less = Mul(less, lower_side)
    lower_then = Add(lower, lower_less)
    upper_side = Sub(upper, median)
    upper_less = Mul(less, upper_side)
    upper_then = Sub(upper, upper_less)
  },
    else_branch = untouched () => (float[?, ?, ?] lower_else, float[?, ?, ?] upper_else)
  {
    lower_else = Identity(lower)
    upper_else = Identity(upper)
  }
  >(calibrated)
"""


def _without_sequence(body: str) -> str:
    """A recurrent body whose scan keeps no step but the last: most of the memory traffic of a batch goes."""
    dropped = (", h_all = Scan", " = Scan"), (", float[?, ?, ?] h_out)", ")"), ("    h_out = Identity(h_new)\n", "")
    for old, new in dropped:
        body = body.replace(old, new)
    return body


_LOWER_END = _END.format(
    end="lower", side="below", largest=0, places="", inner="lower_top", low="lower_index", high="lower_top"
)
_UPPER_END = _END.format(
    end="upper",
    side="above",
    largest=1,
    places=_UPPER_PLACES,
    inner="upper_low_place",
    low="upper_low_place",
    high="upper_high_place",
)
_SEQUENCE_ATTRIBUTES = ("inputs", "hidden", "shared", "state_shared")
_LOCAL_ATTRIBUTES = ("site", "inputs", "outputs", "shared")
_CONV_ATTRIBUTES = ("stride", "pads", "dilation", "groups")
_SAMPLED = ("draws", "seed", "mu", "sigma")
_RECURRENT = _SIZES + _SEQUENCE

Source = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str]


def _convolution(rank: int, bias: bool, shared: bool) -> Source:
    spatial = range(3, 3 + rank)
    body = (_CONV_SHARED if shared else _CONV_EACH).format(
        options=_CONV_OPTIONS,
        inputs=3 if bias else 2,
        axes=", ".join("?" * (rank + 2)),
        bias_groups=_BIAS_GROUPS if bias else "",
        bias_type=", float[?] b_one" if bias else "",
        bias_one=", b_one" if bias else "",
        bias_many=(", bias_flat" if shared else ", bias") if bias else "",
        weight_axes=", ".join(str(axis) for axis in (*spatial, 3 + rank)),
        space_axes=", ".join(str(axis) for axis in (*spatial, 3 + rank)),
    )
    return _CONV_ATTRIBUTES, ("x", "weight", "bias") if bias else ("x", "weight"), ("y",), _SIZES + body


def convolution_name(rank: int, bias: bool, shared: bool) -> str:
    """ "Shared" where one x serves every draw."""
    return f"BayesianConv{rank}d{'' if bias else 'NoBias'}{'Shared' if shared else ''}"


# name: (attributes, inputs, outputs, body)
_SOURCES: dict[str, Source] = {
    "BayesianWeights": (("site",), _SAMPLED, ("weights",), _WEIGHTS),
    "BayesianLinear": (("shared",), ("x", "weight", "bias"), ("y",), _SIZES + _LINEAR + _BIAS),
    "BayesianLinearNoBias": (("shared",), ("x", "weight"), ("y",), _SIZES + _LINEAR + _NO_BIAS),
    "BayesianLinearLocal": (
        _LOCAL_ATTRIBUTES,
        ("x", *_SAMPLED),
        ("y",),
        _LINEAR_LOCAL + _LOCAL_BIAS + _LOCAL_END,
    ),
    "BayesianLinearNoBiasLocal": (
        _LOCAL_ATTRIBUTES,
        ("x", *_SAMPLED),
        ("y",),
        _LINEAR_LOCAL + _LOCAL_NO_BIAS + _LOCAL_END,
    ),
    **{
        convolution_name(rank, bias, shared): _convolution(rank, bias, shared)
        for rank in (1, 2, 3)
        for bias in (True, False)
        for shared in (True, False)
    },
    "BayesianEmbedding": (
        ("shared",),
        ("x", "weight"),
        ("y",),
        _SIZES + _EMBEDDING + _NO_MAX_NORM,
    ),
    "BayesianEmbeddingMaxNorm": (
        ("max_norm", "norm_type", "shared"),
        ("x", "weight"),
        ("y",),
        _SIZES + _EMBEDDING + _MAX_NORM,
    ),
    "BayesianGRU": (
        _SEQUENCE_ATTRIBUTES,
        ("x", "h", "weight"),
        ("sequence", "h_last"),
        _RECURRENT + _GRU + _H_LAST + _H_ALL,
    ),
    "BayesianGRULast": (
        _SEQUENCE_ATTRIBUTES,
        ("x", "h", "weight"),
        ("h_last",),
        _RECURRENT + _without_sequence(_GRU) + _H_LAST,
    ),
    "ObservationNoise": (("n", "degrees"), ("draws", "seed"), ("noise",), _NOISE + _GAUSSIAN),
    "ObservationNoiseStudent": (("n", "degrees"), ("draws", "seed"), ("noise",), _NOISE + _STUDENT),
    "Summary": ((), ("samples", "levels"), ("mean", "std", "lower", "upper"), _SUMMARY + _LOWER_END + _UPPER_END),
    "Stretch": (
        (),
        ("samples", "lower", "upper", "levels", "noise", "slots", "factors"),
        ("lower_end", "upper_end"),
        _STRETCH,
    ),
}
for _name, _steps in (("BayesianLSTM", _LSTM_STEPS), ("BayesianLSTMPeephole", _PEEPHOLE)):
    _SOURCES[_name] = (
        _SEQUENCE_ATTRIBUTES,
        ("x", "h", "c", "weight"),
        ("sequence", "h_last", "c_last"),
        _RECURRENT + _LSTM + _steps + _C_LAST + _H_LAST + _H_ALL,
    )
    _SOURCES[f"{_name}Last"] = (
        _SEQUENCE_ATTRIBUTES,
        ("x", "h", "c", "weight"),
        ("h_last", "c_last"),
        _RECURRENT + _LSTM + _without_sequence(_steps) + _C_LAST + _H_LAST,
    )


def has_last_form(name: str) -> bool:
    """Whether a function has a form that returns no step of its sequence but the last."""
    return f"{name}Last" in _SOURCES


def functions(names: set[str]) -> list[FunctionProto]:
    """The named functions, and the generator that they call."""
    texts = [onnx_normals()] + [_text(name) for name in _SOURCES if name in names]
    return [onnx.parser.parse_function(text) for text in texts]


def _text(name: str) -> str:
    attributes, inputs, outputs, body = _SOURCES[name]
    head = f"{name} {'<' + ', '.join(attributes) + '>' if attributes else ''} ({', '.join(inputs)})"
    opsets = f'<opset_import: ["" : {OPSET}, "{DOMAIN}" : 1], domain: "{DOMAIN}">'
    return f"{opsets}\n{head} => ({', '.join(outputs)})\n{{{body}}}"


def schemas() -> dict[str, onnx.defs.OpSchema]:
    """A schema for each function, so that torch's exporter can emit a node that calls it."""
    kind = onnx.defs.OpSchema
    integers = {"draws", "seed"}
    types = {"max_norm": kind.AttrType.FLOAT, "norm_type": kind.AttrType.FLOAT}
    types |= dict.fromkeys(("stride", "pads", "dilation"), kind.AttrType.INTS)
    made = {}
    for name, (attributes, inputs, outputs, _) in _SOURCES.items():
        tokens = {"x"} if name.startswith("BayesianEmbedding") else set()
        made[name] = kind(
            name,
            DOMAIN,
            1,
            inputs=[
                kind.FormalParameter(i, "tensor(int64)" if i in integers | tokens else "tensor(float)") for i in inputs
            ],
            outputs=[kind.FormalParameter(o, "tensor(float)") for o in outputs],
            attributes=[kind.Attribute(a, types.get(a, kind.AttrType.INT), required=True) for a in attributes],
        )
    return made
