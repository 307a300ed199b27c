"""The study's programs build and run, in small, and follow draw.c."""

import shutil
from pathlib import Path

import generator_study
import pytest

needs_a_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


def test_the_first_form_follows_from_draw_c() -> None:
    source = (generator_study.COMPILED / "draw.c").read_text(encoding="utf-8")
    first = generator_study.first_form(source)
    assert "first_draw(" in first
    with pytest.raises(SystemExit, match="this study must follow it"):
        generator_study.first_form(first)


@needs_a_compiler
def test_the_study_in_small(tmp_path: Path) -> None:
    run = generator_study.runner(tmp_path, tmp_path)
    # Noise and site 0 in turn: the first generator's hashes share words, which the second's do not.
    (good,), (bad,) = (run(form, "weights", 5, 200_000) for form in ("second", "first"))
    assert max(map(abs, good)) < 6
    assert abs(bad[0]) > 100
    lines = run("second", "bits", 1024, 0)
    assert len(lines) == 128
    assert max(line[2] for line in lines) < 6.5
    assert max(line[5] for line in lines) == 0
    assert run("first", "bits", 1024, 0)[95][5] > 100  # of 4096 words, an eighth or so
