"""The cells of a grid, and the groups that are measured together."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redline.grid.config import GridConfig
from redline.variants import VARIANTS, Device, Variant

Size = tuple[int, int]
_OPEN_S, _SETTLE_S, _BETWEEN = 5.0, 1.0, 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid.

    Attributes:
        refused: Why there is no such way to run a model, in words.
    """

    model: str
    variant: Variant
    loader: str
    batch: int
    size: Size
    refused: str | None = None

    @property
    def id(self) -> str:
        """Its name in the results.

        >>> from redline.grid.config import GridConfig
        >>> plan_cells(GridConfig(models=("resnet18",), backends=("torch",), sizes=((224, 224),)))[0].id
        'resnet18/torch-eager-fp32/cpu/dummy/1x224x224'
        """
        shape = "x".join(map(str, (self.batch, *self.size) if any(self.size) else (self.batch,)))
        return f"{self.model}/{self.variant.name}/{self.variant.device}/{self.loader}/{shape}"

    def fields(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "cell": self.id,
            "model": self.model,
            "variant": self.variant.name,
            "device": self.variant.device,
            "loader": self.loader,
            "batch": self.batch,
            "size": list(self.size),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All cells of one model, batch and size: they take turns, so that a drift of the machine hits all alike."""

    model: str
    batch: int
    size: Size
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """For people."""
        size = ", {}x{}".format(*self.size) if any(self.size) else ""
        return f"{self.model}, batch {self.batch}{size}"


def plan_cells(config: GridConfig, sizes: dict[str, tuple[Size, ...]] | None = None) -> tuple[Cell, ...]:
    """Every cell, in the order of the report: model, size, batch, device, loader, variant.

    Args:
        config: The grid.
        sizes: By model, where the grid leaves the size to the model.
    """
    ways = [way for device in config.devices for way in _ways(config, device)]
    return tuple(
        Cell(model=model, variant=variant, loader=loader, batch=batch, size=size, refused=refused)
        for model in config.models
        for size in config.sizes or (sizes or {}).get(model, ((0, 0),))
        for batch in config.batches
        for variant, refused, loader in _by_device_and_loader(ways, config)
    )


def _by_device_and_loader(
    ways: list[tuple[Variant, str | None]], config: GridConfig
) -> Iterable[tuple[Variant, str | None, str]]:
    for device in config.devices:
        for loader in config.loaders:
            yield from ((variant, refused, loader) for variant, refused in ways if variant.device == device)


def _ways(config: GridConfig, device: Device) -> list[tuple[Variant, str | None]]:
    """What runs the model on a device; a pair of backend and precision that nothing offers is there with the reason."""
    found: list[tuple[Variant, str | None]] = []
    for backend in config.backends:
        for precision in config.precisions:
            fitting = [
                v for v in VARIANTS if (v.backend, v.device) == (backend, device) and precision == v.precision_word
            ]
            found += [(variant, None) for variant in fitting]
            if not fitting:
                found.append((_absent(backend, precision, device), f"there is no {backend} in {precision} on {device}"))
    baseline = baseline_of(config, device)
    if baseline is not None and baseline not in [variant for variant, _ in found]:
        found.insert(0, (baseline, None))
    return found


def _absent(backend: str, precision: str, device: Device) -> Variant:
    name = f"{backend}-{precision}"
    return Variant(name=name, title=name, backend=backend, runtime="", requested=precision, device=device)


def baseline_of(config: GridConfig, device: Device) -> Variant | None:
    """The variant that the others of a device are compared with; None where the device has no such variant."""
    for variant in VARIANTS:
        if variant.device == device and f"{variant.backend}-{variant.precision_word}" == config.baseline:
            return variant
    return None


def group_cells(cells: Iterable[Cell], seed: int) -> tuple[Group, ...]:
    """The groups in the order in which they are measured, which the seed draws."""
    found: dict[tuple[str, int, Size], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.model, cell.batch, cell.size), []).append(cell)
    groups = [Group(model=m, batch=b, size=s, cells=tuple(some)) for (m, b, s), some in found.items()]
    random.Random(seed).shuffle(groups)  # noqa: S311 (an order, not a secret)
    return tuple(groups)


def expected_s(group: Group, config: GridConfig) -> float:
    """About how long a group takes, in seconds: opening, warming up, turns."""
    cells = [cell for cell in group.cells if cell.refused is None]
    processes = len({(cell.variant.device, cell.variant.name) for cell in cells})
    turns = config.rounds * len(cells) * config.window_s * _BETWEEN
    return config.repeats * (_OPEN_S * processes + _SETTLE_S * len(cells) + turns)
