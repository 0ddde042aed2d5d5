"""Names and batches for what goes into and comes out of a torch module."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from redline.core.errors import InputError

SINGLE_OUTPUT = "output"


class FlatOutputs(nn.Module):
    """Answers with a flat tuple of tensors, whatever nesting the module inside answers with."""

    def __init__(self, module: nn.Module, taken: Collection[str]) -> None:
        super().__init__()
        self.module = module
        self.training = module.training  # eval() itself is refused by exported programs
        self.taken = tuple(taken)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensors of :func:`named_tensors`, in its order."""
        return tuple(named_tensors(self.module(*inputs), self.taken).values())


class KeywordInputs(nn.Module):
    """Takes tensors by position for a module that wants them by keyword."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.training = module.training  # eval() itself is refused by exported programs
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> Any:
        """What the module inside answers."""
        return self.module(**dict(zip(self.names, inputs, strict=True)))


def named_tensors(value: Any, taken: Collection[str] = ()) -> dict[str, Tensor]:
    """Flatten an answer: ``output`` for one tensor, ``output0``… for a sequence, the keys of a mapping or dataclass.

    Args:
        value: A tensor, or tensors nested in tuples, lists, mappings, named tuples and dataclasses; None is dropped.
        taken: Names that an output may not have (the inputs'); such an output is called ``<name>_out``.

    Raises:
        InputError: a leaf is not a tensor, there is none, or two have the same name.
    """
    if isinstance(value, Tensor):
        return {_free(SINGLE_OUTPUT, taken): value}
    found: dict[str, Tensor] = {}
    for name, tensor in _leaves(value, ""):
        free = _free(name, taken)
        if free in found:
            raise InputError(f"the model's answer has two outputs called {free!r}, expected distinct names")
        found[free] = tensor
    if not found:
        raise InputError("the model's answer holds no tensor; expected one at least")
    return found


def batch_size_of(inputs: Sequence[Tensor]) -> int | None:
    """The first size of the first input that has one; None where all are scalars."""
    return next((tensor.shape[0] for tensor in inputs if tensor.ndim), None)


def at_batch(inputs: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
    """The inputs repeated (or cut) to a batch of ``size``; those without the batch axis stay as they are."""
    batch = batch_size_of(inputs)
    return tuple(
        tensor.repeat(-(-size // batch), *[1] * (tensor.ndim - 1))[:size].contiguous()
        if batch and has_batch(tensor, batch)
        else tensor
        for tensor in inputs
    )


def has_batch(tensor: Tensor, batch: int | None) -> bool:
    """True where the first axis counts the samples, as far as sizes can tell."""
    return batch is not None and tensor.ndim > 0 and tensor.shape[0] == batch


def like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Other values of the same kind: floats within the range of ``tensor``, integers and booleans drawn from it."""
    if tensor.numel() == 0:
        return tensor
    if not tensor.is_floating_point():
        flat = tensor.flatten()
        return flat[torch.randint(len(flat), tensor.shape, generator=generator)]
    low, high = float(tensor.min()), float(tensor.max())
    if high <= low:
        low, high = low - 1.0, low + 1.0
    return (torch.rand(tensor.shape, generator=generator) * (high - low) + low).to(tensor.dtype)


@lru_cache(maxsize=4096)
def identifier(name: str) -> str:
    """``name`` with everything but letters, digits and underscores replaced.

    >>> identifier("boxes.raw 0")
    'boxes_raw_0'
    """
    return re.sub(r"\W", "_", name) or "_"


def _free(name: str, taken: Collection[str]) -> str:
    return f"{name}_out" if name in taken else name


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix or SINGLE_OUTPUT, value
    elif value is not None:
        for key, item in _items(value, prefix):
            yield from _leaves(item, key)


def _items(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    joint = f"{prefix}_" if prefix else ""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield joint + identifier(str(key)), item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield joint + field.name, getattr(value, field.name)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, item in zip(value._fields, value, strict=True):
            yield joint + key, item
    elif isinstance(value, list | tuple):
        if len(value) == 1:
            yield prefix, value[0]
            return
        for index, item in enumerate(value):
            yield (f"{joint}{index}" if prefix else f"{SINGLE_OUTPUT}{index}"), item
    else:
        raise InputError(
            f"the model's answer holds a {type(value).__name__} ({prefix or SINGLE_OUTPUT}), expected tensors only; "
            "wrap the model so that it returns tensors"
        )
