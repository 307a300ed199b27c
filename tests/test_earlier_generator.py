"""Files of card schema 4, whose generator gave noise and weights half their radii in common, are read with a warning.

`schema4/paths.onnx` is such a file, and `paths.json` what it must answer, by an independent form of that generator.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import murho_host
import numpy as np
import pytest

import murho
from murho import ArtifactError, ExportError
from murho.cli import tables
from murho.export import verify
from murho.runtime import drawing
from murho.runtime.artifact import read, sealed_onnx
from murho.runtime.contract import GENERATOR, GENERATORS, SCHEMA

FOLDER = Path(__file__).parent / "schema4"
EARLIER = FOLDER / "paths.onnx"
CURRENT = Path(__file__).parent / "conformance" / "paths.onnx"
WINDOWS = np.random.default_rng(1).normal(50, 1, (3, 8, 1))
ADVICE = (
    r"^'paths' draws by the generator pcg4d-boxmuller-1, whose streams are not independent: observation noise and the "
    r"first Bayesian layer's weights share half their radii, .* Export it again to draw by pcg4d-boxmuller-2\.$"
)


def opened(path: Path = EARLIER) -> murho.Model:
    with pytest.warns(UserWarning, match=ADVICE):
        return murho.load(path)


def test_it_answers_by_its_own_nodes_as_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "compiled", None)  # what draws by the present generator is not asked
    with pytest.warns(UserWarning, match=ADVICE):
        found = murho_host.checked(EARLIER, json.loads((FOLDER / "paths.json").read_text(encoding="utf-8")))
    assert found["passed"], found


def test_the_compiled_code_would_draw_other_numbers() -> None:
    """So it matters that it is not asked."""
    if drawing._compiled is None:
        pytest.skip("the C code was not compiled")
    card = read(EARLIER).card
    assert (card.schema, card.generator) == (4, GENERATORS[4])
    with pytest.warns(UserWarning, match=ADVICE):
        model = murho.load(EARLIER)
    artifact = read(EARLIER)
    object.__setattr__(artifact.card, "generator", GENERATOR)
    mistaken = murho.runtime.engines.open_engine(artifact, "cpu").samples(
        (WINDOWS.astype(np.float32),), np.arange(8), 0, observed=True
    )[0]
    assert not np.allclose(mistaken, model.samples(WINDOWS, 8, 0), rtol=1e-3)


def test_what_is_learnt_and_calibrated_goes_on(tmp_path: Path) -> None:
    model = opened()
    for seed in range(3):
        model.predict(WINDOWS, draws=32, seed=seed)
        model.observe(np.array([50.0, np.nan, 51.0]))
    model.save_state(tmp_path / "state.json")
    usual = model.predict(WINDOWS, draws=32)
    other = opened()
    other.load_state(tmp_path / "state.json")
    again = other.predict(WINDOWS, draws=32)
    np.testing.assert_array_equal(again.lower, usual.lower)
    model.calibrate(WINDOWS.repeat(10, axis=0), np.full((30, 4), 50.0), levels=(0.5, 0.8), draws=32)
    model.save(tmp_path / "paths.onnx")
    saved = opened(tmp_path / "paths.onnx")
    assert (saved.card.schema, saved.card.generator) == (4, GENERATORS[4])


def test_it_cannot_be_proven_again() -> None:
    network: Any = None  # which is not looked at
    with pytest.raises(ExportError, match=r"cannot be compared with the network at equal noise\. 'paths' draws by"):
        verify(EARLIER, network)


def test_murho_info_warns(capsys: pytest.CaptureFixture[str]) -> None:
    tables.info(EARLIER, as_json=False)
    assert "Warning: 'paths' draws by the generator pcg4d-boxmuller-1" in " ".join(capsys.readouterr().out.split())


def test_the_present_generators_files_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = murho.load(CURRENT)
    assert (model.card.schema, model.card.generator, model.card.weakness) == (SCHEMA, GENERATOR, "")


@pytest.mark.parametrize(("path", "schema"), [(EARLIER, SCHEMA), (CURRENT, 4)])
def test_a_generator_that_is_not_its_schemas(path: Path, schema: int, tmp_path: Path) -> None:
    artifact = read(path)
    object.__setattr__(artifact.card, "schema", schema)
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(sealed_onnx(artifact.content, artifact.card))
    with pytest.raises(ArtifactError, match=r"uses the generator 'pcg4d-.*'; this murho knows 'pcg4d-"):
        murho.load(changed)
