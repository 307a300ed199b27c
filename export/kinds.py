"""Which layers murho can export: BLiTZ's own, what is written like them, and those that a user registers."""

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
from torch import Tensor, nn

from ..runtime.checks import shown, words
from ..runtime.errors import ExportError, InputError
from .samplers import samplers_of

LayerForward = Callable[..., Tensor]


@dataclass(frozen=True)
class Kind:
    """A class of layers: its random tensors, in the posterior's order; `NAME_sampler` draws each of them."""

    cls: Any
    name: str
    tensors: tuple[str, ...]
    forward: LayerForward | None = None
    """For a registered layer: what it computes from given weights."""

    @property
    def recurrent(self) -> bool:
        return self.forward is None and self.cls in RECURRENT


CONVOLUTIONS = (BayesianConv1d, BayesianConv2d, BayesianConv3d)
RECURRENT = (BayesianLSTM, BayesianGRU)

_KINDS: dict[type, Kind] = {
    cls: Kind(cls, cls.__name__, tensors)
    for tensors, classes in (
        (("weight", "bias"), (BayesianLinear, *CONVOLUTIONS)),
        (("weight",), (BayesianEmbedding,)),
        (("weight_ih", "weight_hh", "bias"), RECURRENT),
    )
    for cls in classes
}
_BLITZ = tuple(_KINDS.values())


def register_layer(cls: type, tensors: Sequence[str]) -> Callable[[LayerForward], LayerForward]:
    """Teach murho a Bayesian layer of your own. A decorator for what the layer computes from given weights.

    `cls` is a module, often a subclass of BLiTZ's BayesianModule, that draws each of `tensors` by a sampler called
    NAME_sampler (BLiTZ's TrainableRandomDistribution, or one like it), once per forward pass. The decorated function
    gets `(layer, weights, *inputs)`:

    - `layer`: your module, for its sizes and flags;
    - `weights`: a dict from the name of each tensor to float32 `[S, *shape]`, S draws of it;
    - `inputs`: what your forward was given, each `[S, B, …]`, or `[1, B, …]` where it is the same for every draw;

    and returns `[S, B, …]`, in torch operations that keep S and B free. The exported file is compared with your layer's
    own forward pass, so a mistake here is an error at export. A layer with `freeze` set gets its means, S being 1.

    Raises InputError for a class that is no torch module, or one that murho knows.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"register_layer needs a class of torch modules, not {shown(cls)}.")
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


def is_layer(module: nn.Module) -> bool:
    """Whether a module draws weights of its own: a layer of BLiTZ's, one written like it, or a registered one."""
    return bool(samplers_of(module)) or any(cls in _KINDS for cls in type(module).__mro__)


def flipped(layer: nn.Module) -> type | None:
    """The class that BLiTZ's Flipout was put around; None for a layer without it."""
    cls = type(layer)
    return cls.__mro__[1] if cls.__name__ == "Flipout" and issubclass(cls.__mro__[1], nn.Module) else None


def candidates(name: str, layer: Any, flipout: str = "refuse") -> list[Kind]:
    """The kinds that the layer with this dotted name may be of, the likeliest first.

    By its class or one that it inherits from; else by the name of these, as of classes that were copied from BLiTZ;
    else by the tensors that it draws. Raises ExportError, with a way out, for a layer that cannot be of any.

    `flipout="plain"` takes a layer that BLiTZ's Flipout made for the one that it was made from.
    """
    cls = flipped(layer)
    if cls is not None and flipout != "plain":
        raise ExportError(
            f"Layer {name!r} is a BLiTZ Flipout layer, which perturbs by the whole weight instead of σ ⊙ ε: its "
            'spread is not the posterior\'s. Pass flipout="plain" to export the same posterior without Flipout.'
        )
    cls = cls or type(layer)
    if getattr(layer, "loss_to_sharpen", None) is not None:
        raise ExportError(
            f"Layer {name!r} has loss_to_sharpen set, so its weights depend on a loss. "
            "Call set_loss_to_sharpen(None) first."
        )
    held = samplers_of(layer)
    known = next((_KINDS[base] for base in cls.__mro__ if base in _KINDS), None)
    if known is not None:
        missing = [tensor for tensor in known.tensors if tensor not in held and tensor != "bias"]
        if missing:
            raise ExportError(
                f"Layer {name!r} has no {missing[0]}_sampler, which its kind {known.name} was registered with."
            )
        return [known]
    fitting = [kind for kind in _BLITZ if _holds(kind, held)]
    named = {base.__name__ for base in cls.__mro__}
    return sorted(fitting, key=lambda kind: kind.name not in named)


def _holds(kind: Kind, held: dict[str, Any]) -> bool:
    """Whether samplers of these names and shapes could be this kind's."""
    required = [tensor for tensor in kind.tensors if tensor != "bias"]
    if not set(required) <= set(held) <= set(kind.tensors):
        return False
    first = held[required[-1]].mu.shape  # of the weights, or those that read the state
    ranks = dict(zip(CONVOLUTIONS, (3, 4, 5), strict=True))
    width = 4 * first[0] if kind.recurrent else first[0]
    fits = len(first) == ranks.get(kind.cls, 2) and ("bias" not in held or held["bias"].mu.shape == (width,))
    return fits and (not kind.recurrent or held["weight_ih"].mu.shape[1:] == first[1:] == (width,))
