"""Test vectors of the generator, from the numpy reference of the conformance file.

Run: python benchmarks/generator_vectors.py --write docs/generator.md
"""

import argparse
import sys
from pathlib import Path

from studies import write_section

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "conformance"))
import reference

TITLE = "Test vectors"
SHOWN = 5
N = 480
CASES = (
    (42, 3, 0),
    (42, 3, 2**32 - 1),
    (0, 0, 0),
    (-1, 5, 17),
    (2**32 + 42, 3, 0),
    (-(2**63), 0, 1000),
    (2**63 - 1, 2**31, 2**31),
)
"""Seed, stream, draw."""


def vectors() -> str:
    parts = [
        f"The first {SHOWN} of each, for n = {N}, so q = {N // 4}. The normals are in float64 but for the rounding of "
        "u: in float32 they may be off by 5e-6.",
    ]
    for seed, stream, draw in CASES:
        words = reference.words([draw], seed, stream, N // 4)[0]
        normals = reference.normals([draw], seed, stream, N)[0]
        rows = [f"| {name} | {' | '.join(map(str, word[:SHOWN]))} |" for name, word in zip("xyzw", words, strict=True)]
        rows += [
            f"| ε, lane {lane} | {' | '.join(f'{value:.8f}' for value in normals[lane * N // 4 :][:SHOWN])} |"
            for lane in range(4)
        ]
        head = f"Seed {seed}, stream {stream}, draw {draw}:"
        columns = f"| j | {' | '.join(map(str, range(SHOWN)))} |\n|---|{'---|' * SHOWN}"
        parts.append("\n".join([head, "", columns, *rows]))
    total = reference.normals(range(1000), 42, 3, N).sum()
    parts.append(f"The mean over draws 0 … 999 and all {N} elements, seed 42, stream 3: {total / (1000 * N):.8f}.")
    return "\n\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="put them into this page")
    write_section(parser.parse_args().write, TITLE, vectors())
