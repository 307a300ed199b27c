"""Put random and damaged inputs through murho's doors, one process a door, and count what comes of them.

    python tests/fuzz/run.py [DOOR …] [--seconds 60] [--trials N] [--seed 0] [--results FILE] [--write docs/fuzzing.md]
    python tests/fuzz/run.py DOOR --seed 0 --trial 1234      (one trial again, in this process, with its traceback)

A door is a module in doors/: `ABOUT`, a sentence, and `trial(random) -> str`, which puts one input through the door and
returns what came of it in a word or two. Whatever it raises is a breach, and so are a crash, a trial of more than
LIMIT seconds, and more than MOST_MEMORY of memory. A door may have `corpus()`, which makes what its trials start from,
and `environment()`, the variables that its process needs; it raises unittest.SkipTest where the door cannot be opened
here.

With --results the counts are added to those in the file, and each door goes on after its last trial.
"""

import argparse
import faulthandler
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from unittest import SkipTest

import numpy as np

HERE = Path(__file__).resolve().parent
LIMIT = 30.0
"""Seconds of a trial."""
MOST_MEMORY = 2**30
"""Bytes that the process may hold at its peak."""
MOST_ALLOCATED = 3 * 2**30
"""Bytes that it may ask for, so that a bomb cannot take the machine."""
KEPT = 20
"""Breaches of a door that are kept in words; all are counted."""
PACKAGES = ("murho", "numpy", "onnxruntime", "torch", "onnx")


@dataclass
class Found:
    """Of one door, for one seed."""

    about: str
    trials: int = 0
    seconds: float = 0.0
    peak: int = 0
    """Bytes."""
    outcomes: dict[str, int] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)
    breached: int = 0
    skipped: str = ""

    def breach(self, door: str, seed: int, trial: int, what: str) -> None:
        self.breached += 1
        if len(self.breaches) < KEPT:
            self.breaches.append(f"python tests/fuzz/run.py {door} --seed {seed} --trial {trial}: {what}")


def doors() -> list[str]:
    return sorted(path.stem for path in (HERE / "doors").glob("*.py"))


def opened(door: str) -> ModuleType:
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(f"doors.{door}")


def randomness(door: str, seed: int, trial: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(door.encode()), trial])


def child(door: str, seed: int, first: int, trials: int, seconds: float, out: int) -> None:
    """Write a line for each trial to a file descriptor: its outcome, or "!" and the breach."""

    def say(line: str) -> None:
        os.write(out, " ".join(line.split()).encode(errors="replace")[:2000] + b"\n")

    try:
        module = opened(door)
        wanted = module.environment() if hasattr(module, "environment") else {}
    except SkipTest as reason:
        say(f"skipped {reason}")
        return
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    say(f"about {module.ABOUT}")
    if not wanted:  # a sanitizer's shadow alone is terabytes
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_ALLOCATED, MOST_ALLOCATED))
    if hasattr(module, "corpus"):
        module.corpus()  # made before any trial is timed
    end = None
    for trial in range(first, first + trials):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            say(module.trial(randomness(door, seed, trial)) or "nothing said")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            say(f"! {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        faulthandler.cancel_dump_traceback_later()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > MOST_MEMORY and not wanted:
            say(f"! the process has held {peak / 2**20:.0f} MiB")
            return
        end = end or time.monotonic() + seconds  # the first trial makes the corpus
        if time.monotonic() > end:
            return


def run(door: str, seed: int, trials: int, seconds: float, found: Found) -> Found:
    """Go on with a door after its last trial, in as many processes as it breaks."""
    last, end = found.trials + trials, time.monotonic() + seconds
    started = time.monotonic()
    outcomes: Counter[str] = Counter(found.outcomes)
    while found.trials < last and (left := end - time.monotonic()) > 0 and not found.skipped:
        if found.breached > 50 * KEPT:
            break
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as errors:
            command = [sys.executable, __file__, door, "--seed", str(seed), "--child", str(writing)]
            command += ["--first", str(found.trials), "--trials", str(last - found.trials), "--seconds", str(left)]
            process = subprocess.Popen(command, pass_fds=[writing], stderr=errors, stdout=errors)
            os.close(writing)
            with open(reading, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    word, _, rest = line.rstrip("\n").partition(" ")
                    if word == "about":
                        found.about = rest
                    elif word == "skipped":
                        found.skipped = rest
                    elif word == "!":
                        if not rest.startswith("the process has held"):
                            found.trials += 1
                        found.breach(door, seed, found.trials - 1, rest)
                    else:
                        found.trials += 1
                        outcomes[line.rstrip("\n")] += 1
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = code = os.waitstatus_to_exitcode(status)
            found.peak = max(found.peak, usage.ru_maxrss * 1024)
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
        if code != 0:
            how = "a trial took too long" if "Timeout (" in said else f"the process ended with {code}"
            found.trials += 1
            found.breach(door, seed, found.trials - 1, f"{how}: {' '.join(said[:1500].split())}")
    found.outcomes = dict(outcomes.most_common())
    found.seconds += time.monotonic() - started
    return found


def page(results: dict[str, Found], seed: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# Fuzzing",
        "",
        "What reads from outside is a door. Each was given random and damaged inputs, one process a door, by",
        "`make fuzz`. A trial must end in an answer that is finite and right, or in an error of murho's own that says",
        f"what is wrong. Anything else is a breach: another exception, a crash, more than {LIMIT:g} s for a trial,",
        f"more than {MOST_MEMORY // 2**20} MiB for the process (a sanitizer's own memory is not counted).",
        "",
        "| door | trials | what came of them | breaches | peak memory | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for door, found in results.items():
        said = ", ".join(f"{word} {count:,}" for word, count in found.outcomes.items()) or found.skipped
        lines.append(
            f"| `{door}` | {found.trials:,} | {said} | {found.breached:,} | {found.peak / 2**20:.0f} MiB "
            f"| {found.seconds / 60:.0f} |"
        )
    lines += ["", *(f"- `{door}`: {found.about}" for door, found in results.items() if found.about)]
    if breaches := [text for found in results.values() for text in found.breaches]:
        lines += ["", "## Breaches", "", *(f"- {text}" for text in breaches)]
    lines += [
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, seed {seed}, Python {platform.python_version()}, {versions}, "
        f"{platform.system()} {platform.machine()}. Any trial can be had again: "
        "`python tests/fuzz/run.py DOOR --seed SEED --trial NUMBER`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("doors", nargs="*", metavar="DOOR", help=f"of {', '.join(doors())}; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each door")
    parser.add_argument("--trials", type=int, default=10**9, help="of each door, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, help="one trial again, here")
    parser.add_argument("--results", type=Path, help="JSON of counts, to add to")
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.doors) - set(doors()):
        parser.error(f"no door {', '.join(sorted(unknown))}; there are {', '.join(doors())}")
    if options.child is not None:
        child(options.doors[0], options.seed, options.first, options.trials, options.seconds, options.child)
        return 0
    if options.trial is not None:
        (door,) = options.doors
        module = opened(door)
        wanted = module.environment() if hasattr(module, "environment") else {}
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
        print(module.trial(randomness(door, options.seed, options.trial)))
        return 0
    results: dict[str, Found] = {}
    if options.results and options.results.exists():
        results = {door: Found(**found) for door, found in json.loads(options.results.read_text()).items()}
    breached = 0
    for door in options.doors or doors():
        found = results.setdefault(door, Found(""))
        before = found.breached
        run(door, options.seed, options.trials, options.seconds, found)
        breached += found.breached - before
        print(f"{door}: {found.trials} trials in {found.seconds:.0f} s, {found.outcomes or found.skipped}, ", end="")
        print(f"{found.breached} breaches, at most {found.peak / 2**20:.0f} MiB", flush=True)
        print("".join(f"  {text}\n" for text in found.breaches), end="", flush=True)
        if options.results:
            options.results.write_text(json.dumps({name: asdict(one) for name, one in results.items()}, indent=1))
    if options.write:
        options.write.write_text(page(dict(sorted(results.items())), options.seed), encoding="utf-8")
    return 1 if breached else 0


if __name__ == "__main__":
    sys.exit(main())
