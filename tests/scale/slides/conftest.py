"""The slides that these tests read, made once."""

import pytest
from tests.scale.slides_tools import make_pyramid


@pytest.fixture(scope="session")
def slides_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("slides")


@pytest.fixture(scope="session")
def pyramid(slides_folder):
    """Four levels whose sizes are no whole fractions of each other; 128 px tiles."""
    return make_pyramid(slides_folder / "pyramid.tif", 1501, 1103, tile_px=128, levels=4)


@pytest.fixture(scope="session")
def aperio(slides_folder):
    return make_pyramid(slides_folder / "aperio.svs", 1500, 1100, levels=2, maker="aperio")


@pytest.fixture(scope="session")
def ome(slides_folder):
    return make_pyramid(slides_folder / "slide.ome.tif", 1400, 1301, levels=3, maker="ome")
