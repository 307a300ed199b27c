"""A user's network computing in float64, or in float32 where its own is another, and put back to the same tensors."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_PRECISIONS = (torch.float32, torch.float64)
_CASTS = {Tensor.float: torch.float32, Tensor.double: torch.float64}


@contextmanager
def in_precision(network: nn.Module, dtype: torch.dtype) -> Iterator[AbstractContextManager[Any]]:
    """Give every tensor of a network's modules this dtype; yields a context for its passes.

    In that context what a forward makes in the other of float32 and float64, or asks for, has this dtype too: zeros,
    constants, `x.float()`. It works on this thread alone, as torch's default dtype would not. Afterwards the tensors
    have the very memory that they had before: BLiTZ ties its copies by nothing else.
    """
    found = list({id(tensor): tensor for module in network.modules() for tensor in _tensors_of(module)}.values())
    others = [tensor for tensor in found if tensor.is_floating_point() and tensor.dtype != dtype]
    made: dict[Any, Tensor] = {}
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in others:
            data = tensor.data
            memory = data.data_ptr(), data.shape, data.stride(), data.dtype
            kept.append((tensor, data))
            tensor.data = made[memory] if memory in made else made.setdefault(memory, data.to(dtype))
        yield _Everywhere(dtype) if others or dtype == torch.float64 else nullcontext()
    finally:
        for tensor, data in reversed(kept):
            tensor.data = data


class _Everywhere(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        (self._other,) = (one for one in _PRECISIONS if one != dtype)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        dtype, other, kwargs = self._dtype, self._other, kwargs or {}
        if _CASTS.get(func) == other:
            return args[0].to(dtype)
        args = tuple(dtype if one is other else one for one in args)
        if kwargs.get("dtype") is other:
            kwargs = {**kwargs, "dtype": dtype}
        result = func(*args, **kwargs)
        return result.to(dtype) if isinstance(result, Tensor) and result.dtype is other else result


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from _tensors_in([list(module._parameters.values()), list(module._buffers.values())])
    yield from _tensors_in([value for key, value in vars(module).items() if not key.startswith("_")])


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors_in(part)
    elif type(value) is dict:
        yield from _tensors_in(list(value.values()))
