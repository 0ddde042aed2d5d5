"""What makers write about the scale is read, and what is implausible is not believed."""

import pytest

from scale.slides.resolution import aperio_resolution, named_resolution, ome_resolution, tag_resolution


@pytest.mark.parametrize(
    ("text", "mpp", "power"),
    [
        ("Aperio Image Library v1 |AppMag = 40|MPP = 0.2520", 0.252, 40),
        ("Aperio Image Library v1 |MPP=0.25|x", 0.25, None),
        ("Aperio Image Library v1 |AppMag = 0|MPP = 0", None, None),
        ("Aperio Image Library v1 |AppMag = x|MPP = nan", None, None),
        ("Aperio Image Library v1 |MPP = inf|AppMag = 1e9", None, None),
        ("Aperio", None, None),
        ("", None, None),
    ],
)
def test_aperio(text, mpp, power):
    found = aperio_resolution(text)
    assert (found.mpp, found.magnification) == (mpp, power)


@pytest.mark.parametrize(
    ("pixels", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="0.2" PhysicalSizeY="0.3" PhysicalSizeXUnit="µm"', 0.25),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm"', 0.25),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="mm"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="&#181;m"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="\N{GREEK SMALL LETTER MU}m"', 0.25),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="0"', None),
        ('SizeX="5"', None),
    ],
)
def test_ome(pixels, mpp):
    found = ome_resolution(
        f'<OME><Instrument><Objective ID="O:0" NominalMagnification="20.0"/></Instrument><Pixels {pixels}>'
        '</Pixels><Pixels PhysicalSizeX="9"/></OME>'
    )
    assert found.mpp == (None if mpp is None else pytest.approx(mpp))
    assert found.magnification == 20


def test_no_xml_at_all():
    assert ome_resolution("<OME>").mpp is None


@pytest.mark.parametrize(
    ("x", "y", "unit", "mpp"),
    [
        (40_000, 40_000, 3, 0.25),
        (101_600, 101_600, 2, 0.25),
        (72, 72, 2, None),
        (300, 300, 2, None),
        (1, 1, 3, None),
        (40_000, 40_000, 1, None),
        (40_000, 40_000, None, None),
        (0, 40_000, 3, None),
        (None, None, 3, None),
    ],
)
def test_tags(x, y, unit, mpp):
    assert tag_resolution(x, y, unit).mpp == mpp


def test_openslide():
    found = named_resolution({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.7", "openslide.objective-power": "x"})
    assert (found.mpp, found.magnification) == (pytest.approx(0.6), None)
    assert named_resolution({"openslide.mpp-x": "353"}).mpp is None
