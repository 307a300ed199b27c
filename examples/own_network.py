"""A network of your own: any torch module with BLiTZ layers trains, exports and predicts like murho's.

Run: python examples/own_network.py. Needs the train extra; takes about half a minute.
"""

import torch
from blitz.modules import BayesianGRU, BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

import murho
from murho.export import to_onnx
from murho.train import builtin_series, fit, prepare


@variational_estimator
class GruForecaster(nn.Module):
    """Two layers that sample their weights, and two of torch's own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = BayesianGRU(1, 8, prior_sigma_1=1, posterior_rho_init=-3.0)
        self.norm = nn.LayerNorm(8)
        self.head = BayesianLinear(8, 1, prior_sigma_1=1, posterior_rho_init=-3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, _ = self.gru(x)
        return self.head(torch.relu(self.norm(sequence[:, -1])))


def main() -> None:
    data = prepare(builtin_series(), window=10, values="differences")
    network = GruForecaster()
    fit(network, data, epochs=5)
    card = to_onnx(network, "gru.onnx", example=data.train.x[:32], scaling=data.scaling)
    print(f"proven: within {card.verification['exact']['largest_error']:.1e} of BLiTZ at equal noise")
    answer = murho.load("gru.onnx").predict(data.test.x[:3], draws=500, level=[0.8, 0.95])
    print(answer.to_frame(data.test.dates[:3]))


if __name__ == "__main__":
    main()
