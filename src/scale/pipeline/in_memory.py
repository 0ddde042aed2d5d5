"""Regions of an open slide into predictions, all in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from redline.detection.results import Detections
from scale.domain import Prediction, from_detections
from scale.merging.found import BOTTOM, CUT_TOLERANCE_PX, LEFT, RIGHT, TOP, Found
from scale.merging.merge import merge
from scale.merging.settings import Method
from scale.models.spec import Postprocessing
from scale.pipeline.batches import Failure, StripResult
from scale.pipeline.finish import ClassTable, MergeOptions, finished, full_windows, merge_settings
from scale.pipeline.plan import Plan, PlanOptions, plan_of
from scale.pipeline.reader_pool import reader_pool
from scale.pipeline.run import run_strips
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import ModelInfo, Runner
from scale.pipeline.timing import StageClock, Timing
from scale.regions.grid import Region
from scale.slides.base import Slide


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How regions are searched.

    Attributes:
        overlap: Of neighbouring windows, a share or pixels.
        tissue: Leave windows out in which there is no tissue.
        method: Of merging.
        postprocess: Settings by class.
        readers: How many read at once.
        together: Search all regions at once, or one after the other.
    """

    overlap: float
    tissue: bool
    method: Method
    postprocess: Mapping[str, Postprocessing]
    readers: int
    together: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What was found, what is missing, which windows were full, and how long it took."""

    predictions: dict[str, list[Prediction]]
    failures: tuple[Failure, ...]
    full_windows: Mapping[str, int]
    timing: Timing


def search(slide: Slide, regions: Sequence[Region], runners: Sequence[Runner], how: Search) -> Searched:
    """Search regions of a slide."""
    clock = StageClock()
    seen = dict.fromkeys((runner.info.name for runner in runners), 0)
    failures: list[Failure] = []
    done: list[tuple[Plan, dict[int, StripResult]]] = []
    run, shapes = RunOptions(readers=how.readers), [runner.shape for runner in runners]
    with reader_pool(run, runners) as pool:
        for some in [list(regions)] if how.together else [[region] for region in regions]:
            plan = plan_of(slide, some, shapes, PlanOptions(overlap=how.overlap), tissue=how.tissue)
            running = run_strips(slide, plan, plan.strips, runners, options=run, clock=clock, pool=pool)
            with closing(running) as found:
                results = {result.strip: result for result in found}
            done.append((plan, results))
            failures += [failure for index in sorted(results) for failure in results[index].failures]
            for name, count in plan.inferences_of().items():
                seen[name] += count
    infos = [runner.info for runner in runners]
    return Searched(
        predictions=_predictions(done, infos, how, clock),
        failures=tuple(failures),
        full_windows=dict(_full(done, infos)),
        timing=clock.report(seen),
    )


def _full(done: Sequence[tuple[Plan, dict[int, StripResult]]], infos: Sequence[ModelInfo]) -> Counter[str]:
    full: Counter[str] = Counter()
    for plan, results in done:
        for result in results.values():
            full.update(full_windows(plan, infos, result))
    return full


def _predictions(
    done: Sequence[tuple[Plan, dict[int, StripResult]]], infos: Sequence[ModelInfo], how: Search, clock: StageClock
) -> dict[str, list[Prediction]]:
    """Model by model, so that some may have outlines and others none."""
    options = MergeOptions(method=how.method, classes=merge_settings(how.postprocess))
    table = ClassTable.of(infos)
    regions = [region for plan, _ in done for region in plan.regions]
    parts: list[list[Found]] = [[] for _ in infos]
    first = 0
    for plan, results in done:
        for piece in finished(plan, infos, results.__getitem__, options, clock=clock):
            parts[piece.model].append(_of_region(piece.detections, first + piece.region, regions))
        first += len(plan.regions)
    predictions: dict[str, list[Prediction]] = {name: [] for name in table.names}
    for several in parts:
        found = Found.concatenate(several)
        if _overlap(regions):
            with clock.stage("merge"):
                found = _once(found, table, options)
        for name, some in from_detections(found.detections, table.names).items():
            predictions[name] += some
    return predictions


def _of_region(detections: Detections, number: int, regions: Sequence[Region]) -> Found:
    """Taken as a window of its own: what its border cuts is seen better in a region that overlaps it."""
    region, boxes = regions[number], detections.boxes
    cuts = (boxes[:, 0] <= region.x0 + CUT_TOLERANCE_PX) * LEFT + (boxes[:, 1] <= region.y0 + CUT_TOLERANCE_PX) * TOP
    cuts = cuts + (boxes[:, 2] >= region.x0 + region.width_px - CUT_TOLERANCE_PX) * RIGHT
    cuts = cuts + (boxes[:, 3] >= region.y0 + region.height_px - CUT_TOLERANCE_PX) * BOTTOM
    return Found(detections, np.full(len(boxes), number, np.int64), cuts.astype(np.uint8))


def _once(found: Found, table: ClassTable, options: MergeOptions) -> Found:
    """Count what two regions share once."""
    method: Method = "nms" if options.method == "owner" else options.method
    settings = {n: options.classes[name] for n, name in enumerate(table.names) if name in options.classes}
    return merge(found, method=method, settings=settings)


def _overlap(regions: Sequence[Region]) -> bool:
    return any(
        one.x0 < other.x0 + other.width_px
        and other.x0 < one.x0 + one.width_px
        and one.y0 < other.y0 + other.height_px
        and other.y0 < one.y0 + one.height_px
        for one, other in combinations(regions, 2)
    )
