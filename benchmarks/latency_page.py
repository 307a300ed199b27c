"""The page of the latency benchmark, made from its results: nothing on it is typed in."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from environment import described
from rich.table import Table
from studies import read_sections, write_sections
from systems import MOST_BYTES

from murho.cli.bench import LEVEL, SETTLING

Row = dict[str, Any]

# Beginnings of the titles of sections that other scripts, or people, write into the page.
OTHERS = (
    "Where murho's ONNX is not ahead",
    "Profile",
    "Cold start",
    "Memory",
    "Instructions",
    "Streams",
    "ONNX Runtime's options",
    "A service under load",
)
REFERENCE, LOOP, OURS = "murho ONNX", "BLiTZ loop", "murho"
MOST_ERRORS = 7

METHOD = f"""A call gives mean, standard deviation and the {LEVEL:.0%} interval of every row; all systems take them from
their samples by the same code. For each shape the systems are called in turn, so that a slow moment of the machine hits
all; before each short call come {SETTLING} that are not timed, so that no system finds the caches as another left them,
or its own threads asleep. Each call draws anew, except in `same seed`, which may use what it kept. Cells: median,
quartiles, and how many times faster than BLiTZ's loop, whose faster thread count is the baseline.

- **BLiTZ loop**: a forward pass for each draw, as BLiTZ's users write it, under `torch.no_grad` on one thread and on
  all cores; under `torch.inference_mode`; and with the network compiled by `torch.compile`, which compiles again for
  other shapes, a time that is not counted. The latter two take the faster thread count.
- **PyTorch, batched by hand**: all draws' weights by `torch.randn`, then products batched over the draws
  (`benchmarks/hand_batched.py`), with the number of draws at once and of threads that was fastest in a trial, unless
  that would need more than {MOST_BYTES / 2**30:g} GiB.
- **ONNX, RandomNormalLike**: murho's file with ONNX's own random numbers in place of murho's generator, in ONNX Runtime
  with its default options, with the number of draws at once that was fastest in a trial, within the same memory. It
  cannot be seeded for a call.
- **murho**: `model.predict` as it is. `without C` is the same where no C compiler was found when murho was installed:
  the file's own nodes do all. `local` samples outputs in place of weights; each row's law is the same.

All timed results are checked: each artifact's last one against BLiTZ's own layers at equal noise; those of every other
system against murho's ONNX, the means and standard deviations over the draws within {MOST_ERRORS} Monte-Carlo standard
errors for every row and output (`benchmarks/sameness.py` has the derivation)."""


def printed(results: list[Row]) -> Table:
    """The results of one network for a terminal."""
    table = Table(title="≈: measured on fewer draws and scaled", title_justify="left")
    for column in ("rows", "draws", "system", "median", "quartiles", "than the loop"):
        table.add_column(column, justify="left" if column == "system" else "right")
    last = results[-1]["system"]
    for row in results:
        head = str(row["rows"]), str(row["draws"]), row["system"]
        if "problem" in row:
            table.add_row(*head, row["problem"])
            continue
        quartiles = f"{milliseconds(row['q25_ms'])}, {milliseconds(row['q75_ms'])}"
        cells = _about(row) + milliseconds(row["median_ms"]), quartiles, "wrong" if wrong(row) else _ratio(row)
        table.add_row(*head, *cells, end_section=row["system"] == last)
    return table


def write_page(path: Path, results: dict[str, Any], picture: Path | None) -> None:
    """Write the page anew; what other scripts put there stays."""
    runs = "; ".join(f"`{run['command']}`, {run['minutes']:.0f} minutes" for run in results["runs"])
    head = ["# Benchmark", f"{runs}, on {described(results['environment'])}"]
    if picture is not None:
        head.append(f"![Time of an interval by network, system and rows]({picture.name})")
    sections = {"How it is measured": f"{METHOD}\n\n{linear(results['linear'])}"}
    sections["Against the fastest other system"] = summary(results["networks"])
    for network in results["networks"].values():
        sections[network["title"]] = section(network)
    _, old = read_sections(path)
    write_sections(
        path, "\n\n".join(head), sections | {title: text for title, text in old.items() if title.startswith(OTHERS)}
    )


def linear(found: dict[str, Any]) -> str:
    """How well time is proportional to draws, which scaled times (≈) take for granted."""
    times = "; ".join(f"{name} {ratio:.2f}" for name, ratio in found["times_the_time"].items())
    factor = f"{found['times_the_draws']:g}"
    return (
        "A loop's time is proportional to its draws, and that of any system nearly so in a long call. Loops, and calls "
        f"of many seconds, are therefore measured on fewer draws and scaled: ≈. So many times longer take {factor} "
        f"times the draws ({found['title']}, {found['rows']} rows): {times}. Where it is less than {factor}, scaled "
        "times are too long; where it is more, too short."
    )


def summary(networks: dict[str, Any]) -> str:
    """For each network and shape: murho's ONNX beside the loop and beside the fastest system that is not murho's."""
    lines = ["| network | rows | draws | murho ONNX | than the loop | the fastest other system | murho against it |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for network in networks.values():
        for rows in by_shape(network["results"]).values():
            ours = next(row for row in rows if row["system"] == REFERENCE)
            others = [row for row in rows if "problem" not in row and not row["system"].startswith(OURS)]
            if not others:
                continue
            best = min(others, key=lambda row: row["median_ms"])
            ratio = best["median_ms"] / ours["median_ms"]
            cells = (
                network["title"], str(ours["rows"]), str(ours["draws"]), _about(ours) + milliseconds(ours["median_ms"]),
                _ratio(ours), f"{best['system']}, {_about(best)}{milliseconds(best['median_ms'])}",
                f"{ratio:.3g} ×" if ratio >= 1 else f"**{ratio:.2g} ×: slower**",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def section(network: dict[str, Any]) -> str:
    """One network's table: a line for each system, a column for each shape, and the time to a Monte-Carlo error."""
    shapes = by_shape(network["results"])
    need = network["draws_needed"]
    goal = min(rows for rows, _ in shapes), max(draws for _, draws in shapes)
    columns = [_shape(*shape) for shape in shapes]
    lines = [
        f"{network['weights']:,} random numbers for each draw. For a standard error of the interval's ends of "
        f"{need['share']:.0%} of its width it takes {need['draws']:.0f} ± {need['standard_error']:.0f} draws (order "
        f"statistics of murho's samples). The last column is the time of so many, for {columns[0].split(',')[0]}, from "
        f"the time per draw in the call of {goal[1]}.",
        "",
        f"| system | {' | '.join(columns)} | to {need['share']:.0%} |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for name in dict.fromkeys(row["system"] for row in network["results"]):
        mine = {shape: next((r for r in rows if r["system"] == name), None) for shape, rows in shapes.items()}
        last = mine[goal]
        known = last is not None and "problem" not in last
        whole = milliseconds(last["median_ms"] / last["draws"] * need["draws"]) if known else ""
        lines.append(f"| {name} | {' | '.join(_cell(row) for row in mine.values())} | {whole} |")
    return "\n".join([*lines, "", *_remarks(network["results"])])


def by_shape(results: Iterable[Row]) -> dict[tuple[int, int], list[Row]]:
    """Rows by (rows, draws)."""
    found: dict[tuple[int, int], list[Row]] = {}
    for row in results:
        found.setdefault((row["rows"], row["draws"]), []).append(row)
    return dict(sorted(found.items()))


def milliseconds(value: float) -> str:
    return f"{value / 1000:.3g} s" if value >= 10_000 else f"{value:.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def wrong(row: Row) -> bool:
    errors = row.get("errors_apart")
    return errors is not None and not errors <= MOST_ERRORS


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "problem" in row:
        return "does not work"
    spread = f"({milliseconds(row['q25_ms'])} to {milliseconds(row['q75_ms'])})"
    mark = "**wrong:** " if wrong(row) else ""
    return f"{mark}{_about(row)}{milliseconds(row['median_ms'])}<br>{spread}<br>{_ratio(row)}"


def _remarks(results: list[Row]) -> list[str]:
    """What was chosen for each system, and what went wrong."""
    chosen: dict[str, dict[str, str]] = {}
    for row in results:
        if setting := row.get("setting"):
            chosen.setdefault(row["system"], {})[_shape(row["rows"], row["draws"])] = setting
    lines = [f"- {name}: {_together(settings)}." for name, settings in chosen.items()]
    problems = dict.fromkeys(f"{row['system']}: {row['problem']}" for row in results if "problem" in row)
    problems |= dict.fromkeys(
        f"{row['system']}, {row['rows']} rows, {row['draws']} draws: mean or standard deviation is "
        f"{row['errors_apart']:.1f} standard errors off"
        for row in results
        if wrong(row)
    )
    return lines + [f"- **{problem}.**" for problem in problems]


def _together(settings: dict[str, str]) -> str:
    """Settings by shape, in words; one for all where they are equal."""
    if len(set(settings.values())) == 1:
        return next(iter(settings.values()))
    return "; ".join(f"{setting} ({shape})" for shape, setting in settings.items())


def _shape(rows: int, draws: int) -> str:
    return f"{rows} row{'s' if rows > 1 else ''}, {draws} draws"


def _about(row: Row) -> str:
    return "≈ " if row["evaluated_draws"] < row["draws"] else ""


def _ratio(row: Row) -> str:
    ratio = row["times_faster_than_blitz"]
    return "" if ratio is None else f"{ratio:.3g} ×"
