"""The built-in models."""

from __future__ import annotations

from redline.networks.table import MODELS, ZooEntry

__all__ = ["models"]


def models() -> dict[str, ZooEntry]:
    """Every built-in model by name: input shape, parameters, weights, and what it is. Imports no torch."""
    return dict(MODELS)
