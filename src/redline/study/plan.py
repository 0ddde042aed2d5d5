"""The cells of a study, and the groups that are measured together."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from redline.study.config import StudyConfig
from redline.study.records import CellEnded, Outcome, Size
from redline.variants import AUTO, VARIANTS, Device, Variant, choose_variants

#: What runs ONNX files where PyTorch is the baseline that was asked for.
WITHOUT_TORCH = "onnxruntime-fp32"
# Seconds, on an idle core: a process of a runtime starts, imports it and loads a model.
_START_S = {"torch": 2.5, "torch-compile": 15.0, "torch-tensorrt": 20.0}
_OTHER_START_S, _SETTLE_S, _BETWEEN = 1.2, 0.8, 1.1
# Of a call of a network like ResNet-18 on one core, by image of 224x224; a GPU is so many times faster.
_CALL_S, _USUAL_PIXELS, _GPU_GAIN = 0.05, 224 * 224, 100.0
#: So many of the slowest calls make a window, as long as that is no longer than the second figure, in seconds.
CALLS_A_WINDOW, LONGEST_WINDOW_S = 4, 2.0


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

        >>> plan_cells(StudyConfig(models=("resnet18",), backends=("torch",), sizes=((224, 224),)))[0].id
        'resnet18/torch-eager-fp32/cpu/dummy/1x224x224'
        """
        shape = "x".join(map(str, (self.batch, *self.size) if any(self.size) else (self.batch,)))
        return f"{self.model}/{self.variant.name}/{self.variant.device}/{self.loader}/{shape}"

    def ended(self, outcome: Outcome, *, stage: str | None = None, reason: str | None = None) -> CellEnded:
        """The record of how it came out."""
        return CellEnded(
            cell=self.id,
            model=self.model,
            variant=self.variant.name,
            device=self.variant.device,
            loader=self.loader,
            batch=self.batch,
            size=self.size,
            outcome=outcome,
            stage=stage,
            reason=reason,
            control=self.variant.control,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGroup:
    """All cells of one model, batch and size: they take turns, so that a drift of the machine hits all alike.

    Attributes:
        extra: Cells that are measured only where static INT8 was refused by the gate.
    """

    model: str
    batch: int
    size: Size
    cells: tuple[Cell, ...]
    extra: tuple[Cell, ...] = ()

    @property
    def title(self) -> str:
        """For people."""
        size = ", {}x{}".format(*self.size) if any(self.size) else ""
        return f"{self.model}, batch {self.batch}{size}"


def plan_cells(config: StudyConfig, sizes: Mapping[str, tuple[Size, ...]] | None = None) -> tuple[Cell, ...]:
    """Every cell, in the order of the report: model, size, batch, device, loader, variant.

    Args:
        config: The study.
        sizes: By model, where the study leaves the size to the model.
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
    ways: list[tuple[Variant, str | None]], config: StudyConfig
) -> Iterable[tuple[Variant, str | None, str]]:
    for device in config.devices:
        for loader in config.loaders:
            yield from ((variant, refused, loader) for variant, refused in ways if variant.device == device)


def _ways(config: StudyConfig, device: Device) -> list[tuple[Variant, str | None]]:
    """What runs the model on a device, the baseline and its control among it."""
    found = [(v, None) for v in choose_variants(config.variants, device)] if config.variants else _asked(config, device)
    baseline = baseline_of(config, device)
    if baseline is None:
        return list(found)
    if baseline not in [variant for variant, _ in found]:
        found = [(baseline, None), *found]
    again: list[tuple[Variant, str | None]] = []
    for variant, refused in found:
        again.append((variant, refused))
        if variant == baseline:
            again.append((control_of(variant), refused))
    return again


def control_of(baseline: Variant) -> Variant:
    """The baseline, entered a second time."""
    return replace(baseline, name=f"{baseline.name}-control", title=f"{baseline.title}, again", control=True)


def _asked(config: StudyConfig, device: Device) -> list[tuple[Variant, str | None]]:
    """Backend by precision; a pair that nothing offers is there with the reason."""
    found: list[tuple[Variant, str | None]] = []
    for backend in config.backends:
        for precision in config.precisions:
            fitting = [
                v for v in VARIANTS if (v.backend, v.device) == (backend, device) and precision == v.precision_word
            ]
            found += [(variant, None) for variant in fitting]
            if not fitting:
                found.append((_absent(backend, precision, device), f"there is no {backend} in {precision} on {device}"))
    return found


def _absent(backend: str, precision: str, device: Device) -> Variant:
    name = f"{backend}-{precision}"
    return Variant(name=name, title=name, backend=backend, runtime="", requested=precision, device=device)


def baseline_of(config: StudyConfig, device: Device) -> Variant | None:
    """The variant that the others of a device are compared with; None where the device has no such variant."""
    for variant in VARIANTS:
        if variant.device == device and f"{variant.backend}-{variant.precision_word}" == config.baseline:
            return variant
    return None


def group_cells(cells: Iterable[Cell], seed: int) -> tuple[CellGroup, ...]:
    """The groups in the order in which they are measured, which the seed draws."""
    found: dict[tuple[str, int, Size], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.model, cell.batch, cell.size), []).append(cell)
    groups = [
        CellGroup(model=m, batch=b, size=s, cells=tuple(some), extra=_extra(some)) for (m, b, s), some in found.items()
    ]
    random.Random(seed).shuffle(groups)  # noqa: S311 (an order, not a secret)
    return tuple(groups)


def _extra(cells: list[Cell]) -> tuple[Cell, ...]:
    """The same with sensitive layers in float, for whatever runs static INT8 there."""
    static = [cell for cell in cells if cell.variant.file == "int8_static"]
    return tuple(
        replace(cell, variant=variant)
        for cell in static
        for variant in AUTO
        if (variant.runtime, variant.device) == (cell.variant.runtime, cell.variant.device) and not cell.variant.fixed
    )


def expected_s(group: CellGroup, config: StudyConfig, *, call_s: float | None = None) -> float:
    """About how long a group takes, in seconds: starting, warming up, turns, and the finalists' again.

    Args:
        group: Its cells.
        config: Of the study.
        call_s: The slowest call, where it is known; else that of a network like ResNet-18 is taken.
    """
    cells = [cell for cell in group.cells if cell.refused is None]
    each = {(cell.variant.device, cell.variant.name): cell.variant for cell in cells}.values()
    starting = sum(_START_S.get(variant.backend, _OTHER_START_S) for variant in each)
    slowest = max((_usual_call_s(cell, config) for cell in cells), default=0.0) if call_s is None else call_s
    window_s = window_of(slowest, config.window_s)
    turn_s = max(window_s, slowest) * _BETWEEN
    screen = config.repeats * (starting + len(cells) * (_SETTLE_S + 2 * slowest + config.rounds * turn_s))
    finalists = min(4, len(cells))
    again = starting * finalists / max(len(each), 1)
    confirm = config.confirm * (again + finalists * (_SETTLE_S + 2 * slowest + confirm_rounds(config) * turn_s))
    return screen + confirm


def window_of(slowest_call_s: float, least_s: float) -> float:
    """How long the windows of a group are: the same for all, so that no statistic favours short calls.

    >>> window_of(0.002, 0.05), window_of(0.05, 0.05), window_of(3.0, 0.05)
    (0.05, 0.2, 2.0)
    """
    return max(least_s, min(CALLS_A_WINDOW * slowest_call_s, LONGEST_WINDOW_S))


def confirm_rounds(config: StudyConfig) -> int:
    """How often each finalist has its turn in one process: two thirds more often than when all are screened."""
    return config.rounds + 2 * config.rounds // 3


def _usual_call_s(cell: Cell, config: StudyConfig) -> float:
    height, width = cell.size if any(cell.size) else (224, 224)
    one_core = _CALL_S * cell.batch * height * width / _USUAL_PIXELS
    return one_core / (_GPU_GAIN if cell.variant.device == "cuda" else max(config.threads, 1))
