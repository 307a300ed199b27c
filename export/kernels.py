"""What one Bayesian layer computes for all draws at once, in torch. TorchScript compiles these functions as they are.

Draws travel folded into the batch axis, draw-major: a tensor is [S·B, …], or [B, …] where it is the same for every draw
("shared"). S draws, B batch, T time, F inputs, H hidden units. Weights
have an axis of draws in front.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from .generator import torch_normals


def sample_weights(draws: Tensor, seed: Tensor, mu: Tensor, sigma: Tensor, site: int) -> Tensor:
    """Every draw's weights μ + σ ⊙ ε, float32 [S, n].

    Compiled code draws many weights one network after another: what the generator keeps of one draw then stays small.
    A GPU would wait for its launches.
    """
    n = mu.size(0)
    compiled: bool = torch.jit.is_scripting()  # type: ignore[attr-defined]
    if compiled and n >= 32768 and not mu.is_cuda:
        weights = torch.empty([draws.size(0), n], dtype=mu.dtype, device=mu.device)
        for k in range(draws.size(0)):
            weights[k] = mu + sigma * torch_normals(draws[k : k + 1], seed, site, n)[0]
        return weights
    return mu + sigma * torch_normals(draws, seed, site, n)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, shared: bool) -> Tensor:
    """BayesianLinear: x [S·B or B, …, I] -> [S·B, …, O], with weight [S, O, I] and bias [S, O]."""
    count, outputs, inputs = weight.shape
    y = torch.matmul(x.reshape(1 if shared else count, -1, inputs), weight.transpose(1, 2))
    if bias is not None:
        y = y + bias.unsqueeze(1)
    return y.reshape([-1] + list(x.shape[1:-1]) + [outputs])  # noqa: RUF005 - TorchScript knows no unpacking


def linear_local(
    x: Tensor,
    draws: Tensor,
    seed: Tensor,
    mu: Tensor,
    sigma: Tensor,
    site: int,
    inputs: int,
    outputs: int,
    bias: bool,
    shared: bool,
) -> Tensor:
    """BayesianLinear, x [S·B or B, inputs] -> [S·B, outputs], sampling its outputs in place of its weights.

    Local reparameterisation (Kingma, Salimans & Welling 2015, equation 6): for a given row the output is normal with
    mean x μᵀ and variance x² (σ²)ᵀ, independent over the outputs. One ε [outputs] serves every row of a draw, so that a
    row's answer does not depend on the rows beside it.
    """
    area = inputs * outputs
    rows = x.reshape(1 if shared else draws.size(0), -1, inputs)
    mean = torch.matmul(rows, mu[:area].reshape(outputs, inputs).t())
    variance = torch.matmul(rows * rows, torch.square(sigma[:area]).reshape(outputs, inputs).t())
    if bias:
        mean = mean + mu[area:]
        variance = variance + torch.square(sigma[area:])
    noise = torch_normals(draws, seed, site, outputs).unsqueeze(1)
    return (mean + torch.sqrt(variance) * noise).reshape(-1, outputs)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    shared: bool,
) -> Tensor:
    """BayesianConv1d, 2d, 3d: x [S·B or B, C, …] -> [S·B, O, …], with weight [S, O, C / groups, …] and bias [S, O].

    `pads` are ONNX's: the begin of each axis, then the end of each. Different weights for each draw are groups of one
    convolution; where x is the same for all draws, their outputs are channels of one.
    """
    count, outputs, rank = weight.size(0), weight.size(1), len(stride)
    begins, ends = pads[:rank], pads[rank:]
    if begins != ends:
        around: list[int] = []
        for k in range(rank):  # torch pads the last axis first
            around += [begins[rank - 1 - k], ends[rank - 1 - k]]
        x = F.pad(x, around)
        begins = [0] * rank
    part = list(weight.shape[2:])
    if shared:  # a group's channels stand together: [G, S, O / G]
        weight = weight.reshape([count, groups, -1] + part).transpose(0, 1)  # noqa: RUF005
        if bias is not None:
            bias = bias.reshape(count, groups, -1).transpose(0, 1)
        parts = groups
    else:
        x = x.reshape([count, -1] + list(x.shape[1:])).transpose(0, 1)  # noqa: RUF005
        x = x.reshape([x.size(0), -1] + list(x.shape[3:]))  # noqa: RUF005
        parts = count * groups
    y = torch.convolution(
        x,
        weight.reshape([-1] + part),  # noqa: RUF005
        bias if bias is None else bias.reshape(-1),
        stride,
        begins,
        dilation,
        False,
        [0] * rank,
        parts,
    )
    space = list(y.shape[2:])
    if shared:
        y = y.reshape([-1, groups, count, outputs // groups] + space).transpose(1, 2)  # noqa: RUF005
        y = y.reshape([-1, count, outputs] + space)  # noqa: RUF005
    else:
        y = y.reshape([-1, count, outputs] + space)  # noqa: RUF005
    return y.transpose(0, 1).reshape([-1, outputs] + space)  # noqa: RUF005


def embedding(x: Tensor, weight: Tensor, max_norm: float, norm_type: float, shared: bool) -> Tensor:
    """BayesianEmbedding: x int64 [S·B or B, …] -> [S·B, …, W], with weight [S, R, W].

    With a `max_norm` above 0, looked-up vectors that are longer are shortened to it, as torch.embedding_renorm_ does.
    A number that has no row is an error, and not another draw's row.
    """
    count, rows, width = weight.shape
    tokens = x.reshape(1 if shared else count, -1)
    index = tokens + torch.arange(count, device=x.device).unsqueeze(1) * rows
    index = torch.where((tokens < 0) | (tokens >= rows), count * rows, index)
    y = weight.reshape(-1, width)[index]
    if max_norm > 0.0:
        length = torch.linalg.vector_norm(y, norm_type, dim=-1, keepdim=True)
        y = torch.where(length > max_norm, y * (max_norm / (length + 1e-7)), y)
    return y.reshape([-1] + list(x.shape[1:]) + [width])  # noqa: RUF005


def lstm(
    x: Tensor, h: Tensor, c: Tensor, weight: Tensor, peephole: bool, shared: bool, state_shared: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """BayesianLSTM: x [·, T, F], h and c [·, H] -> the sequence [S·B, T, H] and the last h and c [S·B, H].

    `weight` [S, 4H, F + H + 1] is applied to (x, h, 1), for the gates in the order input, forget, cell, output. With
    `peephole`, BLiTZ's gates read c in place of h, the cell's candidate reads neither and ends in a sigmoid, and the
    output gate is inside the last tanh.
    """
    steps, hidden = x.size(1), weight.size(1) // 4
    x, weight_ih, weight_hh, bias = recurrent_parts(x, weight, shared)
    h, c = state_per_draw(h, x, weight, state_shared), state_per_draw(c, x, weight, state_shared)
    sequence: list[Tensor] = []
    for t in range(steps):
        h, c = lstm_step(x[:, :, t], h, c, weight_ih, weight_hh, bias, peephole)
        sequence.append(h)
    out = torch.stack(sequence, dim=2)
    return out.reshape(-1, steps, hidden), h.reshape(-1, hidden), c.reshape(-1, hidden)


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, peephole: bool
) -> tuple[Tensor, Tensor]:
    """The next h and c [S, B, H] of `lstm`, from a step x [S or 1, B, F]."""
    from_x = torch.matmul(x, weight_ih) + bias
    i, f, g, o = torch.chunk(torch.baddbmm(from_x, c if peephole else h, weight_hh), 4, dim=2)
    if peephole:
        g = torch.sigmoid(torch.chunk(from_x, 4, dim=2)[2])
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * g
        return torch.tanh(torch.sigmoid(o) * c), c
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, h: Tensor, weight: Tensor, shared: bool, state_shared: bool) -> tuple[Tensor, Tensor]:
    """BayesianGRU: x [·, T, F], h [·, H] -> the sequence [S·B, T, H] and the last h [S·B, H].

    `weight` [S, 4H, F + H + 1] is applied to (x, h, 1), for reset, update, and the new gate's part from x and from h.
    """
    steps, hidden = x.size(1), weight.size(1) // 4
    x, weight_ih, weight_hh, bias = recurrent_parts(x, weight, shared)
    h = state_per_draw(h, x, weight, state_shared)
    sequence: list[Tensor] = []
    for t in range(steps):
        h = gru_step(x[:, :, t], h, weight_ih, weight_hh, bias)
        sequence.append(h)
    out = torch.stack(sequence, dim=2)
    return out.reshape(-1, steps, hidden), h.reshape(-1, hidden)


def gru_step(x: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> Tensor:
    """The next h [S, B, H] of `gru`, from a step x [S or 1, B, F]."""
    from_x = torch.matmul(x, weight_ih) + bias
    r, z, new_x, new_h = torch.chunk(torch.baddbmm(from_x, h, weight_hh), 4, dim=2)
    n = torch.tanh(new_x + torch.sigmoid(r) * new_h)
    return n + torch.sigmoid(z) * (h - n)


def recurrent_parts(x: Tensor, weight: Tensor, shared: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [S or 1, B, T, F] and the three parts of `weight`, transposed: [S, F, 4H], [S, H, 4H], [S, 1, 4H]."""
    count, hidden = weight.size(0), weight.size(1) // 4
    inputs = weight.size(2) - hidden - 1
    weight_ih, weight_hh, bias = torch.split(weight.transpose(1, 2), [inputs, hidden, 1], dim=1)
    return x.reshape(1 if shared else count, -1, x.size(1), inputs), weight_ih, weight_hh, bias


def state_per_draw(state: Tensor, x: Tensor, weight: Tensor, shared: bool) -> Tensor:
    """A state [S·B or B, H] as [S, B, H], for x [S or 1, B, T, F]."""
    count, batch, hidden = weight.size(0), x.size(1), weight.size(1) // 4
    return state.reshape(1 if shared else count, batch, hidden).expand(count, batch, hidden)


def observation_noise(draws: Tensor, seed: Tensor, n: int, degrees: int) -> Tensor:
    """Unit noise ε [S, n] from the generator's stream of its own: standard normals, or Student-t with `degrees` > 0.

    A Student-t number is a normal over the root mean square of `degrees` others; the first n of the stream are the
    numerators.
    """
    stream = -2147483648  # 2^31, as int32 holds it
    if degrees == 0:
        return torch_normals(draws, seed, stream, n)
    z = torch_normals(draws, seed, stream, n * (degrees + 1)).reshape(-1, degrees + 1, n)
    return z[:, 0] / torch.sqrt(torch.square(z[:, 1:]).mean(dim=1))


def summary(samples: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and std [B, …] over the draws, and the ends of the central intervals [K, B, …], of samples [S, B, …].

    The ends are the sample quantiles (1 ∓ level) / 2 with linear interpolation, as numpy.quantile.
    """
    ordered = torch.sort(samples, dim=0)[0]
    last = samples.size(0) - 1
    ends: list[Tensor] = []
    for sign in [-1.0, 1.0]:
        # float64: with many draws a float32 position would miss the neighbouring sample
        position = (levels.to(torch.float64) * sign + 1.0) * 0.5 * last
        below = torch.floor(position)
        share = (position - below).to(samples.dtype).reshape([-1] + [1] * (samples.dim() - 1))
        index = below.to(torch.int64)
        low = ordered.index_select(0, index)
        high = ordered.index_select(0, torch.clamp(index + 1, max=last))
        ends.append(low + share * (high - low))
    return samples.mean(dim=0), samples.std(dim=0), ends[0], ends[1]


def stretch(
    samples: Tensor, lower: Tensor, upper: Tensor, levels: Tensor, noise: Tensor, slots: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    """Calibrated ends [K, B, O]: the sides of an interval, from the median of samples [S, B, O] on, times a factor.

    `factors` [L, O] belong to the levels `slots` [L], ascending; between two of them the factor is interpolated, beyond
    them it stays. An interval for the mean (`noise` = 0) stays as it is.
    """
    ordered = torch.sort(samples, dim=0)[0]
    last = samples.size(0) - 1
    low, high = ordered[last // 2], ordered[(last + 1) // 2]
    median = low + 0.5 * (high - low)
    below = torch.clamp((slots <= levels.unsqueeze(1)).sum(dim=1) - 1, min=0)
    above = torch.clamp(below + 1, max=slots.size(0) - 1)
    start, gap = slots[below], slots[above] - slots[below]
    share = torch.where(gap > 0, torch.clamp((levels - start) / gap, 0.0, 1.0), torch.zeros_like(gap)).unsqueeze(1)
    factor = factors[below] + share * (factors[above] - factors[below])
    less = ((1.0 - factor) * noise).unsqueeze(1)  # [K, 1, O]
    return lower + less * (median - lower), upper - less * (upper - median)
