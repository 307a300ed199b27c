"""How fast an interval is, against BLiTZ's own loop: the tutorial's network and a wider one, every result checked.

Run: python benchmarks/latency.py [--json latency.json]. Takes some five minutes on 2 cores. The weights are hardly
trained: a call takes the same time whatever they are.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from murho.cli import bench
from murho.cli.tables import console, write_json
from murho.cli.tasks import export_checkpoint
from murho.models import Forecaster
from murho.train import builtin_series, fit, load_checkpoint, prepare

SHAPES = {10: [(1, 1000), (64, 1000)], 64: [(1, 1000), (64, 1000)]}  # hidden units: rows and draws of a call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each system; BLiTZ's loop gets a third")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for hidden, shapes in SHAPES.items():
            artifacts = [folder / f"hidden{hidden}.onnx", folder / f"hidden{hidden}.pt"]
            checkpoint = folder / f"hidden{hidden}.checkpoint"
            torch.manual_seed(0)
            fit(Forecaster(hidden=hidden), prepare(builtin_series()), epochs=1, checkpoint=checkpoint, progress=False)
            for artifact in artifacts:
                with console.status(f"Exporting {artifact.name} …"):
                    export_checkpoint(load_checkpoint(checkpoint), artifact)
            console.rule(f"LSTM with {hidden} hidden units, window 21")
            for rows, draws in shapes:
                results += [
                    {"hidden": hidden, **row}
                    for row in bench.run(
                        artifacts, against=checkpoint, batches=[rows], draw_counts=[draws], rounds=arguments.rounds
                    )
                ]
    if arguments.json:
        write_json(arguments.json, {"machine": bench.machine(), "results": results})


if __name__ == "__main__":
    main()
