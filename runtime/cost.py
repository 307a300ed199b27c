"""What an artifact costs: the time of a prediction, and the memory of a process that makes it, in a process of its own.

Run by `measured`: python -m murho.runtime.cost ARTIFACT DRAWS ROWS…
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import ArtifactError
from .model import load
from .typical import typical_inputs

_MOST_CALLS, _LEAST_SECONDS, _MOST_SECONDS = 15, 0.5, 20.0  # of each number of rows


@dataclass(frozen=True)
class Cost:
    """One prediction, and all that the process needs for it."""

    draws: int
    rows: int
    milliseconds: float
    mebibytes: float | None
    """The most memory that a process had, from its start, numpy and the engine included; None where nobody tells."""


def measured(artifact: Path, draws: int, rows: Iterable[int]) -> tuple[Cost, ...]:
    """Predict in a new process, more rows after fewer. Raises ArtifactError, saying why, where that fails."""
    command = [sys.executable, "-P", "-W", "ignore", "-m", __spec__.name, str(artifact), str(draws), *map(str, rows)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ArtifactError(f"No process could be started to measure it: {error}.") from error
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
        raise ArtifactError(f"The process that measured it failed: {last[0]}")
    return tuple(Cost(**cost) for cost in json.loads(run.stdout))


def _measure(artifact: str, draws: int, rows: Iterable[int]) -> list[dict[str, float | None]]:
    model = load(artifact, trusted=True)
    costs = []
    for count in rows:
        inputs = typical_inputs(model.card, count)
        x = inputs if len(inputs) > 1 else inputs[0]
        times: list[float] = []
        while not _settled(times):
            start = time.perf_counter()
            model.predict(x, draws, seed=len(times))  # another seed each time: nothing that was kept helps
            times.append(time.perf_counter() - start)
        costs.append({"draws": draws, "rows": count, "milliseconds": 1000 * min(times), "mebibytes": _peak()})
    return costs


def _settled(times: list[float]) -> bool:
    """Whether enough calls were timed: torch compiles in the first ones of a shape, and the runtime tries chunks."""
    if sum(times) > _MOST_SECONDS or len(times) == _MOST_CALLS:
        return True
    return sum(times) > _LEAST_SECONDS and len(times) > 2 and max(times[-2:]) < 1.5 * min(times)


def _peak() -> float | None:
    """Largest resident memory of this process so far, in MiB; Linux says it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    path, draws, *rows = sys.argv[1:]
    print(json.dumps(_measure(path, int(draws), map(int, rows))))
