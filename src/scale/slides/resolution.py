"""Micrometres per pixel and magnification out of what the makers of TIFF slides write."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# What scanners for tissue use, with room to spare. 72 or 300 dots an inch, which many programs write, are 353 and 85.
_LEAST_MPP, _MOST_MPP = 0.01, 20.0
_LEAST_POWER, _MOST_POWER = 0.1, 250.0

_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_MICROMETRES_OF_TAG = {2: 25_400.0, 3: 10_000.0}
_ATTRIBUTE = re.compile(r'([A-Za-z]+)\s*=\s*"([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a description says about the scale of level 0; None where it does not."""

    mpp: float | None = None
    magnification: float | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


def aperio_resolution(description: str) -> Resolution:
    """What an Aperio ``ImageDescription`` says.

    >>> aperio_resolution("Aperio Image Library v11.2.1 x [0,0] |AppMag = 20|MPP = 0.4990").mpp
    0.499
    """
    pairs = (item.partition("=") for item in description.split("|")[1:])
    found = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    return Resolution(
        mpp=_plausible(found.get("MPP"), _LEAST_MPP, _MOST_MPP),
        magnification=_plausible(found.get("AppMag"), _LEAST_POWER, _MOST_POWER),
        properties={f"aperio.{key}": value for key, value in found.items()},
    )


def ome_resolution(description: str) -> Resolution:
    """What OME-XML says about its first image.

    >>> ome_resolution('<OME><Pixels PhysicalSizeX="500" PhysicalSizeXUnit="nm" SizeC="3"/></OME>').mpp
    0.5
    """
    pixels = _attributes(description, "Pixels")
    sizes = [_physical(pixels, axis) for axis in "XY"]
    known = [size for size in sizes if size is not None]
    power = _attributes(description, "Objective").get("NominalMagnification")
    wanted = {key: value for key, value in pixels.items() if key.startswith("PhysicalSize")}
    return Resolution(
        mpp=sum(known) / len(known) if known else None,
        magnification=_plausible(power, _LEAST_POWER, _MOST_POWER),
        properties={f"ome.{key}": value for key, value in wanted.items()},
    )


def ome_planes(description: str) -> dict[str, int]:
    """How many channels, depths and times OME-XML says that its first image has, by C, Z and T.

    >>> ome_planes('<OME><Pixels SizeC="3" SizeT="1" SizeX="900" SizeZ="5"/></OME>')
    {'C': 3, 'Z': 5, 'T': 1}
    """
    pixels = _attributes(description, "Pixels")
    return {axis: int(size) if (size := pixels.get(f"Size{axis}", "1")).isdecimal() else 1 for axis in "CZT"}


def tag_resolution(per_unit_x: float | None, per_unit_y: float | None, unit: int | None) -> Resolution:
    """What TIFF's resolution tags say, where that is plausible for a slide.

    >>> tag_resolution(20_000, 20_000, 3).mpp, tag_resolution(300, 300, 2).mpp
    (0.5, None)
    """
    micrometres = _MICROMETRES_OF_TAG.get(unit or 0)
    if micrometres is None or not per_unit_x or not per_unit_y:
        return Resolution()
    mpp = (micrometres / per_unit_x + micrometres / per_unit_y) / 2
    return Resolution(mpp=_within(mpp, _LEAST_MPP, _MOST_MPP))


def named_resolution(properties: Mapping[str, str]) -> Resolution:
    """What OpenSlide's properties say.

    >>> named_resolution({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25", "openslide.objective-power": "40"}).mpp
    0.25
    """
    sizes = [_plausible(properties.get(f"openslide.mpp-{axis}"), _LEAST_MPP, _MOST_MPP) for axis in "xy"]
    known = [size for size in sizes if size is not None]
    return Resolution(
        mpp=sum(known) / len(known) if known else None,
        magnification=_plausible(properties.get("openslide.objective-power"), _LEAST_POWER, _MOST_POWER),
        properties=dict(properties),
    )


def _attributes(description: str, element: str) -> dict[str, str]:
    """Of the first such element: a pattern, because a parser would have to be guarded against hostile XML."""
    found = re.search(rf"<(?:\w+:)?{element}\b([^>]*)>", description)
    return {key: html.unescape(value) for key, value in _ATTRIBUTE.findall(found[1])} if found else {}


def _physical(pixels: Mapping[str, str], axis: str) -> float | None:
    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
    micrometres = _MICROMETRES.get(unit)
    size = _number(pixels.get(f"PhysicalSize{axis}"))
    return None if micrometres is None or size is None else _within(size * micrometres, _LEAST_MPP, _MOST_MPP)


def _plausible(text: str | None, least: float, most: float) -> float | None:
    value = _number(text)
    return None if value is None else _within(value, least, most)


def _within(value: float, least: float, most: float) -> float | None:
    return value if math.isfinite(value) and least <= value <= most else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
