from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.scale.viewer.made import result, write_result

from redline.core.errors import DataError, InputError
from scale.viewer.results import find_results, find_slide


def test_a_folder_of_one_slide_and_one_of_several(tmp_path: Path) -> None:
    out = write_result(tmp_path, "b")
    write_result(tmp_path, "a")
    (several, problems), (one, _) = find_results(out), find_results(out / "b")
    assert [found.name for found in several] == ["a", "b"]
    assert problems == ()
    assert one == several[1:]
    assert (one[0].width_px, one[0].height_px, one[0].mpp) == (300, 200, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"slide": null}',
        '{"slide": {"width_px": 0, "height_px": 5}}',
        '{"slide": {"width_px": "3", "height_px": 5}}',
    ],
)
def test_a_broken_manifest_is_told_and_hides_no_other(tmp_path: Path, text: str) -> None:
    out = write_result(tmp_path, "good")
    (out / "bad").mkdir()
    (out / "bad" / "manifest.json").write_text(text)
    found, problems = find_results(out)
    assert [one.name for one in found] == ["good"]
    assert len(problems) == 1
    assert "bad" in problems[0]
    with pytest.raises(DataError, match="is not a manifest"):
        find_results(out / "bad")


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_results_says_what_to_give(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="scale detect"):
        find_results(tmp_path / name)


def test_the_slide_is_found_where_it_was_and_beside_its_results(tmp_path: Path) -> None:
    out = write_result(tmp_path)
    (found,), _ = find_results(out)
    assert find_slide(found, (), alone=True) == tmp_path / "slides" / "slide.png"
    (tmp_path / "slides" / "slide.png").rename(out / "slide.png")
    assert find_slide(found, (), alone=True) == out / "slide.png"


def test_a_slide_that_is_given_goes_before_where_it_was(tmp_path: Path) -> None:
    (found,), _ = find_results(write_result(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    copy = other / "slide.png"
    copy.write_bytes(b"")
    assert find_slide(found, (other,), alone=True) == copy
    assert find_slide(found, (copy,), alone=False) == copy
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(b"")
    assert find_slide(found, (renamed,), alone=True) == renamed
    assert find_slide(found, (renamed,), alone=False) == tmp_path / "slides" / "slide.png"


def test_what_to_type_for_a_slide_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not at .*there\.svs any more; type: scale view .*out/slide --slide PATH"):
        find_slide(result(folder=tmp_path / "out"), (), alone=True)
    with pytest.raises(InputError, match=r"type: scale view \S*out --slide PATH"):
        find_slide(result(folder=tmp_path / "out", slide_path=None), (), alone=False)
    with pytest.raises(InputError, match="no such file"):
        find_slide(result(), (tmp_path / "nowhere",), alone=True)


def test_a_manifest_may_lack_what_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"slide": {"width_px": 5, "height_px": 6}}))
    (found,), _ = find_results(tmp_path)
    assert (found.slide_path, found.mpp) == (None, None)
