"""One colour for each class, the same in every output and in the viewer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]

#: Okabe and Ito's colours (jfly.uni-koeln.de/color), told apart with every common kind of colour blindness; their black
#: is left out, it is the colour of nuclei. Blue and vermillion come first: few classes get the most different ones.
_OKABE_ITO: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (230, 159, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
)

#: Past seven classes the same hues again, darker and then paler: still told apart by lightness.
PALETTE: tuple[Colour, ...] = (
    *_OKABE_ITO,
    *((r * 11 // 20, g * 11 // 20, b * 11 // 20) for r, g, b in _OKABE_ITO),
    *((127 + r // 2, 127 + g // 2, 127 + b // 2) for r, g, b in _OKABE_ITO),
)


def colours_of(names: Iterable[str]) -> dict[str, Colour]:
    """The colour (red, green, blue; 0 to 255) of each class: by the names in alphabetical order, whatever theirs is.

    >>> colours_of(["Plasma", "EoE"])
    {'Plasma': (213, 94, 0), 'EoE': (0, 114, 178)}
    """
    unique = list(dict.fromkeys(names))
    place = {name: index for index, name in enumerate(sorted(unique))}
    return {name: PALETTE[place[name] % len(PALETTE)] for name in unique}
