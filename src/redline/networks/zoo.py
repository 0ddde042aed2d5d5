"""Build the models of the table, with weights of theirs, of a file, or of a seed."""

from __future__ import annotations

import difflib
import importlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from redline.core.errors import ArtifactError, InputError
from redline.networks.seeded import digest_of, seed_weights
from redline.networks.table import MODELS, ZooEntry

ASSETS = Path(__file__).parent / "assets"
SEED = 0


def build(name: str, weights: str | Path | None = None) -> nn.Module:
    """A built-in model in evaluation mode.

    Args:
        name: A key of :data:`redline.networks.table.MODELS`.
        weights: None for the entry's own (or a seed's, where it has none); ``random`` for a seed's; else a
            ``.safetensors``, ``.pt`` or ``.pth`` file with a state dict, whose head decides the number of classes.

    Raises:
        InputError: an unknown name.
        ArtifactError: the weights are missing, unreadable, unsafe to read, or another model's.
    """
    try:
        entry = MODELS[name]
    except KeyError as error:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"there is no built-in model {name!r}, expected one of {', '.join(MODELS)}{hint}") from error
    if weights == "random" or (weights is None and entry.weights is None):
        model = _factory(entry)()
        seed_weights(model, SEED)
        return model.eval()
    path = ASSETS / str(entry.weights) if weights is None else Path(weights)
    return load_weights(_factory(entry), path)


def load_weights(factory: Callable[..., nn.Module], path: Path) -> nn.Module:
    """A model with the weights of a file, in evaluation mode.

    Raises:
        ArtifactError: the file is missing, unreadable, unsafe to read, or another model's.
    """
    stored = _read(path)
    head = stored.tensors.get("fc.weight")
    model = factory() if head is None or head.ndim != 2 else factory(num_classes=len(head))
    if stored.seed is not None:
        seed_weights(model, stored.seed)
    try:
        missing, unexpected = model.load_state_dict(dict(stored.tensors), strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArtifactError(f"{path} holds another model's weights: {reason}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if stored.seed is not None and not unexpected:
        _check_seeded(path, model, missing, stored)
    elif missing or unexpected:
        raise ArtifactError(
            f"{path} holds another model's weights: missing {_some(missing)}; unexpected {_some(unexpected)}"
        )
    return model.eval()


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a file of weights holds; with a seed, the tensors it lacks are drawn from it."""

    tensors: Mapping[str, torch.Tensor]
    seed: int | None = None
    seeded_sha256: str = field(default="")


def _check_seeded(path: Path, model: nn.Module, missing: list[str], stored: _Stored) -> None:
    state = model.state_dict()
    if digest_of({key: state[key] for key in missing}) != stored.seeded_sha256:
        raise ArtifactError(f"{path} was trained beside other weights than this version of Redline draws from its seed")


def _factory(entry: ZooEntry) -> Callable[..., nn.Module]:
    module, _, function = entry.factory.partition(":")
    return cast("Callable[..., nn.Module]", getattr(importlib.import_module(module), function))


def _some(keys: list[str]) -> str:
    if not keys:
        return "nothing"
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _read(path: Path) -> _Stored:
    if not path.is_file():
        raise ArtifactError(f"{path} is not there; expected 'random' or a .safetensors, .pt or .pth file of weights")
    match path.suffix.lower():
        case ".safetensors":
            return _read_safetensors(path)
        case ".pt" | ".pth":
            return _Stored(_read_pickle(path))
        case suffix:
            raise ArtifactError(f"{path} ends in {suffix!r}, expected weights in .safetensors, .pt or .pth")


def _read_safetensors(path: Path) -> _Stored:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is not a whole safetensors file ({error})") from error
    seed = metadata.get("seed")
    if seed is None:
        return _Stored(tensors)
    return _Stored(tensors, int(seed), metadata.get("seeded_sha256", ""))


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} holds Python objects, not tensors alone, and loading those could run any code; "
            "save model.state_dict() instead"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path} is not a whole file of weights ({reason})") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    return _tensors(path, value)


def _tensors(path: Path, value: Any) -> dict[str, torch.Tensor]:
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise ArtifactError(f"{path} holds {type(value).__name__}, expected a state dict of tensors")
    # DistributedDataParallel prefixes every name.
    return {str(key).removeprefix("module."): tensor for key, tensor in value.items()}
