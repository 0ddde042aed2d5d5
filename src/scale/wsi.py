"""A slide's sections, their pieces and the windows over them: ``WSIIterator("slide.svs")``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from redline.core.errors import DataError, InputError
from redline.core.tensor import Array
from scale.domain import Coords
from scale.regions.grid import Grid, Region, overlap_px
from scale.slides.base import Slide
from scale.slides.opening import Reader, open_slide


class WSIIterator:
    """Reads a slide window by window, section by section; opened at first use, safe to share between threads.

    Windows are of full size: the last of each row and column is shifted back, and where a region is smaller than a
    window, the window shows what lies beyond it, white outside the slide. With ``cut_windows`` they start at every
    multiple of the stride and end at the region's border instead, down to slivers of few pixels, which gives the
    windows of earlier programs with this interface.

    Attributes:
        path: Where the slide lies.
        cut_windows: Whether the last windows are cut.

    >>> with WSIIterator("slide.svs", num_sections=3) as slide:  # doctest: +SKIP
    ...     for window_bgr, start in slide.iter_first_section_bgr(514, 0.2):
    ...         print(window_bgr.shape, start.x, start.y)
    """

    def __init__(
        self,
        wsi_path: str | os.PathLike[str] | Slide,
        num_sections: int | None = None,
        num_subsections: int | None = None,
        *,
        reader: Reader = "auto",
        cut_windows: bool = False,
    ) -> None:
        """Take note of a slide.

        Args:
            wsi_path: The file, or a slide that is open already and that its owner closes.
            num_sections: How many sections there are; None finds out.
            num_subsections: How many pieces of tissue to take from a section at most; None for all.
            reader: Which reader opens the file, by its name.
            cut_windows: Cut the last windows instead of shifting them back.
        """
        if isinstance(wsi_path, str | os.PathLike):
            self.path = Path(wsi_path)
            self._slide: Slide | None = None
        else:
            self.path = Path(wsi_path.path)
            self._slide = wsi_path
        self.cut_windows = cut_windows
        self._owned = self._slide is None
        self._section_count = num_sections
        self._subsection_count = num_subsections
        self._reader = reader
        self._lock = threading.Lock()

    @property
    def slide(self) -> Slide:
        """The open slide."""
        with self._lock:
            if self._slide is None:
                self._slide = open_slide(self.path, reader=self._reader)
            return self._slide

    def close(self) -> None:
        """Close the slide, where this opened it; using it again opens it again."""
        with self._lock:
            if self._owned and self._slide is not None:
                self._slide.close()
                self._slide = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def sections(self) -> tuple[Region, ...]:
        """The sections, ordered by (y, x); none where the slide has no tissue."""
        from scale.regions.sections import sections_of

        return tuple(sections_of(self.slide, self._section_count))

    @property
    def num_sections(self) -> int:
        """How many sections there are."""
        return len(self.sections)

    def section(self, index: int) -> Region:
        """One section, counted from 0.

        Raises:
            DataError: the slide has no tissue.
            InputError: it has no such section.
        """
        sections = self.sections
        if not sections:
            raise DataError(f"{self.path}: no tissue found, so there is no section to look at")
        return _one_of(sections, index, f"{self.path}: section")

    def subsections(self, section: int) -> tuple[Region, ...]:
        """The pieces of tissue of a section, ordered by (y, x); at least one."""
        from scale.regions.sections import subsections_of

        return tuple(subsections_of(self.slide, self.section(section), self._subsection_count))

    def subsection(self, section: int, subsection: int) -> Region:
        """One piece of tissue of a section, both counted from 0."""
        return _one_of(self.subsections(section), subsection, f"{self.path}: subsection")

    def thumbnail(self) -> tuple[Array, float]:
        """The whole slide as a picture of bounded size: uint8 RGB, and how many level-0 pixels one of its is wide."""
        from scale.regions.picture import overview

        picture = overview(self.slide)
        return picture.pixels.copy(), picture.downsample

    def iter_first_section_bgr(self, window_size: int, overlap_ratio: float) -> Iterator[tuple[Array, Coords]]:
        """The windows over the first section; see :meth:`iter_section_bgr`."""
        return self.iter_section_bgr(0, window_size, overlap_ratio)

    def iter_section_bgr(self, index: int, window_size: int, overlap_ratio: float) -> Iterator[tuple[Array, Coords]]:
        """The windows over a section, row by row.

        Args:
            index: Of the section, from 0.
            window_size: The side of a window in level-0 pixels.
            overlap_ratio: What neighbours share at least: below 1 a share of the window, from 1 on pixels.

        Returns:
            Pairs of a window, uint8 BGR, and its upper left corner on the slide in level-0 pixels.
        """
        return self._windows(self.section(index), window_size, overlap_ratio)

    def iter_subsection_bgr(
        self, section: int, subsection: int, window_size: int, overlap_ratio: float
    ) -> Iterator[tuple[Array, Coords]]:
        """The windows over a piece of tissue of a section; see :meth:`iter_section_bgr`."""
        return self._windows(self.subsection(section, subsection), window_size, overlap_ratio)

    def _windows(self, region: Region, window_px: int, overlap: float) -> Iterator[tuple[Array, Coords]]:
        shared_px = overlap_px(overlap, window_px)
        if self.cut_windows:
            return _read(self.slide, _cut_boxes(region, window_px, overlap))
        return _read(self.slide, _full_boxes(region, window_px, shared_px))


def _one_of(regions: tuple[Region, ...], index: int, what: str) -> Region:
    if not 0 <= index < len(regions):
        raise InputError(f"{what} {index} does not exist, expected 0 to {len(regions) - 1}")
    return regions[index]


def _full_boxes(region: Region, window_px: int, shared_px: int) -> Iterator[tuple[int, int, int, int]]:
    for window in Grid(region=region, window_px=window_px, overlap_px=shared_px):
        yield window.x0, window.y0, window_px, window_px


def _cut_boxes(region: Region, window_px: int, overlap: float) -> Iterator[tuple[int, int, int, int]]:
    # Rounded down as those programs do it: an overlap of 0.9 gives windows of 100 pixels a stride of 9, not 10.
    stride = window_px - int(overlap) if overlap >= 1 else max(1, int(window_px * (1 - overlap)))
    for y in range(0, region.height_px, stride):
        for x in range(0, region.width_px, stride):
            width, height = min(window_px, region.width_px - x), min(window_px, region.height_px - y)
            yield region.x0 + x, region.y0 + y, width, height


def _read(slide: Slide, boxes: Iterator[tuple[int, int, int, int]]) -> Iterator[tuple[Array, Coords]]:
    for x0, y0, width_px, height_px in boxes:
        rgb = slide.read(x0, y0, width_px, height_px)
        yield np.ascontiguousarray(rgb[:, :, ::-1]), Coords(x0, y0)


WSI = WSIIterator
