"""The runtime is light: what it imports, seen in a process of its own."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import murho

HEAVY = (
    "torch", "pandas", "onnx", "onnxscript", "blitz", "matplotlib", "typer", "rich", "scipy", "scoringrules", "sklearn",
    "mlflow", "fastapi", "pydantic",
)  # fmt: skip

CODE = """
import sys, numpy as np, murho
model = murho.load(sys.argv[1])
answer = model.predict(np.full((2, 21, 1), 100.0, np.float32), draws=32, level=[0.5, 0.9])
assert answer.mean.shape == (2, 1)
answer.coverage(np.zeros(2)), repr(model), model.card.to_json()
{culprit}
print(*sorted(name for name in sys.modules if "." not in name))
"""


def imported(path: Path, culprit: str = "") -> set[str]:
    """Top-level modules in a process that predicts, of those it should not need."""
    command = [sys.executable, "-c", CODE.format(culprit=culprit), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=path.parent)
    assert "numpy" in done.stdout.split()
    return set(done.stdout.split()) & set(HEAVY)


def test_predicting_imports_nothing_heavy(exported) -> None:
    assert imported(exported("demo").onnx) == set()


@pytest.mark.parametrize(
    ("culprit", "found"),
    [
        ("import pandas", "pandas"),
        ("answer.to_frame()", "pandas"),
        ("import scipy.stats", "scipy"),
        ("import murho.runtime.mlflow", "mlflow"),
    ],
)
def test_the_check_can_fail(exported, culprit: str, found: str) -> None:
    assert found in imported(exported("demo").onnx, culprit)


def run(code: str, path: Path) -> str:
    command = [sys.executable, "-c", "import sys\n" + code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=path.parent).stdout.strip()


def test_reading_a_card_of_torchscript_needs_no_torch(exported) -> None:
    code = """
sys.modules["torch"] = None
from murho.runtime.artifact import read
print(read(sys.argv[1]).card.name)
"""
    assert run(code, exported("demo").torchscript) == "demo"


def test_torchscript_without_torch_names_the_command(exported) -> None:
    path = exported("demo").torchscript
    code = """
sys.modules["torch"] = None
import murho
try:
    murho.load(sys.argv[1], trusted=True)
except murho.MissingExtra as error:
    print(isinstance(error, ImportError), isinstance(error, murho.MurhoError), error)
"""
    message = f'{path} is a TorchScript artifact and needs torch: pip install "murho[torchscript]"'
    assert run(code, path) == f"True True {message}"


def test_predicting_without_the_extras_at_all(exported) -> None:
    """Not only not imported: not there."""
    path = exported("demo").onnx
    code = f"""
sys.modules.update(dict.fromkeys({HEAVY}))
import murho, numpy as np
print(float(murho.load(sys.argv[1]).predict(np.ones((1, 21, 1)), 32).mean[0, 0]))
"""
    assert float(run(code, path)) == murho.load(path).predict(np.ones((1, 21, 1)), 32).mean[0, 0]


@pytest.mark.parametrize("package", ["torch", "blitz"])
@pytest.mark.parametrize("module", ["export", "train", "models", "evaluation"])
def test_what_needs_the_train_extra_names_the_command(exported, module: str, package: str) -> None:
    code = f"""
sys.modules["{package}"] = None
import murho
try:
    import murho.{module}
except murho.MissingExtra as error:
    print(error)
"""
    found = run(code, exported("demo").onnx)
    assert found.endswith(f"needs the package '{package}': pip install \"murho[train]\"")


def test_a_mistake_of_ours_is_no_missing_extra() -> None:
    from murho.runtime.errors import needs_extra

    with pytest.raises(ModuleNotFoundError, match=r"murho\.nothing") as caught, needs_extra("murho.export", "train"):
        importlib.import_module("murho.nothing")
    assert not isinstance(caught.value, murho.MissingExtra)


def test_a_table_without_pandas_names_the_command(exported) -> None:
    code = """
sys.modules["pandas"] = None
import murho, numpy as np
try:
    murho.load(sys.argv[1]).predict(np.ones((1, 21, 1)), 32).to_frame()
except murho.MissingExtra as error:
    print(error)
"""
    assert run(code, exported("demo").onnx) == 'to_frame needs pandas: pip install "murho[cli]"'
