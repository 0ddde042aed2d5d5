"""Optimization profiles: which shapes an engine takes, and which it is fastest at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redline.core.errors import InputError
from redline.core.tensor import Signature, TensorSpec

Shape = tuple[int, ...]
DEFAULT = (1, 8, 32)
_ASKED = "expected MIN,OPT,MAX batch sizes such as 1,32,64, or NAME=1x3x224x224,8x3x224x224,32x3x512x512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The smallest, the usual and the largest shape of one input."""

    smallest: Shape
    usual: Shape
    largest: Shape

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether a shape lies within."""
        return len(shape) == len(self.smallest) and all(
            low <= size <= high for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )

    def __str__(self) -> str:
        return f"{_text(self.smallest)} to {_text(self.largest)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One profile as it was asked for: batch sizes, or shapes by input name."""

    batch: tuple[int, int, int] | None = None
    shapes: Mapping[str, Range] = field(default_factory=dict)

    def ranges(self, signature: Signature) -> dict[str, Range]:
        """The range of every input with a dynamic size.

        Raises:
            InputError: a size is dynamic and nobody said what it may be, or a name or shape does not fit the model.
        """
        dynamic = {spec.name: spec for spec in signature.inputs if any(isinstance(size, str) for size in spec.shape)}
        unknown = sorted(set(self.shapes) - {spec.name for spec in signature.inputs})
        if unknown:
            raise InputError(
                f"got a profile for {', '.join(unknown)}, expected {', '.join(s.name for s in signature.inputs)}"
            )
        return {name: self._range(spec) for name, spec in dynamic.items()}

    def _range(self, spec: TensorSpec) -> Range:
        given = self.shapes.get(spec.name)
        if given is not None:
            for shape in (given.smallest, given.usual, given.largest):
                if len(shape) != len(spec.shape) or any(
                    isinstance(size, int) and size != got for size, got in zip(spec.shape, shape, strict=True)
                ):
                    raise InputError(f"{spec.name}: got profile shape {_text(shape)}, expected {spec.shape}")
            return given
        if any(isinstance(size, str) for size in spec.shape[1:]):
            raise InputError(
                f"{spec.name}: shape {spec.shape} is dynamic beyond the batch; name its shapes: --profile "
                f"{spec.name}=MIN,OPT,MAX with whole shapes such as 1x3x224x224"
            )
        smallest, usual, largest = ((size, *(int(s) for s in spec.shape[1:])) for size in self.batch or DEFAULT)
        return Range(smallest=smallest, usual=usual, largest=largest)


def parse_profiles(text: str) -> tuple[Profile, ...]:
    """Profiles from their text; none from an empty one.

    >>> parse_profiles("1,32,64")[0].batch
    (1, 32, 64)
    >>> str(parse_profiles("x=1x3x8x8,2x3x8x8,4x3x16x16")[0].shapes["x"])
    '1x3x8x8 to 4x3x16x16'

    Raises:
        InputError: it is not a list of profiles.
    """
    return tuple(_parse(part.strip()) for part in text.split(";") if part.strip())


def _parse(text: str) -> Profile:
    if "=" not in text:
        smallest, usual, largest = _three(text, [_sizes(size) for size in text.split(",")])
        return Profile(batch=(smallest[0], usual[0], largest[0]))
    shapes = {}
    for item in text.split("+"):
        name, _, rest = item.partition("=")
        smallest, usual, largest = _three(text, [_sizes(shape) for shape in rest.split(",")])
        shapes[name.strip()] = Range(smallest=smallest, usual=usual, largest=largest)
    return Profile(shapes=shapes)


def _sizes(text: str) -> Shape:
    try:
        return tuple(int(size) for size in text.strip().split("x"))
    except ValueError as error:
        raise InputError(f"got profile {text!r}; {_ASKED}") from error


def _three(text: str, shapes: list[Shape]) -> tuple[Shape, Shape, Shape]:
    if len(shapes) != 3 or len({len(shape) for shape in shapes}) != 1:
        raise InputError(f"got profile {text!r}; {_ASKED}")
    smallest, usual, largest = shapes
    for low, middle, high in zip(smallest, usual, largest, strict=True):
        if not 1 <= low <= middle <= high:
            raise InputError(f"got profile {text!r}, expected 1 <= MIN <= OPT <= MAX")
    return smallest, usual, largest


def _text(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
