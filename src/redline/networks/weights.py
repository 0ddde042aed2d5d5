"""Read a file of weights without running anything that is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from redline.core.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        tensors: By the name of the parameter or buffer.
        metadata: Text that a safetensors file carries besides.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Tensors by name; nesting under ``state_dict`` or ``model`` and DataParallel's ``module.`` come off.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote of a state dict.

    Raises:
        ArtifactError: the file is missing, broken, unsafe to read, or holds something else than tensors.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is not there; expected weights (.safetensors, or a state dict .pt or .pth)")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    value = load_pickle(path)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    if not isinstance(value, Mapping) or not all(isinstance(item, Tensor) for item in value.values()):
        raise ArtifactError(f"{path} holds {kind_of(value)}, expected a state dict (tensors by name)")
    wrapped = bool(value) and all(str(name).startswith("module.") for name in value)
    return Weights({str(name).removeprefix("module." if wrapped else ""): tensor for name, tensor in value.items()})


def load_pickle(path: Path) -> Any:
    """Whatever ``torch.save`` wrote, as far as loading it cannot run code.

    Raises:
        ArtifactError: the file is broken, or is a pickled object.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "GLOBAL" not in str(error) and "class" not in str(error):  # not an object that it refuses: no pickle at all
            raise ArtifactError(f"{path} is truncated or not a PyTorch file ({path.stat().st_size} bytes)") from error
        raise ArtifactError(
            f"{path} is a pickled Python object, and loading one runs whatever code is in it; save the state dict "
            "(torch.save(model.state_dict(), ...)) or the program (torch.export.save) instead"
        ) from error
    except (RuntimeError, OSError, KeyError, EOFError, ValueError) as error:
        raise ArtifactError(f"{path} is truncated or not a PyTorch file ({path.stat().st_size} bytes)") from error


def kind_of(value: object) -> str:
    """The type of a value, in words for an error."""
    return "None" if value is None else f"a {type(value).__name__}"


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
            return Weights(tensors, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is truncated or not a safetensors file ({error})") from error
