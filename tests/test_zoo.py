"""Networks as people write them, tests/zoo: each does in every format what its file says, and the page says it too."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import zoo
import zoo_page
from zoo_page import EXPORTS, UnexpectedError, anchor, checked, compare, details, row

import murho
from murho.export import to_torchscript

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "will-my-network-work.md").read_text(encoding="utf-8")
NAMES = zoo.names()
PT2_OF = 5  # a .pt2 costs as much as three of the other two together: one network of five here, all on the page


@pytest.mark.parametrize("name", NAMES)
def test_a_network_does_what_its_file_and_the_page_say(name: str) -> None:
    found = zoo.pattern(name)
    formats = tuple(EXPORTS) if NAMES.index(name) % PT2_OF == 0 else ("ONNX", "TorchScript")
    seen, mended = checked(found, formats)
    assert f"{row(found, seen, mended)}\n" in PAGE
    assert details(found, seen, mended).strip() in PAGE


def test_the_page_has_every_network_and_no_other() -> None:
    found = [zoo.pattern(name) for name in NAMES]
    titles = {anchor(one.title) for one in found}
    assert len(titles) == len(found)
    assert PAGE.count("\n| ") == len(found) + PAGE.count("\n| network |")
    assert {anchor(line[4:]) for line in PAGE.splitlines() if line.startswith("### ")} <= titles


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[zoo.Pattern, murho.Model]:
    found, path = zoo.pattern("classifier"), tmp_path_factory.mktemp("zoo") / "classifier.pt"
    to_torchscript(found.network(), path, found.example(), **found.options)
    return found, murho.load(path, trusted=True)


@pytest.mark.parametrize("name", ["layers.0.weight_sampler.rho", "layers.2.bias_sampler.mu"])
def test_a_file_of_another_posterior_is_seen(exported, name: str) -> None:
    found, model = exported
    network = found.network()
    assert compare(found, network, found.example(), found.options, {"TorchScript": model}) <= 1e-6
    damaged = found.network()
    with torch.no_grad():
        damaged.get_parameter(name).mul_(1.01)
    with pytest.raises(UnexpectedError, match="classifier, TorchScript: output of 5 rows is off by"):
        compare(found, damaged, found.example(), found.options, {"TorchScript": model})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ("x [B, T]",)}, r"INPUTS is \('x \[B, T\]',\), but the card says \('x \[B, 4\]',\)"),
        ({"notes": ("is fixed at",)}, r"notes \[\] are not in NOTES, or \['is fixed at'\] was never said"),
        ({"refused": {"TorchScript": "branches"}}, "a refusal with 'branches' was expected, but there was an export"),
    ],
)
def test_a_file_that_says_something_else_is_seen(changes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_page, "EXPORTS", {"TorchScript": EXPORTS["TorchScript"]})
    with pytest.raises(UnexpectedError, match=message):
        checked(replace(zoo.pattern("classifier"), **changes), ("TorchScript",))
