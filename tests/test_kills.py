"""Writers that are killed at random moments leave the old file or the new one, whole; benchmarks/kills.py has more."""

import os
from pathlib import Path

import pytest
from kills import WAYS, Way, killed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")


@pytest.mark.parametrize("name", WAYS)
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    moments = 2 if name == "export" else 3
    found = killed(WAYS[name], folder, moments, seed=1)
    assert found.old + found.new == moments


def test_the_search_finds_a_writer_that_tears(tmp_path: Path) -> None:
    """Of a file that is written in place, in two parts."""

    def make(folder: Path) -> Way:
        path = folder / "a.bin"

        def write(k: int) -> None:
            with path.open("wb") as file:
                for _ in range(200):
                    file.write(bytes([k % 256]) * 10_000)
                    file.flush()

        def version() -> int:
            content = path.read_bytes()
            assert len(content) == 2_000_000, "torn"
            return content[0]

        return Way(path, write, version, 256)

    with pytest.raises(AssertionError, match=r"torn|version \d+, after"):
        killed(make, tmp_path, 50)
