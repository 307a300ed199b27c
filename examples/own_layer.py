"""A Bayesian layer of your own: teach murho what it computes from given weights, and it exports like BLiTZ's.

Run: python examples/own_layer.py. Needs the train extra; takes about twenty seconds.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.modules.base_bayesian_module import BayesianModule
from blitz.modules.weight_sampler import TrainableRandomDistribution
from torch import Tensor, nn

import murho
from murho.export import register_layer, to_onnx


class BayesianScale(BayesianModule):
    """Multiplies each feature by a random factor of its own."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.freeze = False
        self.weight_mu = nn.Parameter(torch.ones(features))
        self.weight_rho = nn.Parameter(torch.full((features,), -1.0))
        self.weight_sampler = TrainableRandomDistribution(self.weight_mu, self.weight_rho)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight_sampler.sample()


@register_layer(BayesianScale, tensors=["weight"])
def scale(layer: BayesianScale, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return x * weights["weight"].unsqueeze(1)  # [S, B, F] * [S, 1, F]


def main() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(BayesianScale(3), BayesianLinear(3, 1, posterior_rho_init=-3.0))
    card = to_onnx(network, "scale.onnx", example=torch.randn(32, 3))
    print(f"proven: within {card.verification['exact']['largest_error']:.1e} of the layer's own forward pass")
    print(murho.load("scale.onnx").predict(torch.randn(3, 3).numpy(), draws=500).to_frame())


if __name__ == "__main__":
    main()
