"""BLiTZ's classes pasted into a project, whole.

The module base, the sampler, the prior and the layers stand in the project's own file, under BLiTZ's names, and nothing
is imported from BLiTZ. Such layers are recognised by what they hold, and proven like all others.
"""

import torch
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, 5]",)


class BayesianModule(nn.Module):
    pass


class TrainableRandomDistribution(nn.Module):
    def __init__(self, mu, rho):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.rho = nn.Parameter(rho)
        self.register_buffer("eps_w", torch.zeros(mu.shape))
        self.sigma, self.w = None, None

    def sample(self):
        self.eps_w.data.normal_()
        self.sigma = torch.log1p(torch.exp(self.rho))
        self.w = self.mu + self.sigma * self.eps_w
        return self.w

    def log_posterior(self):
        return torch.distributions.Normal(self.mu, self.sigma).log_prob(self.w).sum()


class PriorWeightDistribution(nn.Module):
    def __init__(self, sigma):
        super().__init__()
        self.dist = torch.distributions.Normal(0, sigma)

    def log_prior(self, w):
        return self.dist.log_prob(w).sum()


class BayesianLinear(BayesianModule):
    def __init__(self, in_features, out_features, bias=True, prior_sigma_1=0.1, posterior_rho_init=-3.0):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        self.freeze = False
        self.weight_mu = nn.Parameter(torch.randn(out_features, in_features) * 0.1)
        self.weight_rho = nn.Parameter(posterior_rho_init + torch.randn(out_features, in_features) * 0.1)
        self.weight_sampler = TrainableRandomDistribution(self.weight_mu, self.weight_rho)
        self.bias_mu = nn.Parameter(torch.randn(out_features) * 0.1)
        self.bias_rho = nn.Parameter(posterior_rho_init + torch.randn(out_features) * 0.1)
        self.bias_sampler = TrainableRandomDistribution(self.bias_mu, self.bias_rho)
        self.weight_prior_dist = PriorWeightDistribution(prior_sigma_1)
        self.bias_prior_dist = PriorWeightDistribution(prior_sigma_1)
        self.log_prior, self.log_variational_posterior = 0, 0

    def forward(self, x):
        if self.freeze:
            return nn.functional.linear(x, self.weight_mu, self.bias_mu if self.bias else None)
        w = self.weight_sampler.sample()
        b = self.bias_sampler.sample() if self.bias else torch.zeros(self.out_features)
        self.log_variational_posterior = self.weight_sampler.log_posterior()
        self.log_prior = self.weight_prior_dist.log_prior(w)
        if self.bias:
            self.log_variational_posterior += self.bias_sampler.log_posterior()
            self.log_prior += self.bias_prior_dist.log_prior(b)
        return nn.functional.linear(x, w, b)


class Pasted(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = BayesianLinear(5, 12), BayesianLinear(12, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


SHOWN = (BayesianLinear.forward,)


def network():
    return Pasted()


def example():
    return torch.randn(7, 5)
