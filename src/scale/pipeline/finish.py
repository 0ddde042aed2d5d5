"""Strips that are all there into finished detections: merged row by row for each model, written as they come."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from redline.detection.results import Detections
from scale.merging.found import Found
from scale.merging.settings import MergeSettings, Method
from scale.merging.streaming import Merger
from scale.models.spec import Postprocessing
from scale.pipeline.batches import StripResult
from scale.pipeline.plan import Layout, Plan, bands
from scale.pipeline.runners import ModelInfo
from scale.pipeline.timing import StageClock

#: One whole share is never exceeded.
_NEVER = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """How the boxes of overlapping windows become one for each object.

    Attributes:
        method: Of merging.
        classes: Settings by class name; a class that is not there has the defaults.
    """

    method: Method = "drop-cut"
    classes: Mapping[str, MergeSettings] = field(default_factory=dict)

    def of(self, info: ModelInfo) -> dict[int, MergeSettings]:
        """Settings by the class numbers of a model."""
        return {n: self.classes[name] for n, name in enumerate(info.class_names) if name in self.classes}


def merge_settings(postprocess: Mapping[str, Postprocessing]) -> dict[str, MergeSettings]:
    """What users say of each class, as the merging takes it."""
    return {
        name: MergeSettings(iou=_exceeded(one.nms_thres), coverage=_exceeded(one.cov_thres))
        for name, one in postprocess.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTable:
    """The classes of several models in one row, as outputs count them.

    Attributes:
        names: Of the classes; two models may have one of the same name.
        models: The model of each.
        first: For each model where its classes begin.
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    first: tuple[int, ...]

    @classmethod
    def of(cls, infos: Sequence[ModelInfo]) -> ClassTable:
        """The classes of models, in their order."""
        lengths = [len(info.class_names) for info in infos]
        return cls(
            names=tuple(name for info in infos for name in info.class_names),
            models=tuple(info.name for info in infos for _ in info.class_names),
            first=tuple(sum(lengths[:n]) for n in range(len(lengths))),
        )


def full_windows(plan: Plan, infos: Sequence[ModelInfo], result: StripResult) -> Counter[str]:
    """By model how many windows of a strip hold as many boxes as are kept of one, so that more may be there."""
    full: Counter[str] = Counter()
    for model, found in zip(plan.group_of(plan.strips[result.strip]).models, result.found, strict=True):
        most = infos[model].max_detections
        boxes = np.unique(found.windows, return_counts=True)[1]
        if most is not None and (boxes >= most).any():
            full[infos[model].name] += int((boxes >= most).sum())
    return full


def full_text(model: str, windows: int, setting: str) -> str:
    """What to say of full windows; ``setting`` is what keeps more boxes."""
    there = "1 window" if windows == 1 else f"{windows:,} windows"
    return (
        f"{there} of model {model} hold as many boxes as are kept of one, so that more may be there; raise {setting}, "
        "or take smaller windows, which alone helps where the model itself ends with so many (an end-to-end head)"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Finished detections of one model in one region.

    Attributes:
        region: Its position in the plan.
        model: Its position in the list of models.
        detections: In level-0 pixels; their classes count :class:`ClassTable`.
    """

    region: int
    model: int
    detections: Detections


def finished(
    plan: Plan,
    infos: Sequence[ModelInfo],
    load: Callable[[int], StripResult],
    options: MergeOptions,
    *,
    clock: StageClock | None = None,
) -> Iterator[Piece]:
    """Give what was found on a slide in pieces: region by region, from top to bottom, model by model.

    Never more is held than the strips of one band, and what their last rows may still be merged with.

    Args:
        plan: Of the slide.
        infos: The models of the plan.
        load: A strip by its position.
        options: How it is merged.
        clock: Counts the stage ``merge``.
    """
    first = ClassTable.of(infos).first
    clock = clock or StageClock()
    for number, layout in enumerate(plan.layouts):
        members = plan.groups[layout.group].models
        mergers = [_merger(options, infos[model], layout) for model in members]
        for model, done in _merged(plan, number, load, dict(zip(members, mergers, strict=True)), clock):
            if len(done):
                found = done.detections
                numbered = replace(found, classes=(found.classes + first[model]).astype(np.int32))
                yield Piece(region=layout.region, model=model, detections=numbered)


def _merged(
    plan: Plan,
    number: int,
    load: Callable[[int], StripResult],
    mergers: Mapping[int, Merger],
    clock: StageClock,
) -> Iterator[tuple[int, Found]]:
    """What no later row of a layout can change, with the model that found it."""
    for row in _rows(plan, number, plan.layouts[number], load):
        for (model, merger), (found, next_top) in zip(mergers.items(), row, strict=True):
            with clock.stage("merge"):
                done = merger.add(found, next_top)
            yield model, done
    for model, merger in mergers.items():
        with clock.stage("merge"):
            done = merger.finish()
        yield model, done


def _merger(options: MergeOptions, info: ModelInfo, layout: Layout) -> Merger:
    processed = layout.kept.reshape(-1)
    return Merger(method=options.method, settings=options.of(info), grid=layout.grid, processed=processed)


def _rows(
    plan: Plan, number: int, layout: Layout, load: Callable[[int], StripResult]
) -> Iterator[list[tuple[Found, float]]]:
    """For each row of windows what each model found in it, with the upper edge of the next row."""
    strips = [strip for strip in plan.strips if strip.layout == number]
    tops = [*layout.grid.rows_y0[1:], math.inf]
    for start, end in bands(plan, layout):
        here = [strip.index for strip in strips if ((strip.rows >= start) & (strip.rows < end)).any()]
        results = [load(index) for index in here]
        members = range(len(plan.groups[layout.group].models))
        together = [_by_window(Found.concatenate([result.found[m] for result in results])) for m in members]
        for row in range(start, end):
            yield [(_row(found, row, layout), tops[row]) for found in together]


def _by_window(found: Found) -> Found:
    """In the order of windows, those of one window as the model gave them: the same however strips were cut."""
    return found.take(np.argsort(found.windows, kind="stable"))


def _row(found: Found, row: int, layout: Layout) -> Found:
    columns = layout.grid.columns
    first, end = np.searchsorted(found.windows, [row * columns, (row + 1) * columns])
    return found.take(np.arange(first, end))


def _exceeded(share: float | None) -> float | None:
    return None if share is None or share >= _NEVER else share
