"""Saved states, of `observe` and of streams, that are not what they should be: refused with the reason, never used."""

import copy
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime import ArtifactError, InputError, state_json, stream_npz

ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT / "tests" / "conformance"
JAVASCRIPT = ROOT / "runtime" / "js"
OTHER = "a" * 64


def _door(name: str) -> Any:
    """The fuzzing door's module, for its `sealed`, which makes digests apart from murho's code."""
    sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "fuzz" / "doors" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sealed_json, sealed_npz = _door("state_json").sealed, _door("state_npz").sealed


@pytest.fixture(scope="module")
def model() -> murho.Model:
    return murho.load(CONFORMANCE / "paths.onnx")  # four outputs, calibrated at three levels


@pytest.fixture(scope="module")
def state(model: murho.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """With three forecasts whose truth is still to come."""
    windows = np.random.default_rng(1).normal(50, 1, (2, 8, 1))
    for seed in range(5):
        model.predict(windows, draws=32, seed=seed)
        model.observe(np.array([50.0, np.nan if seed == 2 else 51.0]))
    path = tmp_path_factory.mktemp("states") / "state.json"
    model.save_state(path)
    return json.loads(path.read_text())


def test_the_digest_is_that_of_the_documentation(state: dict[str, Any]) -> None:
    assert json.loads(sealed_json(json.dumps(state).encode()))["sha256"] == state["sha256"]


def test_another_layout_of_the_same_state_is_the_same_state(model: murho.Model, state, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(dict(sorted(state.items())), indent=4))
    model.load_state(path)
    model.save_state(path)
    assert json.loads(path.read_text()) == state


def _set(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *others, last = keys
        at: Any = data
        for key in others:
            at = at[key]
        at[last] = to(at[last]) if callable(to) else to

    return change


def _without(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *others, last = keys
        at: Any = data
        for key in others:
            at = at[key]
        del at[last]

    return change


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another schema": (_set("schema", to=1), "schema 1; expected .*2"),
    "another format": (_set("format", to="murho.card"), "format '?murho.card"),
    "a field too few": (_without("observed"), "it lacks 'observed'"),
    "a field too many": (lambda data: data.update(more=1), "an unknown 'more'"),
    "levels that fall": (_set("levels", to=lambda levels: levels[::-1]), "levels must ascend between 0 and 1"),
    "a level of 1": (_set("levels", 2, to=1), "levels must ascend between 0 and 1"),
    "a level twice": (_set("levels", 1, to=lambda _: 0.5), "levels must ascend"),
    "no levels": (_set("levels", to=[]), "levels must"),
    "levels as text": (_set("levels", 0, to="0.5"), "levels must be"),
    "theta too large": (_set("theta", 0, 0, 0, to=3.0001), "theta must lie within ±3"),
    "theta as a number": (_set("theta", to=0.5), "theta must have shape"),
    "an expert too few": (_set("theta", to=lambda experts: experts[1:]), "theta must have shape"),
    "an output too few": (_set("theta", 2, 1, to=lambda row: row[1:]), "theta must have shape"),
    "an output too many": (_set("weights", 2, 1, to=lambda row: [*row, 0.1]), "weights must have shape"),
    "theta true": (_set("theta", 0, 0, 0, to=True), "theta must be"),
    "theta unknown": (_set("theta", 0, 0, 0, to=None), "theta must be"),
    "weights that are no shares": (_set("weights", 0, 0, 0, to=0.9), "weights must be shares of 1"),
    "a weight below 0": (
        lambda data: (_set("weights", 0, 0, 0, to=-0.5)(data), _set("weights", 1, 0, 0, to=1.5)(data)),
        "weights must be shares of 1",
    ),
    "observed below 0": (_set("observed", to=-1), "observed must be a count"),
    "observed in parts": (_set("observed", to=1.5), "observed must be a count"),
    "observed beyond counting": (_set("observed", to=2**53), "observed must be a count"),
    "pending as an object": (_set("pending", to={}), "pending must be at most 3 forecasts"),
    "too many pending": (_set("pending", to=lambda all: [all[0], *all]), "pending must be at most 3 forecasts"),
    "a forecast without a field": (_without("pending", 0, "upper"), "it lacks 'upper'"),
    "a forecast of no series": (_set("pending", 0, "median", to=[]), "at least one series"),
    "a median without an output": (_set("pending", 0, "median", 0, to=[1.0]), "median must have shape"),
    "ends of other levels": (_set("pending", 0, "lower", to=lambda ends: ends[1:]), "lower must have shape"),
    "an end beyond float32": (_set("pending", 0, "upper", 0, 0, 0, to=1e39), "range of float32"),
    "ends that are crossed": (_set("pending", 0, "lower", 0, 0, 0, to=90.0), "on either side of the median"),
    "known as much as there is": (_set("pending", 0, "known", to=4), "known must fall"),
    "nothing known": (_set("pending", 2, "known", to=0), "known must fall"),
    "forecasts in another order": (_set("pending", to=lambda all: all[::-1]), "known must fall"),
    "forecasts of unlike series": (
        lambda data: [_set("pending", 1, key, to=lambda rows: rows[:1])(data) for key in ("median",)]
        + [_set("pending", 1, key, k, to=lambda rows: rows[:1])(data) for key in ("lower", "upper") for k in range(3)],
        "as many series each",
    ),
}  # fmt: skip
TEXTS: dict[str, tuple[str, str]] = {
    "nothing": ("", "not a state"),
    "nesting": ("[" * 100_000, "not a state"),
    "nested objects": ('{"a":' * 100_000, "not a state"),
    "a list": ("[]", "not a state"),
    "a number": ("1", "not a state"),
    "null": ("null", "not a state"),
    "cut short": ('{"format": "murho.state", "schema": 2', "not a state"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_with_a_true_digest_is_refused(model: murho.Model, state, tmp_path: Path, name: str) -> None:
    change, reason = DAMAGES[name]
    data = copy.deepcopy(state)
    change(data)
    path = tmp_path / "state.json"
    path.write_bytes(sealed_json(json.dumps(data).encode()))
    with pytest.raises(ArtifactError, match=f"This is not a state that save_state wrote, or it is damaged .*{reason}"):
        model.load_state(path)


@pytest.mark.parametrize(
    "place", [("theta", 0, 0, 0), ("weights", 3, 1, 2), ("pending", 1, "median", 0, 3), ("observed",)]
)
def test_a_number_that_was_changed_is_noticed(model: murho.Model, state, tmp_path: Path, place: tuple) -> None:
    data = copy.deepcopy(state)
    _set(*place, to=lambda value: value + (1 if type(value) is int else 1e-9))(data)
    (tmp_path / "state.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="its checksum differs"):
        model.load_state(tmp_path / "state.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((text.encode(), reason) for text, reason in TEXTS.values()),
        (b"\xff\xfe", "not a state"),
        (b'{"format": "murho.state", "format": "murho.state"}', "a field stands twice"),
        (b'{"schema": NaN}', "NaN is no number"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "not a state"),
        (b'{"levels": [' + b"0," * (2**24 + 2) + b"0]}", "16,777,218 values, more than 16,777,216"),
        (b'{"levels": [' + b"[],".rjust(3) * (2**21 + 2) + b"0]}", "lists, more than 2,097,152"),
    ],
)
def test_what_is_no_state(model: murho.Model, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        model.load_state(tmp_path / "state.json")


def test_a_state_with_numbers_that_json_has_not(model: murho.Model, state, tmp_path: Path) -> None:
    for value in ("NaN", "Infinity", "1e999", "1" + 400 * "0"):
        text = json.dumps({**state, "observed": 0}).replace('"theta": [[[', f'"theta": [[[{value}, ', 1)
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(ArtifactError, match="not a state that save_state wrote"):
            model.load_state(tmp_path / "state.json")


def test_what_is_no_file_of_a_state(model: murho.Model, tmp_path: Path, monkeypatch) -> None:
    stream = murho.load(CONFORMANCE / "paths.onnx")
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**27 + 1)
    for path, reason in (
        ("/dev/zero", "it is a device, not a file"),
        (tmp_path, "it is a folder, not a file"),
        (tmp_path / "fifo", "it is a pipe, not a file"),
        (tmp_path / "large", "may have 134,217,728 at most"),
    ):
        with pytest.raises(ArtifactError, match=f"Cannot read the state .*{reason}"):
            stream.load_state(path)


def test_a_state_that_would_be_too_large_to_read_is_not_written(model, state, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(state_json, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"bytes, more than 1,000, with 3 forecasts .* Follow fewer series"):
        model.save_state(tmp_path / "state.json")
    assert not list(tmp_path.iterdir())


def test_a_state_of_another_network_with_as_many_outputs(state, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(sealed_json(json.dumps({**state, "artifact": OTHER}).encode()))
    with pytest.raises(ArtifactError, match="belongs to another artifact or calibration"):
        murho.load(CONFORMANCE / "paths.onnx").load_state(tmp_path / "state.json")


IN_JAVASCRIPT = """
import { readFileSync } from "node:fs";
import * as online from "%s/online.js";
const { states, artifact, outputs } = JSON.parse(readFileSync(0, "utf-8"));
const said = [];
for (const text of states) {
  try {
    said.push(await online.toJson(await online.fromJson(text, artifact, outputs), artifact));
  } catch (error) {
    said.push(`${error.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(said));
"""


def test_javascript_refuses_the_same_states_for_the_same_reasons(state: dict[str, Any]) -> None:
    texts, reasons = [], []
    for change, reason in DAMAGES.values():
        data = copy.deepcopy(state)
        change(data)
        texts.append(sealed_json(json.dumps(data).encode()).decode())
        reasons.append(reason)
    for text, reason in TEXTS.values():
        texts.append(text)
        reasons.append(reason)
    texts.append(json.dumps({**state, "observed": state["observed"] + 1}))
    reasons.append("its checksum differs")
    texts.append(json.dumps({**state, "theta": [[[-0.0] * 4] * 3] * 6}).replace(state["sha256"], "0" * 64))
    reasons.append("its checksum differs")
    zeros = sealed_json(json.dumps({**state, "theta": [[[-0.0] * 4] * 3] * 6}).encode()).decode()
    asked = {"states": [*texts, json.dumps(state), zeros], "artifact": state["artifact"], "outputs": 4}
    command = ["node", "--input-type=module", "-e", IN_JAVASCRIPT % JAVASCRIPT]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    *refused, same, of_zeros = json.loads(done.stdout)
    for text, reason in zip(refused, reasons, strict=True):
        assert text.startswith("ArtifactError: This is not a state that saveState wrote, or it is damaged"), text
        assert re.search(reason, text), (reason, text)
    assert json.loads(same) == state
    assert json.loads(of_zeros)["sha256"] == json.loads(zeros)["sha256"]  # JavaScript writes -0 as 0


# Streams.

DRAWS = 20


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> murho.Model:
    path = tmp_path_factory.mktemp("stream") / "stream.onnx"
    torch.manual_seed(0)
    to_onnx(Forecaster(hidden=4), path, torch.randn(4, 5, 1), streaming=True)
    return murho.load(path)


@pytest.fixture(scope="module")
def saved(streaming: murho.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The arrays' files of a stream after two rows of three sequences."""
    path = tmp_path_factory.mktemp("stream") / "stream.npz"
    stream = streaming.stream(DRAWS)
    for value in (0.5, -0.5):
        stream.step(np.full((3, 1), value))
    stream.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name), body, compression)
        archive.comment = b"0" * 64
    return sealed_npz(made.getvalue())


def _npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def _refused(model: murho.Model, content: bytes, folder: Path, reason: str) -> None:
    (folder / "stream.npz").write_bytes(content)
    stream = model.stream(DRAWS)
    with pytest.raises(ArtifactError, match=f"Cannot read the states of a stream from .*{reason}"):
        stream.load(folder / "stream.npz")
    assert stream.rows == 0


def test_numpy_reads_the_states_of_a_stream(streaming: murho.Model, saved, tmp_path: Path) -> None:
    (tmp_path / "stream.npz").write_bytes(_archive(list(saved.items())))
    with np.load(tmp_path / "stream.npz") as arrays:
        assert sorted(arrays) == ["identity", "rows", "state0", "state1"]
        assert arrays["rows"] == 2
        assert arrays["state0"].shape == (32, 3, 4)
    stream, other = streaming.stream(DRAWS), streaming.stream(DRAWS)
    stream.load(tmp_path / "stream.npz")
    for value in (0.5, -0.5):
        other.step(np.full((3, 1), value))
    row = np.full((3, 1), 0.1)
    np.testing.assert_array_equal(stream.step(row).samples, other.step(row).samples)


def _head(text: str) -> bytes:
    """A `.npy` file's head alone."""
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117).encode() + b"\n"


STATE = np.zeros((32, 3, 4), np.float32)
BAD_STATES: dict[str, tuple[Any, str]] = {
    "float64": (STATE.astype(np.float64), "an array is float64"),
    "big-endian": (STATE.astype(">f4"), "an array is >f4"),
    "Fortran's order": (np.asfortranarray(STATE), r"an array is float32 \(32, 3, 4\), not"),
    "too few draws": (STATE[:20], r"an array is float32 \(20, 3, 4\)"),
    "another width": (STATE[:, :, :3], r"an array is float32 \(32, 3, 3\)"),
    "another rank": (STATE[0], r"an array is float32 \(3, 4\)"),
    "no sequences": (STATE[:, :0], r"an array is float32 \(32, 0, 4\)"),
    "other sequences": (STATE[:, :2], "unlike numbers of sequences"),
    "NaN": (STATE + np.nan, "not finite numbers within ±2"),
    "infinity": (STATE + np.inf, "not finite numbers within ±2"),
    "beyond what two rows reach": (STATE + np.float32(2.1), "not finite numbers within ±2"),
    "objects": (_head("{'descr': '|O', 'fortran_order': False, 'shape': (32, 3, 4), }"), "an array is object"),
    "a bomb": (_head("{'descr': '<f4', 'fortran_order': False, 'shape': (32, 10000000000, 4), }"), "is cut short"),
    "a nested head": (b"\x93NUMPY\x01\x00\xff\x03" + b"(" * 1023, "the head of an array cannot be read"),
    "no array": (b"nothing", "the head of an array cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STATES)
def test_an_array_that_is_no_state(streaming: murho.Model, saved, tmp_path: Path, name: str) -> None:
    array, reason = BAD_STATES[name]
    body = array if isinstance(array, bytes) else _npy(array)
    _refused(streaming, _archive(list({**saved, "state1.npy": body}.items())), tmp_path, reason)


def test_an_archive_that_is_none_of_a_stream(streaming: murho.Model, saved, tmp_path: Path) -> None:
    whole = list(saved.items())
    content = _archive(whole)
    for bad, reason in (
        (_archive(whole[:-1]), "it must hold identity.npy, rows.npy, state0.npy, state1.npy"),
        (_archive([*whole, ("more.npy", b"")]), "it must hold"),
        (_archive(whole[::-1]), "it must hold"),
        (_archive([*whole[:-1], ("../state1.npy", whole[-1][1])]), "it must hold"),
        (_archive(whole, zipfile.ZIP_DEFLATED), "a record is compressed"),
        (_archive([("bomb.npy", bytes(10**7))], zipfile.ZIP_DEFLATED), "a record is compressed"),
        (_archive(whole[:2]), "2 rows and 0 states do not go together"),
        (_archive(list({**saved, "rows.npy": _npy(np.array(0))}.items())), "0 rows and 2 states do not go together"),
        (_archive(list({**saved, "rows.npy": _npy(np.array(-2))}.items())), "-2 rows and 2 states"),
        (_archive(list({**saved, "rows.npy": _npy(np.array(2.0))}.items())), "an array is float64"),
        (_archive(list({**saved, "identity.npy": _npy(np.array(b"b" * 64))}.items())), "the states of another stream"),
        (content[:1000], "its directory does not end where it must"),
        (b"", "too short"),
        (content[:-1] + bytes([content[-1] ^ 1]), "its checksum differs"),
        (content[:2000] + bytes([content[2000] ^ 1]) + content[2001:], "its checksum differs"),
    ):
        _refused(streaming, bad, tmp_path, reason)
    for path, reason in (("/dev/zero", "it is a device"), (tmp_path / "none", "No such file")):
        with pytest.raises(ArtifactError, match=reason):
            streaming.stream(DRAWS).load(path)


def test_states_that_would_be_too_large_to_read_are_not_written(monkeypatch) -> None:
    monkeypatch.setattr(stream_npz, "MOST_BYTES", 2**17)
    with pytest.raises(InputError, match="Follow fewer sequences"):
        stream_npz.to_npz("a" * 64, 1, (np.zeros((16, 1000, 4), np.float32),))
