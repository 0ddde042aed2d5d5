"""What a slide is, and what looking at it would cost, without looking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scale.pipeline.plan import ModelShape, PlanOptions, plan_of
from scale.regions.grid import Region
from scale.slides.base import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """A model that need not be there."""

    name: str
    window_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an overlap costs.

    Attributes:
        windows: That are read where there is tissue.
        inferences: Windows that the models see there, all models together.
        all_inferences: The same for the whole slide.
    """

    overlap: float
    windows: int
    inferences: int
    all_inferences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideFacts:
    """What a slide is, and what looking at it would cost."""

    path: Path
    reader: str
    levels: tuple[Level, ...]
    mpp: float | None
    magnification: float | None
    tissue_share: float
    sections: tuple[Region, ...]
    costs: tuple[Cost, ...]


def inspect_slide(path: Path, lookers: Sequence[Looker], overlaps: Sequence[float]) -> SlideFacts:
    """Open a slide and count.

    Raises:
        InputError: it is not there, or an overlap leaves no step.
        DataError: it is broken.
    """
    from scale.regions.picture import whole_slide
    from scale.regions.sections import sections_of
    from scale.regions.tissue import tissue_mask
    from scale.slides.opening import open_slide

    shapes = [
        ModelShape(name=one.name, window_px=one.window_px, batch=1, input_hw=(one.window_px,) * 2, form="")
        for one in lookers
    ]
    with open_slide(path) as slide:
        costs = []
        for overlap in overlaps:
            masked, whole = (
                plan_of(slide, [whole_slide(slide)], shapes, PlanOptions(overlap=overlap), tissue=tissue)
                for tissue in (True, False)
            )
            seen = {"windows": masked.windows, "inferences": masked.inferences, "all_inferences": whole.inferences}
            costs.append(Cost(overlap=overlap, **seen))
        return SlideFacts(
            path=path,
            reader=slide.reader,
            levels=slide.levels,
            mpp=slide.mpp,
            magnification=slide.magnification,
            tissue_share=tissue_mask(slide).share,
            sections=tuple(sections_of(slide)),
            costs=tuple(costs),
        )
