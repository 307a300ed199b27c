"""Errors point at the user's own line, however far down they were raised."""

import importlib.util
import linecache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from murho.export import blame
from murho.export.blame import Line, line_now, line_of

INNER = """
import torch
from torch import nn

class Inner(nn.Module):
    def forward(self, x):
        return x.view(
            8, -1
        )

class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(nn.Identity(), nn.Sequential(Inner()))

    def forward(self, x):
        return self.parts(x)
"""


def imported(file: Path, text: str) -> ModuleType:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def failure(call: Any, *arguments: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it raises
        call(*arguments)
    error = caught.value
    assert error.__traceback__ is not None
    # What an `except` sees begins at the call: not at this test's own line.
    return error.with_traceback(error.__traceback__.tb_next.tb_next)


def test_the_innermost_line_of_nested_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = imported(tmp_path / "src" / "network.py", INNER).Outer()
    line = line_of(failure(network, torch.zeros(3, 5)))
    assert line is not None
    assert str(line) == "src/network.py:7: `return x.view(`"
    monkeypatch.chdir("/")
    assert line.place == f"{str(tmp_path)[1:]}/src/network.py:7"


def test_a_lambda() -> None:
    def odd(x: Any) -> Any:
        return (lambda y: y.view(8, -1))(x)

    line = line_of(failure(odd, torch.zeros(3, 5)))
    assert line is not None
    assert line.source == "return (lambda y: y.view(8, -1))(x)"


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("<ipython-input-3-0123456789ab>", "<ipython-input-3-0123456789ab>:5"),
        ("/tmp/ipykernel_1234/56789.py", "line 5 of a notebook's cell"),
    ],
)
def test_a_notebooks_cell(monkeypatch: pytest.MonkeyPatch, file: str, place: str) -> None:
    text = "from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return x.view(8, -1)\n"
    monkeypatch.setitem(linecache.cache, file, (len(text), None, text.splitlines(True), file))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, file, "exec"), names)
    assert str(line_of(failure(names["Net"](), torch.zeros(3, 5)))) == f"{place}: `return x.view(8, -1)`"


def test_an_installed_package_is_the_users_where_nothing_else_is(tmp_path: Path) -> None:
    network = imported(tmp_path / "site-packages" / "theirs" / "network.py", INNER).Outer()
    error = failure(network, torch.zeros(3, 5))
    line = line_of(error)
    assert line is not None
    assert line.place.endswith("site-packages/theirs/network.py:7")

    class Around(nn.Module):
        def forward(self, x: Any) -> Any:
            return network(x)

    line = line_of(failure(Around(), torch.zeros(3, 5)))
    assert line is not None
    assert line.source == "return network(x)"


def test_libraries_have_no_line_of_the_users() -> None:
    assert line_of(failure(nn.Linear(3, 1), torch.zeros(3, 5))) is None
    for module in (torch, torch.nn.functional, blame, pytest, importlib.util):
        assert blame.is_library(str(module.__file__)) or module is pytest
    assert not blame.is_library(__file__)


def test_an_error_that_was_wrapped() -> None:
    def forward(x: Any) -> Any:
        return x.view(8, -1)

    def wrapping(x: Any) -> Any:
        try:
            forward(x)
        except RuntimeError as error:
            raise ValueError("advice") from error

    line = line_of(failure(wrapping, torch.zeros(3, 5)))
    assert line is not None
    assert line.source == "return x.view(8, -1)"


def test_an_error_whose_message_quotes_the_line() -> None:
    number = test_a_lambda.__code__.co_firstlineno
    quoted = f'from user code:\n   File "{__file__}", line {number}, in forward\n  File "{torch.__file__}", line 3'
    assert line_of(ValueError(quoted)) == Line(__file__, number)


def test_the_line_that_is_running() -> None:
    found: list[Line | None] = []

    class Hooked(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.relu(self.inner(x))

    def call(network: nn.Module, x: Any) -> Any:
        return network(x)

    names: dict[str, Any] = {"found": found, "line_now": line_now, "call": call}
    exec(compile("def hook(*_): found.append(line_now(call))", "<frozen hook>", "exec"), names)
    network = Hooked()
    network.inner = nn.Linear(3, 1)
    network.inner.register_forward_hook(names["hook"])
    call(network, torch.zeros(2, 3))
    call(network.inner, torch.zeros(2, 3))
    line, none = found
    assert line is not None
    assert line.source == "return torch.relu(self.inner(x))"
    assert none is None
