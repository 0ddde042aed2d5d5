"""The texts that are written beside a model, from the templates of this room."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined


def quoted(text: str) -> str:
    """A string of protobuf's text format."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def sizes(values: Sequence[int]) -> str:
    """A list of protobuf's text format; Triton takes no tensor without sizes."""
    return f"[ {', '.join(str(value) for value in values or [1])} ]"


TEMPLATES = Environment(  # noqa: S701 (no HTML)
    loader=PackageLoader("redline.deployment"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"quoted": quoted, "sizes": sizes}
