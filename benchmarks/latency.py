"""How fast an interval is: murho beside BLiTZ's loop, torch.compile, PyTorch batched by hand and ONNX's own random
numbers, on six networks. Every timed result is checked.

Run: python benchmarks/latency.py [--quick] [--only NETWORK] [--json latency.json] [--png latency.png]
[--write docs/benchmark.md]. All of it takes over half an hour of 2 idle cores. With --only, the networks in an
existing JSON file are replaced, and the others kept. docs/benchmark.md says how it is measured.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from latency_page import printed, write_page
from latency_picture import draw
from networks import SUBJECTS, Made, make
from numpy.typing import NDArray
from rich.progress import Progress
from sameness import Pool, apart, draws_needed
from systems import ENTRIES, REFERENCE, Entry, System, Unusable

from murho import Intervals, MurhoError
from murho.cli import bench
from murho.cli.tables import console, write_json
from murho.runtime.planner import VECTOR
from murho.runtime.typical import typical_inputs

LONGEST = 4.0  # seconds of a call; where one would take longer, fewer draws are evaluated and the time is scaled
FEWEST_PASSES, FEWEST_ROUNDS, LOOP_ROUNDS = 16, 3, 5
WHOLE = 2 * VECTOR  # draws of a scaled call are a multiple of it, so that two threads have whole vectors
TRIAL = {True: 8, False: 100}  # draws of a first call that says how long one takes: of a loop, of others
MOST_ERRORS = 7  # a difference of so many Monte-Carlo standard errors is beyond chance
SHARE = 0.02  # of the interval's width: the standard error of its ends that time is told for
NEED_ROWS = 8
TIMES = 4  # so many times the draws show whether time is proportional to them


@dataclass(frozen=True)
class Effort:
    batches: list[int]
    draws: list[int]
    rounds: int
    seconds: float
    """For each system and shape; slow ones take more, FEWEST_ROUNDS calls."""
    need_draws: int
    linear: dict[bool, int]
    """Draws of the check that time is proportional to them, the fewer ones: of loops, of others."""


FULL = Effort([1, 64, 1024], [100, 1000], 25, 1.0, 16_384, {True: 50, False: 200})
QUICK = Effort([1, 64], [100], 3, 0.2, 2048, {True: 4, False: 16})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in minutes, without torch.compile: no figures")
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="a network; may be repeated")
    parser.add_argument("--systems", choices=ENTRIES, nargs="+", help="murho's ONNX is always there, to compare with")
    parser.add_argument("--batches", type=int, nargs="+", help="rows of a call")
    parser.add_argument("--draws", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, help="timed calls of each system, at most")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--png", type=Path, help="draw the results")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    parser.add_argument("--read", type=Path, help="take the results from this JSON file in place of measuring")
    options = parser.parse_args()
    results = json.loads(options.read.read_text(encoding="utf-8")) if options.read else measured(options)
    if options.png:
        draw(results, options.png)
    if options.write:
        write_page(options.write, results, options.png)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    usual = QUICK if options.quick else FULL
    effort = replace(
        usual,
        batches=sorted(options.batches or usual.batches),
        draws=sorted(options.draws or usual.draws),
        rounds=options.rounds or usual.rounds,
    )
    wanted = options.systems or [key for key in ENTRIES if key != "compile" or not options.quick]
    results: dict[str, Any] = {"runs": [], "environment": environment(), "networks": {}, "linear": {}}
    if options.only and options.json and options.json.exists():
        results |= json.loads(options.json.read_text(encoding="utf-8"))
    run: dict[str, Any] = {"command": shlex.join(["python", *sys.argv])}
    results["runs"].append(run)
    torch.manual_seed(0)
    began = time.monotonic()
    for name in options.only or SUBJECTS:
        subject = SUBJECTS[name]
        console.rule(subject.title)
        with tempfile.TemporaryDirectory() as folder:
            with console.status("Training, exporting and proving …"):
                made = make(subject, Path(folder))
            entries = {ENTRIES[key].name: ENTRIES[key] for key in ENTRIES if key in (*wanted, "onnx")}
            entries = {key: entry for key, entry in entries.items() if not entry.local or "local.onnx" in made.models}
            network = Network(made, entries, effort)
            found = network.measured()
            results["networks"][name] = {"title": subject.title, **found}
            results["networks"] = {key: results["networks"][key] for key in SUBJECTS if key in results["networks"]}
            if not results["linear"]:
                results["linear"] = {"title": subject.title, **network.linear()}
        console.print(printed(found["results"]))
        run["minutes"] = (time.monotonic() - began) / 60
        if options.json:
            write_json(options.json, results)  # after each network: a long run may be cut short
    return results


@dataclass
class Network:
    """One network's systems."""

    made: Made
    entries: dict[str, Entry]
    effort: Effort

    def __post_init__(self) -> None:
        self._systems = {name: entry.make(self.made) for name, entry in self.entries.items()}

    def measured(self) -> dict[str, Any]:
        card = self.made.models["weights.onnx"].card
        rows: list[dict[str, Any]] = []
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=len(self.effort.batches) * len(self.effort.draws))
            for batch in self.effort.batches:
                x = typical_inputs(card, batch)[0]
                seconds: dict[str, float] = {}  # of a draw
                for draws in self.effort.draws:
                    progress.update(task, description=f"{batch} rows, {draws} draws")
                    usable, settings = self._prepared(x, draws, rows)
                    for name, system in usable.items():
                        if name not in seconds:
                            seconds[name] = _seconds_per_draw(system, x, draws)
                    found = self._shape(usable, x, draws, seconds)
                    rows += [{**row, "setting": settings[row["system"]]} for row in found]
                    rows.sort(key=self._order)
                    progress.advance(task)
        need, error = draws_needed(self._many(), SHARE)
        return {
            "weights": sum(site.n for site in card.sites),
            "draws_needed": {"share": SHARE, "draws": need, "standard_error": error},
            "results": rows,
        }

    def _order(self, row: dict[str, Any]) -> tuple[int, int, int]:
        return row["rows"], row["draws"], list(self.entries).index(row["system"])

    def _prepared(
        self, x: NDArray[Any], draws: int, rows: list[dict[str, Any]]
    ) -> tuple[dict[str, System], dict[str, str]]:
        """The systems that work for a shape, and what they chose; for the others a row each that says why not."""
        usable, settings = {}, {}
        for name, system in self._systems.items():
            try:
                settings[name] = system.prepare(x, draws)
                usable[name] = system
            except Unusable as problem:
                rows.append({"rows": len(x), "draws": draws, "system": name, "problem": str(problem)})
        return usable, settings

    def _shape(
        self, systems: dict[str, System], x: NDArray[Any], draws: int, seconds: dict[str, float]
    ) -> list[dict[str, Any]]:
        """Rows of the table for one shape; `seconds` of a draw are brought up to date."""
        evaluated = {name: self._evaluated(system, draws, seconds[name]) for name, system in systems.items()}
        turns, short = {}, {}
        for name, system in systems.items():
            call = seconds[name] * evaluated[name]
            most = min(LOOP_ROUNDS, self.effort.rounds) if system.loops else self.effort.rounds
            turns[name] = min(most, max(FEWEST_ROUNDS, int(self.effort.seconds / call)))
            if call < self.effort.seconds / 4:
                short[name] = system
        calls = {name: _of(system, evaluated[name]) for name, system in systems.items()}
        bench.warm_up({name: calls[name] for name in short if not systems[name].loops}, x, draws)
        pools = {name: Pool() for name in systems}

        def pool(name: str, answer: Intervals) -> None:
            if self.entries[name].fresh or not pools[name].count:
                pools[name].add(answer.samples)

        times, answers = bench.timed(calls, turns, x, draws, pool, settled=short)
        for name, values in times.items():
            seconds[name] = float(np.median(values)) / 1000 / evaluated[name]
            times[name] = [value * draws / evaluated[name] for value in values]
        loops = [float(np.median(times[name])) for name in systems if self.entries[name].baseline]
        return [
            {
                **row,
                "evaluated_draws": evaluated[row["system"]],
                "errors_apart": self._checked(row["system"], answers, pools, x),
            }
            for row in bench.rows(times, len(x), draws, min(loops) if loops else None)
        ]

    def _evaluated(self, system: System, draws: int, seconds: float) -> int:
        """Draws of a timed call: all, unless those of a loop, or of a call that takes very long."""
        if system.loops:
            return min(draws, max(FEWEST_PASSES, int(self.effort.seconds / LOOP_ROUNDS / seconds)))
        few = draws
        while few > TRIAL[False] and few * seconds > LONGEST:
            few = -(-few // 2 // WHOLE) * WHOLE
        return few

    def _checked(
        self, name: str, answers: dict[str, Intervals], pools: dict[str, Pool], x: NDArray[Any]
    ) -> float | None:
        """Standard errors between a system and murho's ONNX; that one is compared with BLiTZ draw by draw.

        Raises MurhoError where an artifact of murho, or BLiTZ's loop, is wrong.
        """
        entry = self.entries[name]
        if entry.ours:
            bench.check_at_equal_noise(
                self.made.models["weights.onnx"].card, answers[name], self.made.loop, x, entry.local
            )
        if entry is REFERENCE:
            return None
        errors = apart(pools[name], pools[REFERENCE.name])
        if (entry.ours or entry.baseline) and not errors <= MOST_ERRORS:
            raise MurhoError(f"{name} is {errors:.1f} standard errors from {REFERENCE.name}: beyond chance.")
        return errors

    def _many(self) -> NDArray[np.float32]:
        """Samples [S, B, …] of a few rows, from the artifact that is faster at them."""
        model = self.made.models.get("local.onnx", self.made.models["weights.onnx"])
        return model.samples(typical_inputs(model.card, NEED_ROWS)[0], self.effort.need_draws)

    def linear(self) -> dict[str, Any]:
        """How many times longer TIMES the draws take, at the largest batch."""
        x = typical_inputs(self.made.models["weights.onnx"].card, self.effort.batches[-1])[0]
        systems, _ = self._prepared(x, TIMES * self.effort.linear[False], [])
        ratios = {}
        for name, system in systems.items():
            few = self.effort.linear[system.loops]
            many = TIMES * few
            calls: dict[str, bench.System] = {f"{n}": _of(system, n) for n in (few, many)}
            bench.warm_up({} if system.loops else calls, x, many)
            times, _ = bench.timed(calls, dict.fromkeys(calls, FEWEST_ROUNDS), x, many)
            ratios[name] = float(np.median(times[f"{many}"]) / np.median(times[f"{few}"]))
        return {"rows": len(x), "times_the_draws": TIMES, "times_the_time": ratios}


def _of(system: System, evaluated: int) -> bench.System:
    return lambda x, draws, seed: system(x, evaluated, seed)


def _seconds_per_draw(system: System, x: NDArray[Any], draws: int) -> float:
    trial = min(draws, TRIAL[system.loops])
    took = []
    for seed in range(2):
        if not took or took[0] < LONGEST / 10:  # the first call allocates, which matters where it is short
            start = time.perf_counter()
            system(x, trial, seed)
            took.append(time.perf_counter() - start)
    return took[-1] / trial


if __name__ == "__main__":
    main()
