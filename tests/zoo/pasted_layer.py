"""One of BLiTZ's layers pasted into a project.

The layer stands in the project's own file, changed a little, and takes BLiTZ's sampler and prior. So does an LSTM.
"""

import torch
from blitz.modules.base_bayesian_module import BayesianModule
from blitz.modules.weight_sampler import PriorWeightDistribution, TrainableRandomDistribution
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, T, 2]",)


def sampler(*shape):
    return TrainableRandomDistribution(torch.randn(shape) * 0.1, torch.full(shape, -3.0))


class BayesianLinear(BayesianModule):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.in_features, self.out_features, self.bias, self.freeze = in_features, out_features, True, False
        self.weight_sampler, self.bias_sampler = sampler(out_features, in_features), sampler(out_features)
        self.weight_prior_dist, self.bias_prior_dist = PriorWeightDistribution(1, 0.1), PriorWeightDistribution(1, 0.1)
        self.log_prior, self.log_variational_posterior = 0, 0

    def forward(self, x):
        w, b = self.weight_sampler.sample(), self.bias_sampler.sample()
        self.log_variational_posterior = self.weight_sampler.log_posterior() + self.bias_sampler.log_posterior()
        self.log_prior = self.weight_prior_dist.log_prior(w) + self.bias_prior_dist.log_prior(b)
        return x @ w.T + b


class BayesianLSTM(BayesianModule):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.use_bias, self.freeze, self.peephole = True, False, False
        self.weight_ih_sampler = sampler(in_features, 4 * out_features)
        self.weight_hh_sampler = sampler(out_features, 4 * out_features)
        self.bias_sampler = sampler(4 * out_features)
        self.log_prior, self.log_variational_posterior = 0, 0

    def forward(self, x, hidden_states=None):
        w_ih, w_hh, bias = (
            self.weight_ih_sampler.sample(),
            self.weight_hh_sampler.sample(),
            self.bias_sampler.sample(),
        )
        if hidden_states is None:
            h = c = torch.zeros(x.size(0), self.out_features)
        else:
            h, c = hidden_states
        sequence = []
        for t in range(x.size(1)):
            i, f, g, o = (x[:, t] @ w_ih + h @ w_hh + bias).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            sequence.append(h)
        return torch.stack(sequence, dim=1), (h, c)


class PastedRecurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = BayesianLSTM(2, 6), BayesianLinear(6, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


SHOWN = (BayesianLinear.forward,)


def network():
    return PastedRecurrent()


def example():
    return torch.randn(6, 8, 2)
