from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.core.errors import BusyError, DataError, InputError
from redline.detection.results import Detections, Polygons
from scale.merging.found import Found
from scale.pipeline.batches import Failure, StripResult
from scale.pipeline.shards import Shards, differences, held

ASKED: dict[str, Any] = {"slide": {"sha256": "1"}, "models": {"a": {}}, "settings": {"overlap": 0.2}, "plan": {"n": 1}}
FAILURE = Failure(region="slide", x0=1, y0=2, window_px=64, models=("a",), stage="read", reason="DataError: torn")


def shards(folder: Path, path: str = "x.svs", **changes: Any) -> Shards:
    return Shards(folder, {**ASKED, **changes}, slide_path=Path(path))


def found(seed: int = 0, count: int = 5, *, polygons: bool = False) -> Found:
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2), np.float32) * 100
    rings = Polygons.of([rng.random((3 + n % 3, 2), np.float32) for n in range(count)]) if polygons else None
    detections = Detections(
        boxes=np.concatenate([corners, corners + 5], axis=1),
        scores=rng.random(count, np.float32),
        classes=rng.integers(0, 3, count).astype(np.int32),
        polygons=rings,
    )
    return Found(detections, np.arange(count, dtype=np.int64), rng.integers(0, 16, count).astype(np.uint8))


def result(strip: int = 3, *, failures: tuple[Failure, ...] = ()) -> StripResult:
    return StripResult(strip=strip, found=(found(1), found(2, polygons=True), Found.empty()), failures=failures)


def test_a_strip_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = shards(tmp_path)
    kept.begin()
    kept.save(result(failures=(FAILURE,)))
    back = kept.load(3)
    assert (back.strip, back.failures) == (3, (FAILURE,))
    for one, other in zip(back.found, result().found, strict=True):
        assert np.array_equal(one.windows, other.windows)
        assert np.array_equal(one.cuts, other.cuts)
        assert np.array_equal(one.detections.boxes, other.detections.boxes)
        assert np.array_equal(one.detections.scores, other.detections.scores)
        assert np.array_equal(one.detections.classes, other.detections.classes)
    ring, expected = back.found[1].detections.polygons, result().found[1].detections.polygons
    assert ring is not None
    assert expected is not None
    assert np.array_equal(ring.points, expected.points)
    assert np.array_equal(ring.offsets, expected.offsets)
    assert back.found[0].detections.polygons is None


def test_the_bytes_of_a_strip_depend_on_nothing_else(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        kept = shards(tmp_path / name, path=name)
        kept.begin()
        kept.save(result())
        files.append((tmp_path / name / "shards" / "000003.npz").read_bytes())
    assert files[0] == files[1]


def test_only_whole_strips_of_this_run_without_missing_windows_are_finished(tmp_path: Path) -> None:
    kept = shards(tmp_path)
    kept.begin()
    for strip in range(5):
        kept.save(result(strip))
    kept.save(result(1, failures=(FAILURE,)))
    place = tmp_path / "shards"
    (place / "000002.npz").write_bytes((place / "000002.npz").read_bytes()[:-30])
    (place / "000003.npz").write_bytes(b"")
    other = shards(tmp_path / "other", settings={"overlap": 0.3})
    other.begin()
    other.save(result(4))
    (place / "000004.npz").write_bytes((tmp_path / "other" / "shards" / "000004.npz").read_bytes())
    assert kept.finished(7) == {0}
    with pytest.raises(DataError, match="--resume"):
        kept.load(2)
    with pytest.raises(DataError, match="it is of another one"):
        kept.load(4)
    with pytest.raises(DataError, match="is not there"):
        kept.load(6)


def test_a_folder_that_holds_a_run_is_not_touched_unasked(tmp_path: Path) -> None:
    shards(tmp_path).begin()
    with pytest.raises(InputError, match=r"holds a run already; .*--resume.*--fresh"):
        shards(tmp_path).begin()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": {"overlap": 0.25}, "plan": {"n": 2}}, r"with settings\.overlap 0\.2, now 0\.25; go on"),
        ({"models": {"b": {}}}, r"models\.a \{\}, now null; models\.b null"),
        ({"slide": {"sha256": "2"}}, r'slide\.sha256 "1", now "2"'),
        ({"plan": {"n": 2}}, r"plan\.n 1, now 2"),
    ],
)
def test_a_run_that_was_asked_for_something_else_is_not_mixed_with(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    shards(tmp_path).begin()
    with pytest.raises(InputError, match=told):
        shards(tmp_path, **changes).begin(resume=True)


def test_starting_anew_removes_what_was_there(tmp_path: Path) -> None:
    old = shards(tmp_path)
    old.begin()
    old.save(result(0))
    new = shards(tmp_path, settings={"overlap": 0.5})
    new.begin(fresh=True)
    assert list((tmp_path / "shards").iterdir()) == []
    assert json.loads(new.manifest.read_text())["settings"] == {"overlap": 0.5}


def test_strips_without_a_manifest_are_of_nobody(tmp_path: Path) -> None:
    old = shards(tmp_path)
    old.begin()
    old.save(result(0))
    old.manifest.unlink()
    old.begin(resume=True)
    assert old.finished(1) == set()


def test_a_slide_that_was_moved_is_the_same_slide(tmp_path: Path) -> None:
    shards(tmp_path, path="here.svs").begin()
    moved = shards(tmp_path, path="there.svs")
    moved.begin(resume=True)
    assert json.loads(moved.manifest.read_text())["slide"]["path"].endswith("there.svs")


def test_a_manifest_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is not a manifest"):
        shards(tmp_path).begin(resume=True)


def test_two_runs_cannot_hold_one_folder_and_scratch_files_of_a_killed_one_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    left = [folder / ".detections-x.partial.json", folder / "shards" / ".000001-y.partial.npz"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with held(folder):
        assert not any(path.exists() for path in left)
        with pytest.raises(BusyError, match="held by another run"), held(folder):
            raise AssertionError
    with held(folder):
        pass
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="is a file"), held(file):
        raise AssertionError


def test_differences_say_where() -> None:
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["a[1].b 2, now 3"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a [1], now [1, 2]"]
    assert differences({"a": 1}, {"a": 1}) == []
