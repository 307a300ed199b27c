"""The weights that a finished file holds, read back from it: bit for bit those of the posteriors.

One wrong weight in thousands moves no sample by more than rounding does, so no comparison of samples can find it.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from ..runtime.artifact import Artifact
from ..runtime.engines import Engine, ProgramEngine, TorchScriptEngine
from ..runtime.errors import ExportError
from ..runtime.graph import KIND, READS, attribute, makers, nodes, part
from ..runtime.protobuf import strings
from .posterior import Posterior, lacks_bias, used_part
from .precision import in_precision
from .reference import forgetting
from .samplers import is_blitz, samplers_of
from .subject import Subject

_SAMPLING = ("BayesianWeights", "BayesianLinearLocal", "BayesianLinearNoBiasLocal")
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
"""μ and σ [n]."""


def check_weights(subject: Subject, engine: Engine, artifact: Artifact) -> dict[str, int]:
    """Hold the posteriors against BLiTZ's samplers, and what the file holds against the posteriors.

    Raises ExportError for a weight that differs, by its place.
    """
    posteriors = subject.posteriors
    for posterior in posteriors.values():
        _check_read(posterior)
    layers = 0
    for layer, found in _held(subject, engine, artifact):
        layers += 1
        posterior, wanted = posteriors[layer], _wanted(posteriors[layer])
        for name, want, got in zip(("μ", "σ"), wanted, found, strict=True):
            if want.tobytes() != np.ascontiguousarray(got).tobytes():
                _refuse(posterior, name, want, got, "The file holds another weight than the network")
    return {"layers": layers, "weights": sum(len(posteriors[site.layer].mu) for site in subject.plan.sites or ())}


def _held(subject: Subject, engine: Engine, artifact: Artifact) -> Iterator[tuple[str, Weights]]:
    """Layers by dotted name, each with what the file holds for it: for every site, and every frozen layer."""
    if artifact.format == "onnx":
        yield from _in_onnx(subject, artifact.content)
        return
    assert isinstance(engine, TorchScriptEngine | ProgramEngine)
    held = dict(engine.module.named_buffers())
    if isinstance(engine, ProgramEngine):
        held |= _expanded(engine.module)
    called = {site.layer for site in subject.plan.sites or ()}
    paths: dict[nn.Module, list[str]] = {}  # torch.export keeps a layer of two names under either
    for path, module in subject.network.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    for layer, posterior in subject.posteriors.items():
        names = [f"network.{path}.{inner}mu" for path in paths[posterior.module] for inner in ("", "expanding.")]
        name = next((name for name in names if name in held), None)
        if name is None and layer in called:
            raise ExportError(f"The file holds no weights for layer {layer!r}, which the network's forward calls.")
        if name is not None:
            yield layer, (held[name].cpu().numpy(), held[name.removesuffix("mu") + "sigma"].cpu().numpy())


def _in_onnx(subject: Subject, content: bytes) -> Iterator[tuple[str, Weights]]:
    """As ONNX Runtime computes them from the file's constants, for each node that samples."""
    model = memoryview(content)
    every = nodes(model)
    sampling = [node for node in every if strings(node, KIND)[0] in _SAMPLING]
    names = list(dict.fromkeys(name for node in sampling for name in strings(node, READS)[-2:]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        part(model, makers(every, names), [], names), options, providers=["CPUExecutionProvider"]
    )
    held = dict(zip(names, session.run(names, {}), strict=True))
    frozen = {_wanted(p)[0].tobytes(): name for name, p in subject.posteriors.items() if p.frozen}
    for node in sampling:
        mu, sigma = (held[name] for name in strings(node, READS)[-2:])
        if "draws" in strings(node, READS):
            yield (subject.plan.sites or ())[attribute(node, "site")].layer, (mu, sigma)
        elif mu.tobytes() in frozen:  # a frozen layer has no site, and is known by its weights alone
            yield frozen[mu.tobytes()], (mu, sigma)
        else:
            raise ExportError("The file holds weights, all the same for every draw, that no frozen layer has.")


def _expanded(module: fx.GraphModule) -> dict[str, Tensor]:
    """The μ and σ that a program makes of coded posteriors: the last of what follows from these constants alone."""
    known: dict[fx.Node, Tensor] = {}
    sources: dict[fx.Node, str] = {}
    ends = {"halves": "mu", "codes": "sigma"}
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target).rpartition(".")[2] in ends:
            known[node], sources[node] = module.get_buffer(str(node.target)), str(node.target)
        elif node.op == "call_function" and node.all_input_nodes and all(n in known for n in node.all_input_nodes):
            known[node] = node.target(*fx.map_arg(node.args, known.get), **fx.map_arg(node.kwargs, known.get))
            sources[node] = sources[node.all_input_nodes[0]]
    expanded = {}
    for node, name in sources.items():
        if any(user not in known for user in node.users):
            path, _, end = name.rpartition(".")
            expanded[f"{path}.{ends[end]}"] = known[node]
    return expanded


def _check_read(posterior: Posterior) -> None:
    """Hold μ and σ as they were read against those that BLiTZ's own samplers compute in float64."""
    if posterior.coded is not None:
        return
    samplers, layer = samplers_of(posterior.module), posterior.module
    read = zip(posterior.split(posterior.mu).items(), posterior.split(posterior.sigma).values(), strict=True)
    with in_precision(layer, torch.float64), forgetting(layer), torch.no_grad(), torch.random.fork_rng([]):
        for (tensor, mu), sigma in read:
            if tensor == "bias" and lacks_bias(layer, posterior.kind):
                continue
            sampler = samplers[tensor]
            _check_alike(posterior, tensor, "μ", sampler.mu, mu)
            if not posterior.frozen and is_blitz(sampler):  # another's σ was read from what it draws
                sampler.sample()
                _check_alike(posterior, tensor, "σ", sampler.sigma, sigma)


def _check_alike(posterior: Posterior, tensor: str, name: str, theirs: Tensor, ours: Tensor) -> None:
    want = used_part(posterior.kind, tensor, theirs.detach().cpu())
    # float64's two ways to σ, rounded once to float32, lie within a unit in the last place.
    if not (want - ours.double()).abs().le(2.0**-23 * want.abs() + 2.0**-149).all():
        _refuse(posterior, name, want.float().flatten().numpy(), ours.flatten().numpy(), "murho reads another weight")


def _wanted(posterior: Posterior) -> Weights:
    sigma = torch.zeros_like(posterior.sigma) if posterior.frozen else posterior.sigma
    return posterior.mu.numpy(), sigma.numpy()


def _refuse(posterior: Posterior, name: str, want: NDArray[Any], got: NDArray[Any], what: str) -> NoReturn:
    if want.shape != got.shape:
        raise ExportError(f"{what}: layer {posterior.layer!r} has {want.size} of {name} there and {got.size} here.")
    (places,) = np.nonzero(want.view(np.int32) != got.view(np.int32))
    raise ExportError(
        f"{what}: {name} number {places[0]} of layer {posterior.layer!r} is {got[places[0]]:.9g} in place of "
        f"{want[places[0]]:.9g}, and {len(places)} of {want.size} differ. The network is "
        "not to blame; try another format."
    )
