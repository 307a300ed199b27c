"""murho inside another application: load once, ask from any thread, get plain numbers back.

Run: python examples/embed.py demo-output/model.onnx. Needs the base install only.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import murho


class Forecaster:
    """What a service would keep: one model, shared by its request threads."""

    def __init__(self, path: str) -> None:
        self._model = murho.load(path, threads=1)  # one thread a request; the service has its own
        self.window = self._model.card.training["window"]

    def interval(self, history: list[float]) -> dict[str, float]:
        """The next value, the first of those that the artifact forecasts."""
        x = np.asarray(history[-self.window :], np.float32).reshape(1, -1, 1)
        answer = self._model.predict(x, draws=256, level=0.95, seed=0)
        return {name: float(getattr(answer, name)[0, 0]) for name in ("mean", "lower", "upper")}


def main() -> None:
    service = Forecaster(sys.argv[1])
    history = list(100 + np.cumsum(np.random.default_rng(0).normal(size=60)))
    with ThreadPoolExecutor(4) as requests:
        for answer in requests.map(lambda n: service.interval(history[: service.window + n]), range(8)):
            print({name: round(value, 3) for name, value in answer.items()})


if __name__ == "__main__":
    main()
