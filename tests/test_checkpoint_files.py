"""Checkpoints of strangers: files whose digest is true and whose content is not what training writes."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from murho.models import Autoregressor, Classifier, Forecaster, Regressor
from murho.runtime import ArtifactError, InputError
from murho.runtime.artifact import sealed_zip
from murho.train import builtin_series, fit, load_checkpoint, prepare, weights_file
from murho.train.checkpoint_check import check_architecture
from murho.train.weights_file import from_bytes, to_bytes


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "checkpoint.pt"
    torch.manual_seed(0)
    fit(
        Forecaster(hidden=3),
        prepare(builtin_series(), 5, 1),
        epochs=1,
        batch_size=1024,
        progress=False,
        checkpoint=path,
    )
    return path.read_bytes()


def _with_records(content: bytes, **changed: bytes) -> bytes:
    """The records of these names with other contents, and a true digest; `data_pkl` is archive/data.pkl."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            key = name.removeprefix("archive/").replace("/", "_").replace(".", "_")
            target.writestr(zipfile.ZipInfo(name), changed.get(key, source.read(name)))
    return sealed_zip(made.getvalue())


def _pickled(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read("archive/data.pkl")


def test_torch_reads_the_file_and_says_the_same(good: bytes) -> None:
    theirs, ours = torch.load(io.BytesIO(good), weights_only=True), from_bytes(good)
    assert theirs.keys() == ours.keys()
    for part in ("state", "current"):
        for key, value in theirs[part].items():
            assert torch.equal(value, ours[part][key])
    for part in ("config", "settings", "history", "scaling", "fingerprint", "shape"):
        assert theirs[part] == ours[part]
    states = zip(theirs["optimizer"]["state"].values(), ours["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(one[key], other[key]) for one, other in states for key in one)


@pytest.mark.parametrize("dtype", weights_file.STORAGES.values(), ids=str)
def test_tensors_of_every_type_and_shape(dtype: torch.dtype) -> None:
    whole = torch.arange(24).to(dtype)
    tensors = [whole, whole.reshape(2, 3, 4), whole.reshape(4, 6).T, whole[3:9:2], whole[0], whole[:0]]
    for tensor, found in zip(tensors, from_bytes(to_bytes({"all": tensors}))["all"], strict=True):
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found, tensor)


class _Runs:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_record_shorter_than_its_tensor_is_not_read_beyond_its_end(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(_with_records(good, data_0=b"\0" * 4))
    with pytest.raises(ArtifactError, match=r"record 0 has 1 of torch\.float32, not 12 of torch\.float32"):
        load_checkpoint(tmp_path / "c.pt")


def _doubling() -> bytes:
    """Lists that hold the one before many times over: small in memory, endless to walk."""
    later = [b"]q" + bytes([k + 1]) + b"(" + (b"h" + bytes([k])) * 30 + b"e" for k in range(5)]
    return b"\x80\x02]q\x00(" + b"K\x01" * 30 + b"e" + b"".join(later) + b"."


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (pickle.dumps(_Runs(), 2), r"builtins.print in its pickle|__builtin__.print in its pickle"),
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", "os.system in its pickle"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "place 2147483647 in its pickle"),
        (b"\x80\x02" + b"]" * 50 + b"a" * 49 + b".", "too deep in each other"),
        (b"\x80\x02]q\x00h\x00a.", "too deep in each other"),  # a list that holds itself
        (b"\x80\x02(lp0\n.", "LIST in its pickle"),
        (b"\x80\x02ctorch\nFloatStorage\n.", "a value of"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "its values cannot be read"),
        (b"", "its values cannot be read"),
        (_doubling(), "too many values"),
        (b"\x80\x02K\x01.", "its values have no names"),
        (b"\x80\x02}K\x01K\x02s.", "its values have no names"),
    ],
)  # fmt: skip
def test_a_pickle_that_is_no_checkpoint(good: bytes, tmp_path: Path, pickled: bytes, reason: str, capsys) -> None:
    (tmp_path / "c.pt").write_bytes(_with_records(good, data_pkl=pickled))
    with pytest.raises(ArtifactError, match=f"is not a checkpoint, or is damaged .*({reason})"):
        load_checkpoint(tmp_path / "c.pt")
    assert capsys.readouterr().out == ""


FIELDS: list[tuple[str, Any, str]] = [
    ("kind", 3, "kind must be a text"),
    ("task", "guessing", "task must be one of"),
    ("features", ["a"], "features must be texts"),
    ("shape", (0, 1), "shape must be sizes"),
    ("shape", (), "shape must be sizes"),
    ("window", 0, "window must be a size"),
    ("horizon", 1.0, "horizon must be a size"),
    ("splits", (0.6, 0.4), "three shares"),
    ("splits", (0.6, 0.4, float("nan")), "three shares"),
    ("config", [], "config must be values by name"),
    ("state", {}, "state must be tensors by name"),
    ("state", {"a": 1}, "state must be tensors by name"),
    ("current", {"a": torch.zeros(1)}, "current must be tensors like those of state"),
    ("optimizer", {}, "optimizer must be state and param_groups"),
    ("history", {"best_epoch": 2, "validation": (1.0,), "likelihood": (1.0,), "complexity": (1.0,)}, "best_epoch"),
    ("history", {"best_epoch": 1, "validation": (1.0,), "likelihood": (), "complexity": (1.0,)}, "as many numbers"),
    ("history", {"best_epoch": 1, "validation": (1,), "likelihood": (1.0,), "complexity": (1.0,)}, "as many"),
    ("fingerprint", (1,), "fingerprint must be texts"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "reason"), FIELDS)
def test_a_field_that_no_training_writes(good: bytes, tmp_path: Path, name: str, value: Any, reason: str) -> None:
    (tmp_path / "c.pt").write_bytes(to_bytes({**from_bytes(good), name: value}))
    with pytest.raises(ArtifactError, match=f"lacks or garbles a field .*{reason}"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("name", ["format", "schema", "kind", "noise", "config", "history", "fingerprint"])
def test_a_tensor_where_none_belongs(good: bytes, tmp_path: Path, name: str) -> None:
    for value in (torch.zeros(0), {"hidden": torch.zeros(3)}, (torch.ones(1),)):
        (tmp_path / "c.pt").write_bytes(to_bytes({**from_bytes(good), name: value}))
        said = "is not a checkpoint of murho" if name == "format" else f"is damaged .{name} must be plain values"
        with pytest.raises(ArtifactError, match=said):
            load_checkpoint(tmp_path / "c.pt")


def test_weights_that_are_not_numbers(good: bytes, tmp_path: Path) -> None:
    for part in ("state", "current"):
        values = from_bytes(good)
        values[part] = {**values[part], "head.weight": torch.full_like(values[part]["head.weight"], float("nan"))}
        (tmp_path / "c.pt").write_bytes(to_bytes(values))
        with pytest.raises(ArtifactError, match=f"{part} must be numbers, and not NaN"):
            load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "config",
    [{"hidden": 10**9}, {"layers": 10**9}, {"features": 10**15}, {"hidden": "a"}, {"hidden": 2**80}, {"hidden": -3}],
)
def test_settings_of_a_larger_network_take_no_memory(good: bytes, tmp_path: Path, config: dict[str, Any]) -> None:
    values = from_bytes(good)
    (tmp_path / "c.pt").write_bytes(to_bytes({**values, "config": {**values["config"], **config}}))
    with pytest.raises(ArtifactError, match="The checkpoint's weights and settings do not agree"):
        load_checkpoint(tmp_path / "c.pt").network()


@pytest.mark.parametrize(
    "network",
    [
        Forecaster(),
        Forecaster(features=40, hidden=3, layers=3, cell="gru", horizon=9, learned_noise=True),
        Regressor(500, hidden=()),
        Regressor(3, hidden=(1, 200), outputs=7),
        Autoregressor(window=50, features=3, hidden=(2,), horizon=12),
        Classifier(),
        Classifier(channels=3, size=40, classes=2, filters=(4,), kernel=3, padding=1, hidden=()),
        Classifier(size=64, filters=(2, 3, 4, 5), kernel=3, padding=1),
        Classifier(size=65, filters=(1, 1, 1), kernel=4, hidden=(3,)),
    ],
    ids=lambda network: f"{type(network).__name__}",
)
def test_every_network_of_ours_has_the_weights_that_its_settings_need(network: Any) -> None:
    check_architecture(type(network).__name__, network.config, network.state_dict())
    needed = {key: part for key, part in network.state_dict().items() if key.endswith("mu")}
    half = {key: part.flatten()[: part.numel() // 3] for key, part in needed.items()}
    with pytest.raises(ValueError, match="weights or more"):
        check_architecture(type(network).__name__, network.config, half)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, reason in (("/dev/zero", "it is a device, not a file"), (tmp_path, "it is a folder, not a file")):
        with pytest.raises(ArtifactError, match=reason):
            load_checkpoint(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ArtifactError, match="may have 2,147,483,647 at most"):
        load_checkpoint(tmp_path / "large")
    with pytest.raises(InputError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be a path"):
        load_checkpoint("a\0b")


def test_weights_that_would_be_too_large_to_read_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_file, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="may have 1,000 bytes; these take"):
        to_bytes({"a": torch.zeros(1000)})
