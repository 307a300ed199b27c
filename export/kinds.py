"""Which layers murho can export: BLiTZ's own, and those that a user registers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blitz.modules import (
    BayesianConv1d,
    BayesianConv2d,
    BayesianConv3d,
    BayesianEmbedding,
    BayesianGRU,
    BayesianLinear,
    BayesianLSTM,
)
from blitz.modules.base_bayesian_module import BayesianModule
from torch import Tensor

from ..runtime.checks import shown, words
from ..runtime.errors import ExportError, InputError

LayerForward = Callable[..., Tensor]


@dataclass(frozen=True)
class Kind:
    """A class of layers: its random tensors, in the posterior's order; `NAME_sampler` draws each of them."""

    cls: Any
    name: str
    tensors: tuple[str, ...]
    forward: LayerForward | None = None
    """For a registered layer: what it computes from given weights."""


CONVOLUTIONS = (BayesianConv1d, BayesianConv2d, BayesianConv3d)

_KINDS: dict[type, Kind] = {
    cls: Kind(cls, cls.__name__, tensors)
    for tensors, classes in (
        (("weight", "bias"), (BayesianLinear, *CONVOLUTIONS)),
        (("weight",), (BayesianEmbedding,)),
        (("weight_ih", "weight_hh", "bias"), (BayesianLSTM, BayesianGRU)),
    )
    for cls in classes
}


def register_layer(cls: type, tensors: Sequence[str]) -> Callable[[LayerForward], LayerForward]:
    """Teach murho a Bayesian layer of your own. A decorator for what the layer computes from given weights.

    `cls` is a subclass of BLiTZ's BayesianModule that draws each of `tensors` by a BLiTZ sampler called NAME_sampler,
    once per forward pass. The decorated function gets `(layer, weights, *inputs)`:

    - `layer`: your module, for its sizes and flags;
    - `weights`: a dict from the name of each tensor to float32 `[S, *shape]`, S draws of it;
    - `inputs`: what your forward was given, each `[S, B, …]`, or `[1, B, …]` where it is the same for every draw;

    and returns `[S, B, …]`, in torch operations that keep S and B free. The exported file is compared with your layer's
    own forward pass, so a mistake here is an error at export. A layer with `freeze` set gets its means, S being 1.

    Raises InputError for a class that is not BLiTZ's, or one that murho knows.
    """
    if not (isinstance(cls, type) and issubclass(cls, BayesianModule)):
        raise InputError(f"register_layer needs a subclass of BLiTZ's BayesianModule, not {shown(cls)}.")
    try:
        tensors = words("tensors", tensors)
    except InputError:
        tensors = ()
    if not tensors:
        raise InputError("tensors must name the layer's random tensors, such as ('weight', 'bias').")
    if cls in _KINDS and _KINDS[cls].forward is None:
        raise InputError(f"{cls.__name__} is BLiTZ's own layer, which murho exports already.")

    def register(forward: LayerForward) -> LayerForward:
        _KINDS[cls] = Kind(cls, cls.__name__, tuple(tensors), forward)
        return forward

    return register


def kind_of(name: str, layer: Any, flipout: str = "refuse") -> Kind:
    """The kind of the layer with this dotted name. Raises ExportError, with a way out, if it cannot be exported.

    `flipout="plain"` takes a layer that BLiTZ's Flipout made for the one that it was made from.
    """
    cls = type(layer)
    if cls.__module__ == "blitz.utils.layer_wrappers" and cls.__name__ == "Flipout":
        if flipout != "plain":
            raise ExportError(
                f"Layer {name!r} is a BLiTZ Flipout layer, which perturbs by the whole weight instead of σ ⊙ ε: its "
                'spread is not the posterior\'s. Pass flipout="plain" to export the same posterior without Flipout.'
            )
        cls = cls.__mro__[1]
    if cls not in _KINDS:
        raise ExportError(
            f"Layer {name!r} is a {cls.__name__}, which murho does not know. It knows "
            f"{', '.join(kind.name for kind in _KINDS.values())}. Teach it yours with murho.export.register_layer."
        )
    kind = _KINDS[cls]
    if getattr(layer, "loss_to_sharpen", None) is not None:
        raise ExportError(
            f"Layer {name!r} has loss_to_sharpen set, so its weights depend on a loss. "
            "Call set_loss_to_sharpen(None) first."
        )
    for tensor in kind.tensors:
        sampler = getattr(layer, f"{tensor}_sampler", None)
        if sampler is None and tensor == "bias":
            continue
        if sampler is None:
            raise ExportError(
                f"Layer {name!r} has no {tensor}_sampler, which its kind {kind.name} was registered with."
            )
        if "sample" in vars(sampler) or type(sampler).sample.__module__ != "blitz.modules.weight_sampler":
            raise ExportError(
                f"Layer {name!r} draws its {tensor} by a sample() of its own instead of BLiTZ's, so its law is not "
                "N(μ, σ²). murho exports plain BLiTZ samplers only."
            )
    return kind
