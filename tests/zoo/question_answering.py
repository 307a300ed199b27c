"""Question answering: where the answer starts and ends.

A context and a question, read by the same embedding and attended to each other; two outputs, a
score for each word, so their length is fixed for calibration unless `free=` says otherwise.
"""

import torch
from blitz.modules import BayesianEmbedding, BayesianGRU, BayesianLinear
from torch import nn

GROUP = "Text"
OPTIONS = {"outputs": ("start", "end")}
INPUTS = ("context [B, 14]", "question [B, T]")
NOTES = ("Axis 1 of context is fixed at 14, the example's length: at 17 the network's start has 17 values",)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = BayesianEmbedding(60, 8, posterior_rho_init=-3.0)
        self.reader = BayesianGRU(8, 8, posterior_rho_init=-3.0)
        self.start = BayesianLinear(16, 1, posterior_rho_init=-3.0)
        self.end = BayesianLinear(16, 1, posterior_rho_init=-3.0)

    def forward(self, context, question):
        words, _ = self.reader(self.embedding(context))
        _, asked = self.reader(self.embedding(question))
        scores = torch.softmax(torch.bmm(words, asked.unsqueeze(2)), dim=1)
        joined = torch.cat([words, scores * asked.unsqueeze(1)], dim=-1)
        return self.start(joined).squeeze(-1), self.end(joined).squeeze(-1)


def network():
    return Reader()


def example():
    return torch.randint(0, 60, (5, 14)), torch.randint(0, 60, (5, 14))
