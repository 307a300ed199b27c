"""Write docs/online.json: test vectors of the online update, for hosts in other languages. Plain Python, no package.

Run: python benchmarks/online_vectors.py
"""

import json
import math
import random
from pathlib import Path

STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SHARE, BOUND = 1 / 500, 3.0


def factors(scores: list[float], level: float) -> list[float]:
    """The factor after each score, for one level and output; docs/design.md, "Online"."""
    m = len(STEPS)
    theta, w, found = [0.0] * m, [1 / m] * m, []
    for score in scores:
        u = math.log(max(score, 1e-9))
        for i in range(m):
            off = min(abs(u - theta[i]), 2 * BOUND)
            w[i] *= math.exp(-(level if u > theta[i] else 1 - level) * off)
        total = sum(w)
        for i in range(m):
            w[i] = (1 - SHARE) * w[i] / total + SHARE / m
            theta[i] += STEPS[i] * ((1.0 if u > theta[i] else 0.0) - (1 - level))
            theta[i] = min(BOUND, max(-BOUND, theta[i]))
        found.append(math.exp(sum(w[i] * theta[i] for i in range(m))))
    return found


def main() -> None:
    generator = random.Random(0)
    cases = []
    for level in (0.5, 0.8, 0.95):
        scores = [round(math.exp(generator.gauss(0.3, 1.0)), 4) for _ in range(20)]
        cases.append({"level": level, "scores": scores, "factors": factors(scores, level)})
    path = Path(__file__).parents[1] / "docs" / "online.json"
    path.write_text(json.dumps({"steps": STEPS, "share": SHARE, "bound": BOUND, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
