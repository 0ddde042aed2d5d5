"""Which windows of a slide each model sees, in which order they are read, and what they are kept in.

Windows are read in vertical bands from left to right, those of all window sizes together, so that the tiles of the
slide that are alive at one time fit a small cache however large the slide is. A strip is a run of consecutive windows
of one group of models in that order: the unit that is inferred in batches of its own, kept and resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from redline.core.errors import InputError
from redline.core.plain import JsonObject
from redline.core.tensor import Array
from scale.regions.grid import Grid, Region, inner_edges, overlap_px
from scale.slides.base import Level, Slide

if TYPE_CHECKING:
    from scale.regions.tissue import TissueMask

#: At least so many batches go into a strip where there are enough windows: the padding of its last one is small.
STRIP_BATCHES = 8
#: And at least so many windows, so that a large slide has thousands of files and not hundreds of thousands.
STRIP_WINDOWS = 128
# What the windows of one position along a band cover, at three bytes a pixel; what is above goes into the next band.
_FRONT_BYTES = 24 << 20
_LEAST_CACHE_BYTES, _MOST_CACHE_BYTES = 64 << 20, 1 << 30
# Source tiles reach beyond the windows that need them; few slides have larger ones.
_TILE_PX = 512
_CHANNELS = 3
# 3 GiB a window: more is a wrong unit, not a wish.
_MOST_READ_PX = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the plan has to know of a model.

    Attributes:
        name: Unique among the models.
        window_px: Side of its windows, in pixels of the resolution that it is meant for.
        batch: How many windows it takes at once; a strip's last batch is filled up.
        input_hw: Height and width of its input.
        form: How a window becomes its input, as a text: models of one form share what is prepared.
    """

    name: str
    window_px: int
    batch: int
    input_hw: tuple[int, int]
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How a slide is cut up.

    Attributes:
        overlap: Of neighbouring windows: below 1 a share of the window, from 1 on pixels of it.
        mpp: Micrometres per pixel that the models are meant for; None takes the slide's level 0 as it is.
        pyramid: Read large windows from the smallest level that still has the pixels of the model's input.
        strip_windows: The least number of windows in a strip, rounded up to whole batches; None is 8 batches or
            128 windows, whichever is more.
    """

    overlap: float = 0.25
    mpp: float | None = None
    pyramid: bool = False
    strip_windows: int | None = None

    def __post_init__(self) -> None:
        if self.mpp is not None and not 0 < self.mpp < float("inf"):
            raise InputError(f"got {self.mpp} micrometres per pixel, expected more than 0, as 0.5")
        if self.strip_windows is not None and self.strip_windows < 1:
            raise InputError(f"got strips of {self.strip_windows} windows, expected at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Models that see the same windows in the same form.

    Attributes:
        models: Their positions in the list of models.
        window_px: Side of a window in level-0 pixels.
        overlap_px: Of neighbouring windows, in level-0 pixels.
        batch: How many windows go into one call.
        level: Of the slide, where windows are read.
        read_px: Side of a window in pixels of that level.
        input_px: The longer side of the models' input.
    """

    models: tuple[int, ...]
    window_px: int
    overlap_px: int
    batch: int
    level: int
    read_px: int
    input_px: int

    @property
    def scale(self) -> float:
        """Level-0 pixels for a pixel that is read."""
        return self.window_px / self.read_px


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The windows of one group over one region.

    Attributes:
        region: Its position in the plan.
        group: Its position in the plan.
        grid: All windows over the region.
        kept: Of shape (rows, columns): the windows that are looked at; the others show no tissue.
        edges: Of the same shape, as :func:`scale.regions.grid.inner_edges` has them.
    """

    region: int
    group: int
    grid: Grid
    kept: Array
    edges: Array

    @property
    def xs(self) -> Array:
        """Left edges of the columns in level-0 pixels, rising."""
        return np.array(self.grid.columns_x0, np.int64)

    @property
    def ys(self) -> Array:
        """Upper edges of the rows in level-0 pixels, rising."""
        return np.array(self.grid.rows_y0, np.int64)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strip:
    """Consecutive windows of one layout in the order of reading; no batch has windows of two strips.

    Attributes:
        index: Its position in the plan, which names its file.
        layout: The position of its layout in the plan.
        rows: Of each window.
        columns: Of each window.
    """

    index: int
    layout: int
    rows: Array
    columns: Array

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """All that is done on one slide, before any of it is done.

    Attributes:
        band_px: Height of the bands in level-0 pixels.
        cache_bytes: What the decoded tiles need that are alive at one time.
        notes: What the user should know.
    """

    models: tuple[ModelShape, ...]
    regions: tuple[Region, ...]
    groups: tuple[Group, ...]
    layouts: tuple[Layout, ...]
    strips: tuple[Strip, ...]
    band_px: int
    cache_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> int:
        """How many windows are read."""
        return sum(len(strip) for strip in self.strips)

    @property
    def inferences(self) -> int:
        """How many windows the models see in all."""
        return sum(self.inferences_of().values())

    def inferences_of(self, strips: Sequence[Strip] | None = None) -> dict[str, int]:
        """How many windows each model sees, of all strips or of some."""
        counts = dict.fromkeys((model.name for model in self.models), 0)
        for strip in self.strips if strips is None else strips:
            for model in self.group_of(strip).models:
                counts[self.models[model].name] += len(strip)
        return counts

    def group_of(self, strip: Strip) -> Group:
        """The models that see a strip."""
        return self.groups[self.layouts[strip.layout].group]

    def to_json(self) -> JsonObject:
        """What decides the content of a strip, besides the slide and the models."""
        return {
            "regions": [[r.name, r.x0, r.y0, r.width_px, r.height_px] for r in self.regions],
            "groups": [
                [[self.models[m].name for m in g.models], g.window_px, g.overlap_px, g.batch, g.level, g.read_px]
                for g in self.groups
            ],
            "windows": [len(layout) for layout in self.layouts],
            "strips": len(self.strips),
            "band_px": self.band_px,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideShape:
    """What the plan has to know of a slide: its levels, the largest first, and its resolution where it is known."""

    levels: Sequence[Level]
    mpp: float | None


def make_plan(
    slide: SlideShape,
    regions: Sequence[Region],
    models: Sequence[ModelShape],
    options: PlanOptions,
    *,
    mask: TissueMask | None = None,
) -> Plan:
    """Cut the regions of a slide into windows, and these into strips.

    Args:
        slide: Its levels and resolution.
        regions: Where to look; they may overlap.
        models: What looks.
        options: How it is cut up.
        mask: Windows without any of it are left out; None looks at all.

    Raises:
        InputError: there is no model, two have one name, or the overlap leaves no step.
    """
    _check_models(models)
    zoom, notes = _zoom(slide, options)
    groups = _groups(slide, models, options, zoom)
    widest = max(group.window_px for group in groups)
    band_px = max(2 * widest, _FRONT_BYTES // (2 * widest * _CHANNELS))
    layouts = tuple(
        _layout(position, region, number, group, mask)
        for position, region in enumerate(regions)
        for number, group in enumerate(groups)
    )
    strips: list[Strip] = []
    for number, layout in enumerate(layouts):
        least = _strip_windows(groups[layout.group].batch, options)
        strips += _strips(number, layout, regions[layout.region], band_px, least, first=len(strips))
    return Plan(
        models=tuple(models),
        regions=tuple(regions),
        groups=groups,
        layouts=layouts,
        strips=tuple(strips),
        band_px=band_px,
        cache_bytes=_cache_bytes(regions, band_px, widest),
        notes=notes,
    )


def plan_of(
    slide: Slide, regions: Sequence[Region], models: Sequence[ModelShape], options: PlanOptions, *, tissue: bool
) -> Plan:
    """The same for an open slide; with ``tissue`` windows that show none are left out."""
    mask = None
    if tissue:
        from scale.regions.tissue import tissue_mask

        mask = tissue_mask(slide)
    return make_plan(SlideShape(levels=slide.levels, mpp=slide.mpp), regions, models, options, mask=mask)


def reading_order(plan: Plan, strips: Sequence[Strip]) -> tuple[Array, Array]:
    """The windows of some strips as they are read: for each, the position of its strip and its own within it.

    Regions one after the other; in each, band by band, from left to right, the windows of all groups together.
    """
    if not strips:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    layouts = [plan.layouts[strip.layout] for strip in strips]
    top = [plan.regions[layout.region].y0 for layout in layouts]
    x0 = np.concatenate([lay.xs[strip.columns] for strip, lay in zip(strips, layouts, strict=True)])
    y0 = np.concatenate([lay.ys[strip.rows] - y for strip, lay, y in zip(strips, layouts, top, strict=True)])
    lengths = [len(strip) for strip in strips]
    owner = np.repeat(np.arange(len(strips)), lengths)
    within = np.concatenate([np.arange(length) for length in lengths])
    group = np.repeat([layout.group for layout in layouts], lengths)
    region = np.repeat([layout.region for layout in layouts], lengths)
    order = np.lexsort((y0, group, x0, y0 // plan.band_px, region))
    return owner[order], within[order]


def bands(plan: Plan, layout: Layout) -> Iterator[tuple[int, int]]:
    """First row and row after the last of each band of a layout, from top to bottom."""
    band = (layout.ys - plan.regions[layout.region].y0) // plan.band_px
    starts = [0, *(np.flatnonzero(np.diff(band)) + 1).tolist(), len(layout.ys)]
    yield from pairwise(starts)


def _check_models(models: Sequence[ModelShape]) -> None:
    names = [model.name for model in models]
    if not names:
        raise InputError("got no model, expected at least one")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models are called {name!r}; give each a name of its own")
    for model in models:
        if model.window_px < 1 or model.batch < 1:
            raise InputError(f"{model.name}: window {model.window_px} px, batch {model.batch}; expected at least 1")


def _zoom(slide: SlideShape, options: PlanOptions) -> tuple[float, tuple[str, ...]]:
    """Level-0 pixels for one pixel of the resolution that the models are meant for."""
    if options.mpp is None:
        return 1.0, ()
    if slide.mpp is None:
        text = "the slide does not say its micrometres per pixel; its level 0 is taken as it is"
        return 1.0, (f"{text} and not brought to {options.mpp:g}",)
    return options.mpp / slide.mpp, ()


def _groups(slide: SlideShape, models: Sequence[ModelShape], options: PlanOptions, zoom: float) -> tuple[Group, ...]:
    alike: dict[tuple[int, int, str], list[int]] = {}
    for position, model in enumerate(models):
        alike.setdefault((model.window_px, model.batch, model.form), []).append(position)
    groups = []
    for (own_px, batch, _), members in alike.items():
        window_px = max(1, round(own_px * zoom))
        input_px = max(models[members[0]].input_hw)
        level = _level(slide, window_px / (input_px if options.pyramid else own_px))
        read_px = max(1, round(window_px / slide.levels[level].downsample))
        if read_px > _MOST_READ_PX:
            raise InputError(
                f"{models[members[0]].name}: got windows of {read_px:,} px of the slide, expected at most "
                f"{_MOST_READ_PX:,}; take smaller windows or fewer micrometres per pixel"
            )
        groups.append(
            Group(
                models=tuple(members),
                window_px=window_px,
                overlap_px=min(window_px - 1, round(overlap_px(options.overlap, own_px) * zoom)),
                batch=batch,
                level=level,
                read_px=read_px,
                input_px=input_px,
            )
        )
    return tuple(groups)


def _level(slide: SlideShape, most: float) -> int:
    """The smallest level that is not coarser than so many level-0 pixels a pixel."""
    fine = [index for index, level in enumerate(slide.levels) if level.downsample <= most * 1.01]
    return max(fine, key=lambda index: slide.levels[index].downsample, default=0)


def _layout(position: int, region: Region, number: int, group: Group, mask: TissueMask | None) -> Layout:
    grid = Grid(region=region, window_px=group.window_px, overlap_px=group.overlap_px)
    kept = np.ones(len(grid), np.bool_) if mask is None else mask.touching(grid)
    shape = (grid.rows, grid.columns)
    edges = inner_edges(grid, kept).reshape(shape)
    return Layout(region=position, group=number, grid=grid, kept=kept.reshape(shape), edges=edges)


def _strip_windows(batch: int, options: PlanOptions) -> int:
    least = options.strip_windows or max(STRIP_BATCHES * batch, STRIP_WINDOWS)
    return -(-least // batch) * batch


def _strips(number: int, layout: Layout, region: Region, band_px: int, least: int, *, first: int) -> list[Strip]:
    rows, columns = np.nonzero(layout.kept)
    order = np.lexsort((rows, columns, (layout.ys[rows] - region.y0) // band_px))
    rows, columns = rows[order].astype(np.int32), columns[order].astype(np.int32)
    count = max(1, len(rows) // least) if len(rows) else 0
    ends = [*(least * (position + 1) for position in range(count - 1)), len(rows)]
    return [
        Strip(index=first + position, layout=number, rows=rows[start:end], columns=columns[start:end])
        for position, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
        if end > start
    ]


def _cache_bytes(regions: Sequence[Region], band_px: int, widest: int) -> int:
    """What two of the largest windows side by side cover along a band, with the tiles at their edges."""
    height = max((min(region.height_px, band_px) for region in regions), default=0) + widest + 2 * _TILE_PX
    width = 2 * widest + 2 * _TILE_PX
    return min(max(height * width * _CHANNELS, _LEAST_CACHE_BYTES), _MOST_CACHE_BYTES)
