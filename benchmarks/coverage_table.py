"""The table of benchmarks/coverage.py over seven real series; runs those that have no result yet.

Run: python benchmarks/coverage_table.py [--data ../shared/data] [--results coverage-output] [--write docs/coverage.md].
A series takes some minutes of one core.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from murho.evaluation import TUTORIAL

# name: (file, column, what the network reads); prices and rates are read as returns
SERIES = {
    "IBM": ("stocks/IBM_2006-01-01_to_2018-01-01.csv", "Close", "returns"),
    "AMZN": ("stocks/AMZN_2006-01-01_to_2018-01-01.csv", "Close", "returns"),
    "S&P 500": ("stocks/sp500.csv.gz", "Close", "returns"),
    "exchange rate 0": ("forecast/exchange_rate.txt.gz", "0", "returns"),
    "exchange rate 3": ("forecast/exchange_rate.txt.gz", "3", "returns"),
    "ETTh1 oil temperature": ("forecast/ETTh1.csv", "OT", "differences"),
    "sea temperature": ("sensors/sea_surface_temperature.csv.gz", "temperature (celsius)", "differences"),
}
DRIFTING = ("IBM", "AMZN")  # prices that leave the range they were trained on
LEVELS = ("0.8", "0.9", "0.95")
OURS = ("murho, not calibrated", "murho, split", "murho, online")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--results", type=Path, default=Path("coverage-output"))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", action="append", choices=SERIES, help="may be repeated")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    reports = {}
    for name in arguments.only or SERIES:
        path = arguments.results / f"{name}.json"
        if not path.exists():
            run(name, arguments.data, path)
        if path.exists():
            reports[name] = json.loads(path.read_text())
    drift = {}
    for name in DRIFTING if not arguments.only else ():
        for values in ("levels", "differences", "returns"):
            path = arguments.results / f"{name}, {values}.json"
            if not path.exists():
                run(name, arguments.data, path, values)
            if path.exists():
                drift[name, values] = json.loads(path.read_text())
    text = page(reports, drift)
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


def run(name: str, data: Path, path: Path, other_values: str | None = None) -> None:
    """Run the protocol on a series; with other values than its usual ones the same network, and no other method."""
    file, column, values = SERIES[name]
    source = data / file
    if not source.exists():
        print(f"{name}: skipped, {source} is not there.")
        return
    table = pd.read_csv(source, header=None if ".txt" in file else 0)  # the rates have no header: columns are numbered
    if file.startswith("sensors"):  # the buoy sent one moment twice
        table = table.drop_duplicates(subset=table.columns[0])
    source = path.with_suffix(".csv")
    table.to_csv(source, index=False)
    script = Path(__file__).with_name("coverage.py")
    options = ["--horizon", "7", "--values", other_values or values, "--name", name, "--json", str(path)]
    options += ["--quick", "--network", "lstm"] if other_values else []
    subprocess.run([sys.executable, script, "--csv", source, "--target", column, *options], check=True)


def page(reports: dict[str, Any], drift: dict[tuple[str, str], Any]) -> str:
    lines = [
        "# Do the intervals cover what they say?",
        "",
        "`python benchmarks/coverage_table.py --write docs/coverage.md`, which runs `benchmarks/coverage.py` on each "
        "series: trained on the first 60 %, calibrated on the next 15 %, tested on the last 25 %, seven steps ahead, "
        "256 draws. All methods forecast the same windows and are calibrated by the same rule, BLiTZ's tutorial "
        "excepted, which has none. Prices and rates are read as returns by a Bayesian LSTM with Student-t noise; "
        "for the sensors the network is taken whose intervals score best on the rows that stopped its training.",
        "",
        "- **covers**: share of all test values inside; **worst step**: the step that is furthest from the level;",
        "- **score**: interval (Winkler) score in raw units; **CRPS**: from quantiles at six levels. Less is better.",
        "",
    ]
    for name, report in reports.items():
        rows, seconds = report["rows"], sum(report["seconds"].values())
        lines += [
            f"## {name}",
            "",
            f"{rows['training']} windows to train, {rows['calibration']} to calibrate, {rows['test']} to test; "
            f"{report['values']}, read by the {report['network']} in windows of {report['window']} rows with "
            f"{report['noise']} noise; {seconds:.0f} s in all.",
            *tried(report),
            "",
            "| method | "
            + "".join(f"{float(v):.0%}: covers | worst step | width | score | " for v in LEVELS)
            + "CRPS |",
            "|---" + "|---" * (4 * len(LEVELS) + 1) + "|",
        ]
        lines += [f"| {method} | {cells(found)} |" for method, found in report["methods"].items()]
        lines.append("")
    return "\n".join([*lines, *summary(reports), "", *what_it_reads(drift), ""])


def tried(report: dict[str, Any]) -> list[str]:
    """The networks that were tried and how their intervals scored on the validation rows, if there was a choice."""
    merits = report["validation"]
    if len(merits) == 1:
        return []
    return ["", "Interval score on the validation rows: " + ", ".join(f"{n} {s:.4g}" for n, s in merits.items()) + "."]


def what_it_reads(drift: dict[tuple[str, str], Any]) -> list[str]:
    if not drift:
        return []
    lines = [
        "## Levels, differences, returns",
        "",
        "The same LSTM on prices that drift away from the training part, by what it reads (`--values`).",
        "",
        "| series | reads | method | 90%: covers | worst step | width | score | CRPS |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, values), report in drift.items():
        for method in OURS:
            lines.append(f"| {name} | {values} | {method} | {cells(report['methods'][method], ('0.9',))} |")
    return lines


def cells(found: dict[str, Any], levels: tuple[str, ...] = LEVELS) -> str:
    parts = []
    for level in levels:
        worst = worst_step(found, level)
        numbers = (found["width"][level], found["interval_score"][level])
        parts += [f"{found['coverage'][level]:.1%}", f"{worst:.1%}", *(f"{number:.4g}" for number in numbers)]
    return " | ".join([*parts, f"{found['crps']:.4g}"])


def worst_step(found: dict[str, Any], level: str) -> float:
    return max(found["coverage_per_step"][level], key=lambda share: abs(share - float(level)))


def summary(reports: dict[str, Any]) -> list[str]:
    """What the methods come to, level by level: murho's distance from the level, and its score over that of others."""
    lines = [
        "## In short",
        "",
        "Points: the most that a step's coverage is off its level. Score: murho's interval score over the other "
        "method's, less 1; online against online, split against split.",
        "",
        "| series | level | points, online | points, split | points, random walk split | score, online: random walk "
        "| best other | score, split: random walk | best other | score, online: tutorial |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        methods = report["methods"]
        for level in LEVELS:

            def score(method: str, level: str = level, methods: Any = methods) -> float:
                return float(methods[method]["interval_score"][level])

            def best(how: str, methods: Any = methods) -> str:
                others = [m for m in methods if m.endswith(how) and m not in OURS]
                return min(others, key=score)

            points = [
                100 * abs(worst_step(methods[method], level) - float(level))
                for method in ("murho, online", "murho, split", "random walk, split")
            ]
            ratios = [
                score("murho, online") / score("random walk, online"),
                score("murho, online") / score(best("online")),
                score("murho, split") / score("random walk, split"),
                score("murho, split") / score(best("split")),
            ]
            tutorial = f"{score('murho, online') / score(TUTORIAL) - 1:+.0%}" if TUTORIAL in methods else ""
            lines.append(
                f"| {name} | {float(level):.0%} | "
                + " | ".join(f"{value:.1f}" for value in points)
                + " | "
                + " | ".join(f"{ratio - 1:+.1%}" for ratio in ratios)
                + f" | {tutorial} |"
            )
    return lines


if __name__ == "__main__":
    main()
