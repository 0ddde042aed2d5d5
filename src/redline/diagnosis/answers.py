"""How a probe's process tells what it found."""

from __future__ import annotations

from typing import TypedDict

MARK = "redline-probe:"


class Answer(TypedDict):
    """What a probe found; ``problem`` is why it cannot be used although it is installed."""

    name: str
    version: str
    device: str | None
    detail: str | None
    problem: str | None
    fix: str | None


def answer(
    name: str,
    version: object,
    *,
    device: str | None = None,
    detail: str | None = None,
    problem: str | None = None,
    fix: str | None = None,
) -> Answer:
    """An answer with what was not said left empty."""
    return Answer(name=name, version=str(version), device=device, detail=detail, problem=problem, fix=fix)
