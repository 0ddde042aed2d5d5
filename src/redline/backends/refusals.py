"""Why a backend does not run something, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from redline.core.artifact import Engine
from redline.core.errors import BuildError, EngineMismatchError, UnsupportedError
from redline.formats.onnx_file import unknown_operators


def check_platform(engine: Engine, here: Mapping[str, str]) -> None:
    """Refuse an engine that was made for another platform.

    Raises:
        EngineMismatchError: names the first thing that differs.
    """
    for key, value in here.items():
        made_for = engine.platform.get(key)
        if made_for != value:
            raise EngineMismatchError(
                f"{engine.path.name} was compiled for {key} {made_for!r}, this is {value!r}; build it again"
            )


def refused(path: Path, runtime: str, error: Exception) -> BuildError:
    """What to raise when ``runtime`` refuses a model: names the operators that nobody knows, else its own reason."""
    unknown = unknown_operators(onnx.load_model(str(path), load_external_data=False))
    if unknown:
        return UnsupportedError(f"{path.name}: {runtime} has no operator {', '.join(unknown)}")
    return BuildError(f"{path.name}: {runtime} refused it: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """The line of a runtime's message that tells something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [
        line for line in lines if not line.startswith(("Exception from", "Check ")) and not line.endswith("Failure:")
    ]
    return (told or lines or [type(error).__name__])[0]
