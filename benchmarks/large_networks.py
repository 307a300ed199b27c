"""Peak memory of networks of 6.3 million random weights: exported with the proof, then asked for 1000 draws.

Run: python benchmarks/large_networks.py [--networks …] [--formats …] [--write docs/benchmark.md], on Linux. Every
export and every prediction is a process of its own, and fails above 4 GiB. With --write, what was measured before of
other networks and formats stays.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from memory import peak
from studies import read_sections, write_section

import murho

MOST = 4096
"""MiB of a process."""
FORMATS = {"onnx": "onnx", "torchscript": "pt", "pt2": "pt2"}
ROW = "| {network}, {weights} weights | {format} |"


def networks() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """How each is made, with weights as large as training leaves them, and its example."""
    import torch  # here, so that a process that predicts stays without it
    from blitz.modules import BayesianConv2d, BayesianEmbedding, BayesianLinear, BayesianLSTM
    from cases import Forward
    from torch import nn

    sigma = {"posterior_rho_init": -4.0}

    def scaled(network: nn.Module) -> nn.Module:
        """BLiTZ starts weights within 0.2 whatever a layer's width, which explodes over such layers."""
        with torch.no_grad():
            for name, mu in network.named_parameters():
                if name.endswith("_sampler.mu") and mu.dim() > 1:
                    mu.mul_(5 * (2 / mu[0].numel()) ** 0.5)
        return network

    def alexnet() -> nn.Module:
        layers: list[nn.Module] = []
        channels = 3
        for filters, stride in ((64, 2), (0, 0), (192, 1), (0, 0), (384, 1), (256, 1), (256, 1), (0, 0)):
            if filters:
                layers += [BayesianConv2d(channels, filters, (3, 3), stride=stride, padding=1, **sigma), nn.ReLU()]
                channels = filters
            else:
                layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), BayesianLinear(1024, 2048, **sigma), nn.ReLU()]
        layers += [BayesianLinear(2048, 952, **sigma), nn.ReLU(), nn.Linear(952, 10)]
        return scaled(nn.Sequential(*layers))

    def mlp() -> nn.Module:
        layers = [BayesianLinear(*sizes, **sigma) for sizes in ((64, 2048), (2048, 2048), (2048, 962))]
        return scaled(nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Linear(962, 1)))

    def lstm() -> nn.Module:
        def forward(net: Any, x: torch.Tensor) -> Any:
            return net.head(net.lstm(x)[0][:, -1])

        return scaled(Forward(forward, lstm=BayesianLSTM(256, 1134, **sigma), head=nn.Linear(1134, 1)))

    def embedding() -> nn.Module:
        def forward(net: Any, x: torch.Tensor) -> Any:
            return net.head(net.embedding(x).mean(dim=1))

        parts = {"embedding": BayesianEmbedding(98_500, 64, **sigma), "head": BayesianLinear(64, 2, **sigma)}
        return Forward(forward, **parts)

    return {
        "AlexNet for 32 × 32": (alexnet, lambda: torch.randn(4, 3, 32, 32)),
        "an MLP": (mlp, lambda: torch.randn(8, 64)),
        "an LSTM": (lstm, lambda: torch.randn(8, 12, 256)),
        "embeddings": (embedding, lambda: torch.randint(98_500, (8, 20))),
    }


NAMES = ("AlexNet for 32 × 32", "an MLP", "an LSTM", "embeddings")


def export(name: str, format: str, path: Path) -> None:
    import torch

    import murho.export

    torch.manual_seed(0)
    build, example = networks()[name]
    network, x = build(), example()
    began = perf_counter()
    task = "classification" if x.dim() == 4 else "regression"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        card = getattr(murho.export, f"to_{format}")(network, path, x, task=task)
    weights = sum(site.n for site in card.sites)
    print(f"{ROW.format(network=name, weights=f'{weights:,}', format=format)} {perf_counter() - began:.0f} s", end="")
    check()


def predict(path: Path, draws: int) -> None:
    began = perf_counter()
    model = murho.load(path, trusted=True)
    shape = [size or 12 for size in model.card.input.shape[1:]]
    answer = model.predict(np.ones((1, *shape), model.card.input.dtype), draws=draws)
    assert np.isfinite(answer.upper).all()
    print(f" | {draws} draws: {perf_counter() - began:.0f} s", end="")
    check()


def check() -> None:
    most = peak()
    print(f", {most / 1024:.1f} GiB", end="")
    assert most < MOST, f"{most:.0f} MiB are more than {MOST}"


def key(row: str) -> str:
    """Network and format of a row."""
    return "|".join(row.split("|")[1:3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--path", type=Path, help="export to this file in this process, or predict from it")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    arguments = parser.parse_args()
    if arguments.path:
        if arguments.predict:
            predict(arguments.path, arguments.draws)
        else:
            export(arguments.networks[0], arguments.formats[0], arguments.path)
        return
    head = [
        "`python benchmarks/large_networks.py`: time, and peak of the process, of an export with its proof, and of a",
        "prediction for one row in another process. At most 4 GiB are allowed.\n",
        "| network | format | export | prediction |",
        "|---|---|---|---|",
    ]
    _, sections = read_sections(arguments.write) if arguments.write else ("", {})
    title = "Large networks"
    rows = {
        row.split("|")[1] + row.split("|")[2]: row for row in sections.get(title, "").splitlines() if "weights" in row
    }
    for name in arguments.networks:
        for format in arguments.formats:
            with tempfile.TemporaryDirectory() as folder:
                common = [sys.executable, __file__, "--path", f"{folder}/large.{FORMATS[format]}"]
                given = ["--networks", name, "--formats", format, "--draws", str(arguments.draws)]
                row = ""
                for more in ([], ["--predict"]):
                    run = subprocess.run([*common, *given, *more], stdout=subprocess.PIPE, text=True, check=True)
                    row += run.stdout
                    print(run.stdout, end="", flush=True)
            row += " |"
            rows[key(row)] = row
            write_section(arguments.write, title, "\n".join([*head, *sorted(rows.values())]), head="# Benchmark")


if __name__ == "__main__":
    main()
