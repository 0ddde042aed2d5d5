"""Facts as pairs of label and value, for conditions of every kind of run."""

from __future__ import annotations

from dataclasses import dataclass

from redline.reporting import formats


@dataclass(frozen=True, slots=True)
class Group:
    """Facts that belong together, as pairs of label and value."""

    title: str
    facts: tuple[tuple[str, str], ...]


def gigabytes(size_bytes: float | None) -> str | None:
    """Bytes as gigabytes (10^9), with the unit."""
    return None if size_bytes is None else f"{formats.digits(size_bytes / 1e9)} GB"


def known(*facts: tuple[str, object]) -> tuple[tuple[str, str], ...]:
    """The facts that were recorded."""
    return tuple((label, str(value)) for label, value in facts if value not in (None, "", formats.DASH))


def label_of(key: str) -> str:
    """The name of a setting in words."""
    return key.replace("_", " ")


def in_words(value: object) -> str:
    """The value of a setting in words."""
    match value:
        case None:
            return formats.DASH
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(in_words(item) for item in value)
        case _:
            return str(value)
