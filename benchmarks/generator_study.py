"""The quality of the generator's numbers, what 24 bits mean for the tails, and what the generator costs.

    python benchmarks/generator_study.py --write docs/generator.md [--results FOLDER]

Needs a C compiler; takes some ten minutes of a core. The battery SmallCrush is run where TestU01 is installed (Debian:
libtestu01-0-dev, libgmp-dev; CFLAGS for one that is elsewhere). What FOLDER has already is not computed again.
"""

import argparse
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from scipy import stats
from studies import write_section

from murho.export.generator import onnx_normals

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "schema4"))
import first_generator

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ROOT / "runtime" / "compiled"
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing")
TESTU01 = ("-DTESTU01", "-ltestu01", "-ltestu01probdist", "-ltestu01mylib", "-lgmp")
PAIRS, FEWER = 2**22, 2**18
HASHES, NORMALS = 3 * 10**8, 10**10
CHANGES = ("element", "draw", "stream, or seed's upper half", "seed's lower half")
SHOWN_ORDERS = (3, 5)
"""Orders in which the first generator is shown beside."""
COST_SIZES = ((12, 1000), (480, 128), (480, 1000), (5000, 16), (20000, 4))
"""Normals of a layer, draws."""
ROUNDS = 201

Run = Callable[..., list[list[float]]]
"""(generator, arguments …) -> the numbers that the program prints, line by line."""


def built(folder: Path, name: str, *flags: str) -> Path | None:
    """The study's program; None where it cannot be built."""
    source, program = ROOT / "benchmarks" / "generator_study.c", folder / name
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    command = ["cc", *FLAGS, "-march=native", f"-I{COMPILED}", str(source), "-o", str(program), *extra, *flags, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return program if done.returncode == 0 else None


def runner(folder: Path, results: Path) -> Run:
    programs = {"first": built(folder, "first", "-DFIRST"), "second": built(folder, "second")}
    battery = built(folder, "battery", *TESTU01)
    if None in programs.values():
        raise SystemExit("The C compiler `cc` cannot build benchmarks/generator_study.c.")

    def run(generator: str, *arguments: object) -> list[list[float]]:
        words = [str(argument) for argument in arguments]
        kept = results / f"{generator}-{'-'.join(words)}.txt"
        if not kept.exists():
            program = battery if words[0] == "battery" else programs[generator]
            if program is None:
                return []
            output = subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout
            kept.write_text(output, encoding="utf-8")
        lines = kept.read_text(encoding="utf-8").splitlines()
        if words[0] == "battery":
            lines = [line.removeprefix("RESULT ") for line in lines if line.startswith("RESULT ")]
        return [[float(number) for number in line.split()] for line in lines]

    return run


def beyond(values: list[float], tests: int, upper: bool = False) -> str:
    """The largest of standard errors, and the chance that so many tests have one as large."""
    largest = max(values)
    chance = min(1.0, -math.expm1(tests * math.log1p(-(1 if upper else 2) * stats.norm.sf(largest))))
    return f"{largest:.1f} ({chance:.2g})"


def single_bits(run: Run) -> str:
    rows = []
    for name, generator, pairs in (("pcg4d-boxmuller-1", "first", FEWER), ("pcg4d-boxmuller-2", "second", PAIRS)):
        lines = run(generator, "bits", pairs, 0)
        for k, what in enumerate(CHANGES):
            _, product, square, _, flips, equal = zip(*lines[32 * k : 32 * k + 32], strict=True)
            expected = 4 * pairs / 2**24
            rows.append(
                f"| {name} | {what} | {pairs:,} | {beyond(list(product), 32 * 16)} | {beyond(list(square), 32 * 16)} | "
                f"{max(line[3] for line in lines[32 * k : 32 * k + 32]):.1f} | {beyond(list(flips), 32 * 96)} | "
                f"{max(equal):,.0f} for {expected:.2g} |"
            )
    return "\n".join(
        [
            "Pairs of counters that differ in one bit, for each of the 128 bits of the four counters, the rest random. "
            "In standard errors, the largest of 32 bits, and in brackets the chance that independent numbers have one "
            "as large: the correlations of 4 × 4 normals and of their squares, the chi-squared of 4 × 4 tables of 16 × "
            "16 bins of the normals, and how often each of the 96 used bits flips. Then words of which all used bits "
            "are equal, the most of 32 bits.",
            "",
            "| generator | changed | pairs | normals | squares | tables | flips | equal words |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def orders(run: Run, names: list[str], hashes: int) -> str:
    rows = []
    for k, name in enumerate(names):
        (found,) = run("second", "weights", k, hashes)
        battery = run("second", "battery", k)
        told = f"{battery[0][0]:.0f} of {battery[0][1]:.0f}" if battery else "not installed"
        first = "{:.1f}, {:.1f}".format(*run("first", "weights", k, hashes)[0]) if k in SHOWN_ORDERS else ""
        rows.append(f"| {name} | {found[0]:.1f} | {found[1]:.1f} | {told} | {first} |")
    return "\n".join(
        [
            f"{hashes:,} hashes ({hashes * 12 / 2**30:.1f} GiB of used bits) in each of these orders. Hamming weights "
            "of the bytes, few, four or many: 9 in a row of each of the 12 bytes of a hash (the largest of 12), and "
            "the 12 of a hash, in standard errors; beside them the first generator's in two orders. SmallCrush of "
            "TestU01 1.2.3 on the packed 24 bits: how many of its tests have p below 1e-4 or above 1 - 1e-4.",
            "",
            "| order | 9 in a row | within a hash | SmallCrush fails | the first generator's |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def tails(run: Run) -> str:
    ((n, *rest),) = run("second", "normals", NORMALS)
    mean, square, cube, fourth, chi, cells, *counts, largest = rest
    offsets = ((mean, 1), (square - 1, 2), (cube, 15), (fourth - 3, 96))  # with n times their variances
    errors = [offset * math.sqrt(n / variance) for offset, variance in offsets]
    most = math.sqrt(-2 * math.log(2**-25))
    rows = [
        f"| {limit:g} | {count:,.0f} | {n * 2 * stats.norm.sf(limit):,.1f} |"
        for limit, count in zip((3, 4, 5, 5.5), counts, strict=True)
    ]
    text = " · ".join(f"{e:.1f}" for e in errors)
    return "\n".join(
        [
            f"{n:,.0f} normals of a layer of 4096, by the compiled code. Their first four moments are {text} standard "
            f"errors from a normal's, their counts in {cells:.0f} bins of 12 / 4096 {chi:.1f} (chi-squared). "
            f"The largest is {largest:.3f}.",
            "",
            "| beyond ± | seen | of a normal's |",
            "|---|---|---|",
            *rows,
            "",
            f"u has 24 bits and is at least 2^-25, so a radius is at most √(-2 ln 2^-25) = {most:.3f}, and no |ε| is "
            f"above it. Of true normals a share of {2 * stats.norm.sf(most):.1g} is, one in "
            f"{1 / (2 * stats.norm.sf(most)):,.0f}. Below u = 1/2, which is a radius above 1.18, u is an odd multiple "
            "of 2^-25: the share of radii above r is right to 2^-25, which is 1 % of it at "
            f"r = {math.sqrt(2 * math.log(2**25 / 100)):.1f}. An angle has 2^24 directions. Intervals are ends of "
            "thousands of draws, not of hundreds of millions: what is missing lies beyond all of them.",
        ]
    )


def first_form(source: str) -> str:
    """draw.c with the first generator's words."""
    changes = (
        ("folded(scrambled(first + (uint32_t)i))", "scrambled(first + (uint32_t)i)"),
        ("mixed(scrambled((uint32_t)draws[draw]))", "scrambled((uint32_t)draws[draw])"),
        (
            "z = (uint32_t)(key >> 32), w = (uint32_t)key;",
            "z = scrambled((uint32_t)(seed >> 32) ^ stream), w = scrambled((uint32_t)seed);",
        ),
        ("murho_draw(", "first_draw("),
    )
    for new, old in changes:
        if new not in source:
            raise SystemExit(f"draw.c lacks {new!r}; this study must follow it.")
        source = source.replace(new, old)
    return source


TIMER = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "draw.h"
void first_draw(const int64_t *, size_t, uint64_t, uint32_t, const float *, const float *, size_t, float *);
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return 1e9 * t.tv_sec + t.tv_nsec; }
int main(int count, char **given) {
    const size_t n = atol(given[1]), S = atol(given[2]), rounds = atol(given[3]);
    float *mu = calloc(n, 4), *sigma = calloc(n, 4), *out = malloc(4 * n * S);
    int64_t *draws = malloc(8 * S);
    for (size_t k = 0; k < S; k++) draws[k] = k;
    for (size_t k = 0; k < n; k++) sigma[k] = 1;
    for (size_t k = 0; k < rounds; k++) {
        const double a = now();
        first_draw(draws, S, 42, 3, mu, sigma, n, out);
        const double b = now();
        murho_draw(draws, S, 42, 3, mu, sigma, n, out);
        printf("%.4f %.4f\\n", (b - a) / (n * S), (now() - b) / (n * S));
    }
    return count - 4;
}
"""


def compiled_cost(folder: Path, n: int, draws: int) -> tuple[float, float]:
    (folder / "first.c").write_text(first_form((COMPILED / "draw.c").read_text()), encoding="utf-8")
    (folder / "timer.c").write_text(TIMER, encoding="utf-8")
    sources = [str(folder / "first.c"), str(folder / "timer.c"), str(COMPILED / "draw.c")]
    subprocess.run(["cc", *FLAGS, f"-I{COMPILED}", *sources, "-o", str(folder / "timer"), "-lm"], check=True)
    command = [str(folder / "timer"), str(n), str(draws), str(ROUNDS)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first, second = zip(*(map(float, line.split()) for line in lines), strict=True)
    return statistics.median(first), statistics.median(second)


def node_cost(n: int, draws: int) -> tuple[float, float]:
    def session(function: onnx.FunctionProto) -> onnxruntime.InferenceSession:
        info = helper.make_tensor_value_info
        node = helper.make_node("Normals", ["draws", "seed", "n"], ["noise"], domain="murho", stream=3)
        inputs = [info("draws", TensorProto.INT64, ["S"]), info("seed", TensorProto.INT64, [])]
        size = helper.make_tensor("n", TensorProto.INT64, [1], [n])
        graph = helper.make_graph([node], "cost", inputs, [info("noise", TensorProto.FLOAT, ["S", "n"])], [size])
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("murho", 1)]
        model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    sessions = session(first_generator.function()), session(onnx.parser.parse_function(onnx_normals()))
    feeds = {"draws": np.arange(draws), "seed": np.array(42)}
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for taken, one in zip(times, sessions, strict=True):
            start = time.perf_counter()
            one.run(None, feeds)
            taken.append(1e9 * (time.perf_counter() - start) / (n * draws))
    return statistics.median(times[0]), statistics.median(times[1])


def cost(folder: Path) -> str:
    rows = []
    for n, draws in COST_SIZES:
        (c, d), (a, b) = compiled_cost(folder, n, draws), node_cost(n, draws)
        rows.append(
            f"| {n} | {draws} | {c:.2f} | {d:.2f} ({d - c:+.2f}) | {a:.1f} | {b:.1f} ({100 * (b / a - 1):+.0f} %) |"
        )
    return "\n".join(
        [
            f"Nanoseconds a normal on one thread, medians of {ROUNDS} calls, the first generator and the second in "
            "turn in one process. In nodes a small layer pays for the number of nodes, not for numbers.",
            "",
            "| normals of a draw | draws | first, compiled | second, compiled | first, nodes | second, nodes |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="put the study into this page")
    parser.add_argument("--results", type=Path, help="keep what the program prints in this folder, to go on from it")
    parser.add_argument("--hashes", type=int, default=HASHES, help="of each order")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        results = options.results or folder
        results.mkdir(parents=True, exist_ok=True)
        run = runner(folder, results)
        listed = subprocess.run([folder / "second", "orders"], capture_output=True, text=True, check=True).stdout
        sections = {
            "Study: single bits": single_bits(run),
            "Study: orders": orders(run, listed.splitlines(), options.hashes),
            "Study: normals, and what 24 bits mean for the tails": tails(run),
            "Study: cost": cost(folder),
        }
    for title, text in sections.items():
        write_section(options.write, title, text)


if __name__ == "__main__":
    main()
