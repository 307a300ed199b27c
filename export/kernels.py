"""What one Bayesian layer computes for all draws at once, in torch. TorchScript compiles these functions as they are.

Draws travel folded into the batch axis, draw-major: a tensor is [S·B, …], or [B, …] where it is the same for every draw
("shared"). S draws, B batch, T time, F inputs, H hidden units.
"""

import torch
from torch import Tensor

from .generator import torch_normals


def sample_weights(draws: Tensor, seed: Tensor, mu: Tensor, sigma: Tensor, site: int) -> Tensor:
    """Every draw's weights μ + σ ⊙ ε, float32 [S, n]."""
    return mu + sigma * torch_normals(draws, seed, site, mu.size(0))


def linear(
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
    """BayesianLinear: x [S·B or B, …, inputs] -> [S·B, …, outputs]. Posterior: weight [outputs, inputs], bias."""
    count = draws.size(0)
    weights = sample_weights(draws, seed, mu, sigma, site)
    weight = weights[:, : inputs * outputs].reshape(count, outputs, inputs)
    rows = x.reshape(1 if shared else count, -1, inputs)
    y = torch.matmul(rows, weight.transpose(1, 2))
    if bias:
        y = y + weights[:, inputs * outputs :].unsqueeze(1)
    return y.reshape([-1] + list(x.shape[1:-1]) + [outputs])  # noqa: RUF005 - TorchScript knows no unpacking


def lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    draws: Tensor,
    seed: Tensor,
    mu: Tensor,
    sigma: Tensor,
    site: int,
    inputs: int,
    hidden: int,
    shared: bool,
    state_shared: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """BayesianLSTM: x [·, T, F], h and c [·, H] -> the sequence [S·B, T, H] and the last h and c [S·B, H].

    Posterior: weight_ih [F, 4H], weight_hh [H, 4H], bias [4H], gates in the order input, forget, cell, output.
    """
    count, steps = draws.size(0), x.size(1)
    weights = sample_weights(draws, seed, mu, sigma, site)
    split = inputs * 4 * hidden
    weight_ih = weights[:, :split].reshape(count, inputs, 4 * hidden)
    weight_hh = weights[:, split : split + 4 * hidden * hidden].reshape(count, hidden, 4 * hidden)
    bias = weights[:, split + 4 * hidden * hidden :].unsqueeze(1)
    x = x.reshape(1 if shared else count, -1, steps, inputs)
    batch = x.size(1)
    h = h.reshape(1 if state_shared else count, batch, hidden).expand(count, batch, hidden)
    c = c.reshape(1 if state_shared else count, batch, hidden).expand(count, batch, hidden)
    sequence: list[Tensor] = []
    for t in range(steps):
        gates = torch.baddbmm(torch.matmul(x[:, :, t], weight_ih) + bias, h, weight_hh)
        i, f, g, o = torch.chunk(gates, 4, dim=2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        sequence.append(h)
    out = torch.stack(sequence, dim=2)
    return out.reshape(-1, steps, hidden), h.reshape(-1, hidden), c.reshape(-1, hidden)


def gru(
    x: Tensor,
    h: Tensor,
    draws: Tensor,
    seed: Tensor,
    mu: Tensor,
    sigma: Tensor,
    site: int,
    inputs: int,
    hidden: int,
    shared: bool,
    state_shared: bool,
) -> tuple[Tensor, Tensor]:
    """BayesianGRU: x [·, T, F], h [·, H] -> the sequence [S·B, T, H] and the last h [S·B, H].

    Posterior: weight_ih [F, 3H], weight_hh [H, 3H], bias [4H], in the order reset, update, new; the bias of the new
    gate comes twice, for the input's part and for the state's.
    """
    count, steps = draws.size(0), x.size(1)
    weights = sample_weights(draws, seed, mu, sigma, site)
    split = inputs * 3 * hidden
    weight_ih = weights[:, :split].reshape(count, inputs, 3 * hidden)
    weight_hh = weights[:, split : split + 3 * hidden * hidden].reshape(count, hidden, 3 * hidden)
    bias = weights[:, split + 3 * hidden * hidden :].unsqueeze(1)
    x = x.reshape(1 if shared else count, -1, steps, inputs)
    batch = x.size(1)
    h = h.reshape(1 if state_shared else count, batch, hidden).expand(count, batch, hidden)
    sequence: list[Tensor] = []
    for t in range(steps):
        from_x = torch.matmul(x[:, :, t], weight_ih) + bias[:, :, : 3 * hidden]
        from_h = torch.matmul(h, weight_hh)
        r, z = torch.chunk(torch.sigmoid(from_x[:, :, : 2 * hidden] + from_h[:, :, : 2 * hidden]), 2, dim=2)
        n = torch.tanh(from_x[:, :, 2 * hidden :] + r * (from_h[:, :, 2 * hidden :] + bias[:, :, 3 * hidden :]))
        h = (1 - z) * n + z * h
        sequence.append(h)
    out = torch.stack(sequence, dim=2)
    return out.reshape(-1, steps, hidden), h.reshape(-1, hidden)


def summary(samples: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and std [B, …] over the draws, and the ends of the central intervals [K, B, …], of samples [S, B, …].

    The ends are the sample quantiles (1 ∓ level) / 2 with linear interpolation, as numpy.quantile.
    """
    mean = samples.mean(dim=0)
    std = samples.std(dim=0)
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
    return mean, std, ends[0], ends[1]
