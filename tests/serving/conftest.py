"""Servers with models of a few lines, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.fakes import Shelf, serve

from redline.serving.core import Server
from redline.serving.models import Models

NAMES = ("affine", "mixed", "colours")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def models(tmp_path: Path, shelf: Shelf) -> Iterator[Models]:
    made = serve(tmp_path, *NAMES, shelf=shelf)
    yield made
    made.close()


@pytest.fixture
def server(models: Models) -> Server:
    return Server(models)


@pytest.fixture
def server_with(models: Models) -> Callable[..., Server]:
    """A server of the same models with further options."""

    def make(**options: Any) -> Server:
        return Server(models, **options)

    return make
