from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tests.scale.viewer.made import COLORS, NAMES, marks

from redline.core.errors import RequestError
from scale.viewer.density import density, png_of
from scale.viewer.marks import Filter, Marks


def at(centers: list[tuple[float, float]], classes: list[int]) -> Marks:
    boxes = np.array([[x - 2, y - 2, x + 2, y + 2] for x, y in centers], np.float32)
    return Marks(boxes, np.full(len(boxes), 0.5, np.float32), np.array(classes), names=NAMES, colors=COLORS)


def test_the_color_is_that_of_the_class_and_lies_where_it_is() -> None:
    picture = density(at([(105, 45)], [1]), (0, 0, 200, 100), 10, Filter())
    assert picture.shape == (10, 20, 4)
    assert picture[4, 10, :3].tolist() == [0xD5, 0x5E, 0x00]
    assert np.unravel_index(picture[..., 3].argmax(), (10, 20)) == (4, 10)
    assert picture[4, 10, 3] > 100  # one alone can be seen
    assert picture[4, 10, 3] > picture[4, 11, 3] > picture[4, 12, 3] == 0


def test_two_classes_in_one_bin_are_mixed() -> None:
    picture = density(at([(5, 5), (5, 5)], [0, 1]), (0, 0, 10, 10), 10, Filter())
    assert picture[0, 0, :3].tolist() == [round((a + b) / 2) for a, b in zip((0, 114, 178), (213, 94, 0), strict=True)]


def test_more_are_more_solid() -> None:
    picture = density(at([(5, 5), *[(105, 5)] * 4], [1] * 5), (0, 0, 200, 10), 10, Filter())
    assert picture[0, 0, 3] < picture[0, 10, 3]


def test_the_picture_does_not_depend_on_where_the_view_ends() -> None:
    found = marks(3000)
    whole = density(found, (0, 0, 1504, 1104), 8, Filter())
    part = density(found, (320, 160, 960, 800), 8, Filter())
    np.testing.assert_array_equal(part[1:-1, 1:-1], whole[21:99, 41:119])


def test_the_filter_counts() -> None:
    found = at([(5, 5), (25, 5)], [0, 1])
    picture = density(found, (0, 0, 40, 10), 10, Filter(classes=frozenset({1})))
    assert picture[0, 0, 3] == 0 < picture[0, 2, 3]
    assert not density(found, (0, 0, 40, 10), 10, Filter(least=0.6))[..., 3].any()


@pytest.mark.parametrize(("side", "bin_px"), [(1e9, 1), (0, 1)])
def test_too_many_bins_and_none_are_refused(side: float, bin_px: float) -> None:
    with pytest.raises(RequestError, match="bins"):
        density(marks(), (0, 0, side, side), bin_px, Filter())


def test_the_file_is_the_picture() -> None:
    picture = density(marks(), (0, 0, 1500, 1100), 20, Filter())
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_of(picture)))), picture)
