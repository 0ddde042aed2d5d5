from __future__ import annotations

import os
from pathlib import Path

import pytest

from redline.core.errors import InputError
from redline.serving.repository import ModelSource, fingerprint, is_repository, scan_repository


def write(path: Path, text: str = "model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def scan(root: Path) -> dict[str, ModelSource]:
    return {source.name: source for source in scan_repository(root)}


def test_names_and_versions_are_folders(tmp_path: Path) -> None:
    one = write(tmp_path / "net" / "1" / "model.onnx")
    ten = write(tmp_path / "net" / "10" / "model.plan")
    two = write(tmp_path / "net" / "2" / "resnet.onnx")
    tuned = write(tmp_path / "tuned" / "3" / "manifest.json").parent
    write(tuned / "model.onnx")
    found = scan(tmp_path)
    assert dict(found["net"].versions) == {"1": one, "10": ten, "2": two}
    assert found["net"].newest_first == ["10", "2", "1"]
    assert dict(found["tuned"].versions) == {"3": tuned}
    assert is_repository(tmp_path)
    assert not is_repository(tmp_path / "net" / "1")


def test_the_usual_name_wins_over_other_files(tmp_path: Path) -> None:
    model = write(tmp_path / "net" / "1" / "model.onnx")
    write(model.with_name("old.onnx"))
    write(model.with_name("labels.txt"))
    assert scan(tmp_path)["net"].versions["1"] == model


def test_an_engine_is_found_by_its_description(tmp_path: Path) -> None:
    engine = write(tmp_path / "net" / "1" / "net.fp16.ov.blob")
    write(engine.with_name(engine.name + ".engine.json"))
    assert scan(tmp_path)["net"].versions["1"] == engine


def test_what_is_being_written_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "model.onnx")
    write(tmp_path / "net" / ".2-x7" / "model.onnx")
    write(tmp_path / "net" / "3.part" / "model.onnx")
    (tmp_path / "net" / "4").mkdir()
    write(tmp_path / "net" / "5" / "model.onnx.part")
    write(tmp_path / "net" / "6" / ".model-x.partial.onnx")
    write(tmp_path / ".new" / "1" / "model.onnx")
    write(tmp_path / "later.part" / "1" / "model.onnx")
    assert {name: list(source.versions) for name, source in scan(tmp_path).items()} == {"net": ["1"]}


@pytest.mark.parametrize("name", ["0", "01", "-1", "v2", "1.0", "1234567890", "latest", "١"])
def test_folders_that_are_no_version_are_left_out(tmp_path: Path, name: str) -> None:
    write(tmp_path / "net" / name / "model.onnx")
    write(tmp_path / "net" / "config.pbtxt")
    source = scan(tmp_path)["net"]
    assert (dict(source.versions), dict(source.problems)) == ({}, {})


def test_several_models_are_a_problem_that_is_said(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "a.onnx")
    write(tmp_path / "net" / "1" / "b.onnx")
    source = scan(tmp_path)["net"]
    assert not source.versions
    assert "a.onnx, b.onnx" in source.problems["1"]


@pytest.mark.parametrize("where", ["net", "net/1", "net/1/model.onnx", "net/1/deep/weights.bin"])
def test_links_out_of_the_root_are_refused(tmp_path: Path, where: str) -> None:
    root = tmp_path / "root"
    write(root / "net" / "1" / "model.onnx")
    write(root / "net" / "1" / "deep" / "weights.bin")
    inside = root / where
    outside = tmp_path / "outside" / inside.name
    outside.parent.mkdir()
    inside.rename(outside)
    inside.symlink_to(outside)
    source = scan(root)["net"]
    assert not source.versions
    (problem,) = source.problems.values()
    assert "leads out of the repository" in problem
    assert str(tmp_path) not in problem


def test_links_within_the_root_are_followed(tmp_path: Path) -> None:
    write(tmp_path / ".data" / "model.onnx")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "1").symlink_to(tmp_path / ".data")
    assert list(scan(tmp_path)["net"].versions) == ["1"]


def test_a_loop_of_links_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "1").symlink_to(tmp_path / "net" / "2")
    (tmp_path / "net" / "2").symlink_to(tmp_path / "net" / "1")
    assert not scan(tmp_path)["net"].versions


@pytest.mark.parametrize("name", ["with space", "-net", "naïve", "a" * 129])
def test_a_folder_whose_name_cannot_be_served_says_so(tmp_path: Path, name: str) -> None:
    write(tmp_path / name / "1" / "model.onnx")
    (source,) = scan_repository(tmp_path)
    assert not source.versions
    assert "letters, digits" in source.problems[""]
    assert source.name.isascii()


@pytest.mark.parametrize(("name", "number"), [("../x", "1"), ("a/b", "1"), ("", "1"), ("net", "../1"), ("net", "0")])
def test_a_source_has_a_name_and_numbers(name: str, number: str) -> None:
    with pytest.raises(InputError, match="got"):
        ModelSource(name=name, versions={number: Path("model.onnx")})


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        scan_repository(write(tmp_path / "model.onnx"))


def test_the_fingerprint_sees_every_file_of_a_version(tmp_path: Path) -> None:
    model = write(tmp_path / "net" / "1" / "model.onnx")
    weights = write(model.with_name("weights.bin"), "1234")
    source = scan(tmp_path)["net"]
    before = fingerprint(source, "1")
    assert fingerprint(source, "1") == before
    weights.write_text("12345")
    larger = fingerprint(source, "1")
    assert larger != before
    os.utime(weights, ns=(1, 1))
    assert fingerprint(source, "1") not in (before, larger)
    weights.unlink()
    assert len(fingerprint(source, "1")) == 1


def test_the_fingerprint_of_a_named_file_leaves_its_neighbours_out(tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    source = ModelSource(name="net", versions={"1": model})
    before = fingerprint(source, "1")
    write(tmp_path / "other.onnx")
    assert fingerprint(source, "1") == before
    write(tmp_path / "model.onnx.data")
    assert fingerprint(source, "1") != before


def test_scanning_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "model.onnx")
    for folder in (tmp_path / "net" / "1", tmp_path / "net", tmp_path):
        folder.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}
    source = scan(tmp_path)["net"]
    fingerprint(source, "1")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))} == before
    for folder in (tmp_path, tmp_path / "net", tmp_path / "net" / "1"):
        folder.chmod(0o755)
