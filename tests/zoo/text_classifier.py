"""A text classifier.

Tokens [B, T], embedded, read by an LSTM. A token beyond the embedding is refused when the file is asked.
"""

import torch
from blitz.modules import BayesianEmbedding, BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Text"
OPTIONS = {"task": "classification"}
INPUTS = ("x [B, T]",)


class TextClassifier(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = BayesianEmbedding(vocabulary, 6, posterior_rho_init=-3.0)
        self.lstm = BayesianLSTM(6, 8, posterior_rho_init=-3.0)
        self.fc = BayesianLinear(8, 3, posterior_rho_init=-3.0)

    def forward(self, tokens):
        out, _ = self.lstm(self.embedding(tokens))
        return self.fc(out[:, -1])


def network():
    return TextClassifier(50)


def example():
    return torch.randint(0, 50, (6, 12))
