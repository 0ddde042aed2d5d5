"""Markdown around text from users: tables, lists and commands that no name can break out of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def escape(text: str) -> str:
    r"""Text from users as plain words: no markup, no new table cell, no new line.

    >>> print(escape("a | <b>"))
    a \| &lt;b&gt;
    """
    for letter in "\\`*_[]<>|#":
        text = text.replace(letter, {"<": "&lt;", ">": "&gt;"}.get(letter, "\\" + letter))
    return " ".join(text.split())


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], *, left: Collection[int]) -> str:
    """A table of escaped cells; the columns numbered in ``left`` are words, the others numbers."""
    rules = ["---" if number in left else "---:" for number in range(len(headings))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rules, *lines))


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """A list of labels and values, which are escaped here."""
    return "\n".join(f"- {escape(label)}: {escape(value)}" for label, value in items)


def fenced(command: str) -> str:
    """A command as a block of code.

    A fence one longer than any run of backticks in it cannot be closed from inside.
    """
    fence = "`" * max(3, 1 + max((len(run) for run in _backticks(command)), default=0))
    return f"{fence}sh\n{command}\n{fence}"


def _backticks(text: str) -> list[str]:
    return "".join(letter if letter == "`" else " " for letter in text).split()
