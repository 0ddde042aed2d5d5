"""Build the models of the table, with weights of theirs, of a file, or of a seed."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

from torch import nn

from redline.core.errors import ArtifactError, InputError
from redline.networks.seeded import digest_of, seed_weights
from redline.networks.table import MODELS, ZooEntry
from redline.networks.weights import read_weights

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
    stored = read_weights(path)
    seed = stored.metadata.get("seed")
    head = stored.tensors.get("fc.weight")
    model = factory() if head is None or head.ndim != 2 else factory(num_classes=len(head))
    if seed is not None:
        seed_weights(model, int(seed))
    try:
        missing, unexpected = model.load_state_dict(dict(stored.tensors), strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArtifactError(f"{path} holds another model's weights: {reason}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if seed is not None and not unexpected:
        _check_seeded(path, model, missing, stored.metadata.get("seeded_sha256", ""))
    elif missing or unexpected:
        raise ArtifactError(
            f"{path} holds another model's weights: missing {_some(missing)}; unexpected {_some(unexpected)}"
        )
    return model.eval()


def _check_seeded(path: Path, model: nn.Module, missing: list[str], digest: str) -> None:
    state = model.state_dict()
    if digest_of({key: state[key] for key in missing}) != digest:
        raise ArtifactError(f"{path} was trained beside other weights than this version of Redline draws from its seed")


def _factory(entry: ZooEntry) -> Callable[..., nn.Module]:
    module, _, function = entry.factory.partition(":")
    return cast("Callable[..., nn.Module]", getattr(importlib.import_module(module), function))


def _some(keys: list[str]) -> str:
    if not keys:
        return "nothing"
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
