"""Which files there are of a model, and when one is no longer of the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scale.models.yolo_tools import touch

from redline.core.artifact import Step
from redline.core.files import sha256_of
from scale.models.files import EXPORTED, MissingModelError, find_files, why_stale


def step(name: str, parent: Path) -> Step:
    return Step(step=name, arguments={}, parent_sha256=sha256_of(parent), versions={})


def test_siblings_share_folder_and_stem(tmp_path: Path) -> None:
    for name in ("m.pt", "m.onnx", "m.engine", "m.plan", "other.engine"):
        touch(tmp_path / name, at_s=100)
    files = find_files(tmp_path / "m.pt")
    assert files.engines == (tmp_path / "m.engine", tmp_path / "m.plan")
    assert files.sources == (tmp_path / "m.pt", tmp_path / "m.onnx")
    assert find_files(tmp_path / "m.plan").engines == (tmp_path / "m.plan", tmp_path / "m.engine")
    nothing = find_files(tmp_path / "n.pt")
    assert (nothing.engines, nothing.onnx, nothing.torch) == ((), None, None)


@pytest.mark.parametrize(("made_s", "stale"), [(99, True), (100, False), (101, False)])
def test_without_a_history_the_time_decides(tmp_path: Path, made_s: int, stale: bool) -> None:
    source = touch(tmp_path / "m.pt", at_s=100)
    made = touch(tmp_path / "m.engine", at_s=made_s)
    assert why_stale(made, (), [source]) == ("m.engine is older than m.pt" if stale else None)


def test_a_digest_decides_whatever_the_time(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    source.write_bytes(b"one")
    history = [step("compile tensorrt", source)]
    made = touch(tmp_path / "m.engine", at_s=1)
    assert why_stale(made, history, [source]) is None
    source.write_bytes(b"two")
    touch(source, at_s=0)
    assert why_stale(made, history, [source]) == "m.engine was made of another m.onnx than the one beside it"


def test_only_an_export_that_was_written_down_knows_the_pt_file(tmp_path: Path) -> None:
    torch, onnx = tmp_path / "m.pt", tmp_path / "m.onnx"
    torch.write_bytes(b"one")
    onnx.write_bytes(b"exported")
    made = touch(tmp_path / "m.engine", at_s=1)
    known = [step(EXPORTED, torch), step("compile tensorrt", onnx)]
    assert why_stale(made, known, [torch, onnx]) is None
    assert why_stale(made, known[1:], [torch, onnx]) == "m.engine is older than m.pt"
    torch.write_bytes(b"two")
    touch(torch, at_s=0)
    assert why_stale(made, known[1:], [torch, onnx]) is None
    assert why_stale(made, known, [torch, onnx]) == "m.engine was made of another m.pt than the one beside it"


def test_a_missing_model_is_a_missing_file_too() -> None:
    with pytest.raises(FileNotFoundError, match=r"^m\.pt is not there$"):
        raise MissingModelError("m.pt is not there")
