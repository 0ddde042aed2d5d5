"""How the sentences about a grid write their numbers and names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from redline.study.rows import Row

T = TypeVar("T")


def milliseconds(seconds: float) -> str:
    """Seconds in words, with three digits.

    >>> milliseconds(0.00512), milliseconds(1.5)
    ('5.12 ms', '1,500 ms')
    """
    return f"{digits(seconds * 1e3)} ms"


def digits(value: float) -> str:
    """A number with three significant digits, thousands separated.

    >>> digits(1934.2), digits(34.12), digits(0.4123)
    ('1,934', '34.1', '0.412')
    """
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def megabytes(size_bytes: float) -> str:
    """Bytes as megabytes (10^6).

    >>> megabytes(212_400_000), megabytes(1_250_000)
    ('212 MB', '1.25 MB')
    """
    return f"{digits(size_bytes / 1e6)} MB"


def share(fraction: float) -> str:
    """A fraction in percent.

    >>> share(0.983), share(0.004)
    ('98.3 %', '0.4 %')
    """
    return f"{100 * fraction:.1f} %"


def names(values: Iterable[str]) -> str:
    """Names as a list in a sentence, each once.

    >>> names(["a"]), names(["a", "b"]), names(["a", "b", "c", "a"])
    ('a', 'a and b', 'a, b and c')
    >>> names(["a, fixed", "b", "c"])  # commas within names
    'a, fixed; b and c'
    """
    known = unique(values)
    comma = "; " if any("," in name for name in known) else ", "
    return " and ".join([comma.join(known[:-1]), known[-1]]) if len(known) > 1 else "".join(known)


def span(values: Iterable[float], *, decimals: int = 2) -> str:
    """The range of values, or the one that it is.

    >>> span([1.5, 2.25, 1.75]), span([1.501, 1.499])
    ('1.50 to 2.25', '1.50')
    """
    known = sorted(values)
    low, high = f"{known[0]:.{decimals}f}", f"{known[-1]:.{decimals}f}"
    return low if low == high else f"{low} to {high}"


def cells(count: int, total: int) -> str:
    """How many cells of how many.

    >>> cells(1, 1), cells(2, 3), cells(3, 3)
    ('its only cell', '2 of 3 cells', 'all 3 cells')
    """
    if total == 1:
        return "its only cell"
    return f"all {total} cells" if count == total else f"{count} of {total} cells"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which axes of the grid have several values, and so must be named."""

    models: bool
    sizes: bool
    batches: bool

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Scope:
        """The axes of those rows."""
        return cls(
            models=len({row.model for row in rows}) > 1,
            sizes=len({row.size for row in rows}) > 1,
            batches=len({row.batch for row in rows}) > 1,
        )

    def place(self, row: Row, *, batches: Sequence[int] = (), size: bool = True) -> str:
        """Where that row stands, as in ``resnet18 on cpu at batch 1, 224x224``."""
        model = f"{row.model} on " if self.models else "on "
        text = f"{model}{row.device}"
        if batches:
            text += f" at batch {names(map(str, batches))}"
        return f"{text}, {row.size}" if self.sizes and size else text


def sentence(text: str) -> str:
    """With a full stop, and a capital where a word that we wrote stands first.

    >>> sentence("on cpu nothing differs")
    'On cpu nothing differs.'
    """
    first = text[:3] in ("on ", "at ") or text.startswith(("with ", "nothing ", "no "))
    text = text[0].upper() + text[1:] if first else text
    return text if text.endswith(".") else f"{text}."


def unique(values: Iterable[T]) -> list[T]:
    """Each value once, in the order of its first appearance.

    >>> unique([2, 1, 2])
    [2, 1]
    """
    return list(dict.fromkeys(values))


def model_only(rows: Sequence[Row]) -> list[Row]:
    """The rows of one loader, for a model's own time does not ask where its images came from: ``dummy`` if it ran."""
    loaders = unique(row.loader for row in rows)
    chosen = "dummy" if "dummy" in loaders else next(iter(loaders), None)
    return [row for row in rows if row.loader == chosen]


def split(rows: Sequence[Row], *fields: str) -> list[list[Row]]:
    """The rows by those fields, in their order."""
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in fields), []).append(row)
    return list(found.values())
