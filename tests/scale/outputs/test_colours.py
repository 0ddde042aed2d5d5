from __future__ import annotations

from scale.outputs.colours import PALETTE, colours_of


def test_all_colours_differ_and_stand_out_from_a_white_slide() -> None:
    assert len(set(PALETTE)) == len(PALETTE) == 21
    assert all(max(colour) <= 255 and min(colour) >= 0 for colour in PALETTE)
    assert all(min(colour) < 200 for colour in PALETTE)


def test_a_class_has_its_colour_whatever_the_order() -> None:
    names = ["Meta", "EoE", "Plasma cells"]
    assert colours_of(names) == colours_of(reversed(names))
    assert list(colours_of(names)) == names
    assert colours_of(["EoE"])["EoE"] == PALETTE[0]


def test_more_classes_than_colours_begin_again() -> None:
    names = [f"{number:02}" for number in range(23)]
    assert colours_of(names)["21"] == colours_of(names)["00"]
