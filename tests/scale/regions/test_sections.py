"""Sections and subsections of drawn slides whose pieces are known, and of the real one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tests.scale.fake_slide import FakeSlide, glass, stain

import scale
from redline.core.errors import DataError, InputError
from redline.core.tensor import Array
from scale.regions.grid import Region
from scale.regions.picture import whole_slide
from scale.regions.sections import sections_of, subsections_of
from scale.slides.opening import open_slide

REAL = Path(scale.__path__[0]) / "assets" / "cmu_small_region.svs"

Box = tuple[int, int, int, int]

# One cut: pieces (x, y, width, height) within 450 x 600 pixels, well apart.
PIECES = ((20, 30, 200, 160), (240, 120, 180, 200), (60, 330, 300, 220))
AROUND = (20, 30, 400, 520)


def cuts(*corners: tuple[int, int], width: int = 2100, height: int = 900) -> Array:
    """The same cut at several places of a glass."""
    array = glass(width, height)
    for (x, y), piece in itertools.product(corners, PIECES):
        stain(array, x + piece[0], y + piece[1], piece[2], piece[3])
    return array


def around(x: int, y: int) -> Box:
    return x + AROUND[0], y + AROUND[1], AROUND[2], AROUND[3]


def box(region: Region) -> Box:
    return region.x0, region.y0, region.width_px, region.height_px


def close(found: list[Region], expected: list[Box], within_px: int = 4) -> bool:
    """Whether boxes have these edges, but for what the rounding of corners by the morphology takes."""
    return len(found) == len(expected) and all(
        abs(edge - wanted) <= within_px
        for region, (x, y, width, height) in zip(found, expected, strict=True)
        for edge, wanted in zip(edges(region), (x, y, x + width, y + height), strict=True)
    )


def edges(region: Region) -> Box:
    return region.x0, region.y0, region.x0 + region.width_px, region.y0 + region.height_px


THREE = ((0, 120), (750, 80), (1500, 100))
IN_ORDER = [around(750, 80), around(1500, 100), around(0, 120)]


@pytest.mark.parametrize("count", [None, 3])
def test_three_equal_cuts_are_three_sections_ordered_by_y_then_x(count: int | None) -> None:
    found = sections_of(FakeSlide(cuts(*THREE)), count)
    assert close(found, IN_ORDER)
    assert [region.name for region in found] == ["section-0", "section-1", "section-2"]


def test_sections_of_one_height_are_ordered_by_x() -> None:
    found = sections_of(FakeSlide(cuts((1500, 100), (0, 100), (750, 100))))
    assert [region.x0 for region in found] == pytest.approx([20, 770, 1520], abs=2)


def test_a_count_decides_over_the_best_grouping() -> None:
    slide = FakeSlide(cuts(*THREE))
    assert close(sections_of(slide, 1), [(20, 110, 1500 + 400, 560)])
    assert len(sections_of(slide, 2)) == 2
    assert len(sections_of(slide, 9)) == 9


def test_more_sections_than_pieces_are_refused() -> None:
    with pytest.raises(DataError, match="asked for 10 sections, pieces of tissue found: 9"):
        sections_of(FakeSlide(cuts(*THREE)), 10)


@pytest.mark.parametrize("count", [0, -1])
def test_counts_start_at_one(count: int) -> None:
    slide = FakeSlide(glass(1100, 100))
    with pytest.raises(InputError, match="expected 1 or more"):
        sections_of(slide, count)
    with pytest.raises(InputError, match="expected 1 or more"):
        subsections_of(slide, whole_slide(slide), count)


@pytest.mark.parametrize("count", [None, 3])
def test_a_slide_without_tissue_has_no_sections(count: int | None) -> None:
    assert sections_of(FakeSlide(glass(1200, 400)), count) == []


@pytest.mark.parametrize("pieces", [1, 2])
def test_one_or_two_pieces_are_one_section_unless_said_otherwise(pieces: int) -> None:
    array = glass(1200, 500)
    for number in range(pieces):
        stain(array, 100 + 600 * number, 100, 300, 300)
    slide = FakeSlide(array)
    assert close(sections_of(slide), [(100, 100, 300 + 600 * (pieces - 1), 300)])
    assert len(sections_of(slide, pieces)) == pieces


def test_pieces_under_a_third_of_the_median_are_left_out() -> None:
    array = cuts(*THREE)
    stain(array, 1000, 750, 60, 60)
    assert close(sections_of(FakeSlide(array)), IN_ORDER)


def test_debris_neither_counts_nor_lowers_the_median() -> None:
    array = glass(1400, 1200)
    array[100:1100, 100:1000] = (200, 90, 160)
    for x in range(20, 1380, 40):
        array[20:28, x : x + 8] = (200, 90, 160)
    assert [box(region) for region in sections_of(FakeSlide(array))] == [(100, 100, 900, 1000)]


def test_pieces_that_lie_within_each_others_boxes_are_one_section() -> None:
    array = glass(1400, 1200)
    array[100:1100, 100:200] = array[1000:1100, 100:1200] = (200, 90, 160)  # an L
    array[150:600, 400:700] = array[650:900, 400:700] = (200, 90, 160)
    assert [box(region) for region in sections_of(FakeSlide(array))] == [(100, 100, 1100, 1000)]


def test_pale_tissue_that_the_colour_rule_misses_is_still_a_section() -> None:
    array = glass(1200, 500)
    stain(array, 300, 100, 400, 300, colour=(225, 207, 218))
    assert close(sections_of(FakeSlide(array)), [(300, 100, 400, 300)])


def test_sections_are_the_same_from_a_coarse_level_but_for_its_pixels() -> None:
    small = cuts(*THREE)
    array = small.repeat(2, axis=0).repeat(2, axis=1)
    slide = FakeSlide(array, levels=(1, 2))
    assert close(sections_of(slide), [tuple(2 * side for side in wanted) for wanted in IN_ORDER], within_px=8)  # type: ignore[misc]
    assert {read[4] for read in slide.reads} == {1}


def test_answers_are_worked_out_once_and_are_the_callers_to_change() -> None:
    slide = FakeSlide(cuts(*THREE))
    first = sections_of(slide)
    assert subsections_of(slide, first[1]) == subsections_of(slide, first[1])
    first.clear()
    assert len(sections_of(slide)) == 3
    assert len(slide.reads) == 2


def test_subsections_are_the_pieces_of_a_section_ordered_by_y_then_x() -> None:
    slide = FakeSlide(cuts(*THREE))
    section = sections_of(slide)[1]
    found = subsections_of(slide, section)
    assert close(found, [(1500 + x, 100 + y, width, height) for x, y, width, height in PIECES], within_px=8)
    assert [region.name for region in found] == [f"section-1-subsection-{number}" for number in range(3)]
    for region in found:
        assert section.x0 <= region.x0
        assert edges(region)[2] <= edges(section)[2]


def test_a_count_keeps_the_largest_subsections_and_never_adds_any() -> None:
    slide = FakeSlide(cuts(*THREE))
    section = sections_of(slide)[0]
    largest = subsections_of(slide, section, 2)
    assert close(largest, [(750 + x, 80 + y, width, height) for x, y, width, height in PIECES[1:]], within_px=8)
    assert len(subsections_of(slide, section, 12)) == 3


def test_gaps_of_a_few_pixels_do_not_part_a_piece_and_threads_do_not_join_two() -> None:
    array = glass(1100, 600)
    array[100:400, 100:300] = array[100:400, 310:500] = array[100:400, 600:900] = (200, 90, 160)
    array[200:206, 500:600] = (200, 90, 160)
    slide = FakeSlide(array)
    found = subsections_of(slide, whole_slide(slide))
    assert close(found, [(100, 100, 400, 300), (600, 100, 300, 300)], within_px=0)


def test_small_pieces_are_left_out() -> None:
    array = glass(1500, 600)
    for x in (50, 450, 850):
        array[100:400, x : x + 300] = (200, 90, 160)
    array[100:300, 1200:1400] = (200, 90, 160)  # 0.44 of the median
    slide = FakeSlide(array)
    assert [region.x0 for region in subsections_of(slide, whole_slide(slide))] == [50, 450, 850]


def test_of_many_specks_around_one_piece_the_piece_stays() -> None:
    array = glass(1500, 600)
    array[50:550, 50:550] = (200, 90, 160)
    for x in range(700, 1400, 60):
        array[100:140, x : x + 30] = (200, 90, 160)
    slide = FakeSlide(array)
    assert [box(region) for region in subsections_of(slide, whole_slide(slide))] == [(50, 50, 500, 500)]


def test_a_section_without_any_piece_is_its_own_subsection() -> None:
    slide = FakeSlide(glass(1100, 500))
    section = Region(name="section-0", x0=100, y0=50, width_px=300, height_px=200)
    assert subsections_of(slide, section) == [
        Region(name="section-0-subsection-0", x0=100, y0=50, width_px=300, height_px=200)
    ]


def test_a_large_section_is_read_from_a_coarse_level() -> None:
    array = cuts((0, 100), width=600, height=800).repeat(6, axis=0).repeat(6, axis=1)
    slide = FakeSlide(array, levels=(1, 2, 6))
    (section,) = sections_of(slide, 1)
    slide.reads.clear()
    found = subsections_of(slide, section)
    assert {read[4] for read in slide.reads} == {1}
    pieces = [(6 * x, 6 * (100 + y), 6 * width, 6 * height) for x, y, width, height in PIECES]
    assert close(found, pieces, within_px=16)


def test_the_real_slide_is_one_section_of_one_piece() -> None:
    with open_slide(REAL) as slide:
        (section,) = sections_of(slide)
        (piece,) = subsections_of(slide, section)
        assert edges(section) == pytest.approx((74, 80, 1992, 2967), abs=10)
        assert piece.height_px == section.height_px
        assert 0.9 < piece.width_px / section.width_px <= 1
