"""Every door of tests/fuzz for some seconds, with a fixed seed; `make fuzz` takes hours."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
DOORS = sorted(path.stem for path in (FUZZ / "doors").glob("*.py"))


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FUZZ / "run.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("door", DOORS)
def test_a_door(door: str) -> None:
    done = run(door, "--seconds", 2, "--seed", 20240229)
    assert done.returncode == 0, done.stdout + done.stderr
    if f"{door}: 0 trials" in done.stdout:
        pytest.skip(done.stdout)


# The runner notices what it is there for. A door for each way to fail, in a folder of their own.

BAD = {
    "raises": ("raise KeyError('raw')", r"KeyError: 'raw'"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
    "hangs": ("import time; time.sleep(60)", "took too long"),
    "hoards": ("import numpy; numpy.ones(150 * 2**20)", "has held 12"),
}


@pytest.mark.parametrize("way", BAD)
def test_the_runner_notices(way: str, tmp_path: Path) -> None:
    body, said = BAD[way]
    (tmp_path / "doors").mkdir()
    (tmp_path / "doors" / "bad.py").write_text(
        f"ABOUT = 'Fails.'\ndef trial(random):\n    if random.random() < 0.5:\n        {body}\n    return 'accepted'\n"
    )
    runner = (FUZZ / "run.py").read_text().replace("LIMIT = 30.0", "LIMIT = 0.5" if way == "hangs" else "LIMIT = 30.0")
    (tmp_path / "run.py").write_text(runner)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", "bad", "--trials", "5", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stdout
    assert "--seed 1 --trial " in done.stdout
