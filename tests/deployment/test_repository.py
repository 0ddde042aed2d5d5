"""A repository only ever gains whole versions."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redline.core.errors import InputError
from redline.core.tensor import Signature, TensorSpec
from redline.deployment import repository as module
from redline.deployment.repository import VersionFiles, add_version, check_name, models_in, versions_of
from redline.deployment.triton import Scheduling, TritonModel


def model(name: str = "m", *, classes: int = 2, batch: int = 32, names: tuple[str, ...] = ()) -> TritonModel:
    given = TensorSpec("x", ("batch", 3), "float32")
    taken = TensorSpec("y", ("batch", classes), "float32")
    return TritonModel(
        name=name,
        backend="onnxruntime",
        signature=Signature((given,), (taken,)),
        scheduling=Scheduling(max_batch=batch),
        class_names=names,
    )


@pytest.fixture
def files(tmp_path: Path) -> VersionFiles:
    (tmp_path / "source.onnx").write_bytes(b"weights")
    (tmp_path / "source.data").write_bytes(b"more weights")
    copied = {"model.onnx": tmp_path / "source.onnx", "data/w.bin": tmp_path / "source.data"}
    return VersionFiles(copied=copied, written={"model.py": "print()\n", "redline.json": '{"sha256": "abc"}'})


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_first_version(tmp_path: Path, files: VersionFiles) -> None:
    repository = tmp_path / "new" / "repository"
    added = add_version(repository, model(names=("cat", "dog")), files, comment="Made by a test.")
    assert (added.folder, added.version, added.notes) == (repository / "m" / "1", 1, ())
    assert tree(repository) == {
        "m/config.pbtxt",
        "m/labels.txt",
        "m/1/model.onnx",
        "m/1/data/w.bin",
        "m/1/model.py",
        "m/1/redline.json",
    }
    assert (repository / "m/config.pbtxt").read_text().startswith("# Made by a test.\nname:")
    assert json.loads((repository / "m/1/redline.json").read_text()) == {"sha256": "abc"}
    assert (repository / "m").stat().st_mode & 0o055 == 0o055  # the server may be another user


def test_the_next_version_changes_nothing_that_is_there(tmp_path: Path, files: VersionFiles) -> None:
    add_version(tmp_path / "r", model(), files)
    (tmp_path / "r/m/7").mkdir()
    before = {name: (tmp_path / "r" / name).stat().st_mtime_ns for name in tree(tmp_path / "r")}
    added = add_version(tmp_path / "r", model(), files)
    assert (added.version, added.notes) == (8, ())
    assert {name: (tmp_path / "r" / name).stat().st_mtime_ns for name in before} == before
    assert models_in(tmp_path / "r") == {"m": [1, 7, 8]}


def test_an_edited_configuration_stays(tmp_path: Path, files: VersionFiles) -> None:
    add_version(tmp_path / "r", model(), files)
    config = tmp_path / "r/m/config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 5"))
    edited = config.read_text()
    assert "stays as it is" in add_version(tmp_path / "r", model(), files).notes[0]
    assert config.read_text() == edited


@pytest.mark.parametrize("other", [model(classes=3), model(batch=8), model(names=("cat", "dog"))])
def test_another_model_under_a_taken_name_is_refused(tmp_path: Path, files: VersionFiles, other: TritonModel) -> None:
    add_version(tmp_path / "r", model(), files)
    with pytest.raises(InputError, match="export it under another name"):
        add_version(tmp_path / "r", other, files)
    assert versions_of(tmp_path / "r/m") == [1]


@pytest.mark.parametrize("there", ["folder", "file"])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, files: VersionFiles, there: str) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/m").mkdir() if there == "folder" else (tmp_path / "r/m").write_text("mine")
    with pytest.raises(InputError, match="is there and is no model of Triton's"):
        add_version(tmp_path / "r", model(), files)


@pytest.mark.parametrize("first", [True, False])
def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, files: VersionFiles, first: bool) -> None:
    if not first:
        add_version(tmp_path / "r", model(), files)
    before = tree(tmp_path / "r") if not first else set()
    missing = VersionFiles(copied={"model.onnx": tmp_path / "gone.onnx"}, written={})
    with pytest.raises(FileNotFoundError):
        add_version(tmp_path / "r", model(), missing)
    assert {str(path.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob("*") if path.is_file()} == before
    assert not list(tmp_path.rglob("*.partial"))


def test_a_name_that_is_taken_meanwhile(tmp_path: Path, files: VersionFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's first version and second version appear between the look and the rename."""
    place, ready = module._place, []

    def late(scratch: Path, target: Path) -> bool:
        if len(ready) < 2:
            ready.append(target.name)
            monkeypatch.setattr(module, "_place", place)
            add_version(tmp_path / "r", model(), files)
            monkeypatch.setattr(module, "_place", late)
        return place(scratch, target)

    monkeypatch.setattr(module, "_place", late)
    assert add_version(tmp_path / "r", model(), files).version == 3
    assert ready == ["m", "2"]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("beside", [True, False])
def test_a_triton_that_polls_sees_no_half_made_model(
    tmp_path: Path, files: VersionFiles, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Only where the folder beside the repository cannot be used is the scratch within it."""
    seen, place = [], module._place
    access = module.os.access
    monkeypatch.setattr(module.os, "access", lambda path, mode: beside and access(path, mode))

    def look(scratch: Path, target: Path) -> bool:
        seen.append(sorted(path.name for path in (tmp_path / "r").iterdir()))
        return place(scratch, target)

    monkeypatch.setattr(module, "_place", look)
    add_version(tmp_path / "r", model(), files)
    add_version(tmp_path / "r", model(), files)
    assert versions_of(tmp_path / "r/m") == [1, 2]
    assert (seen == [[], ["m"]]) == beside
    assert not list(tmp_path.rglob("*.partial"))


def test_versions_added_at_once_are_all_there(tmp_path: Path, files: VersionFiles) -> None:
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda _: add_version(tmp_path / "r", model(), files).version, range(8)))
    assert sorted(added) == list(range(1, 9))


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "x" * 129, "ü", "a\n", "-a"])
def test_names_that_nobody_could_ask_for_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="NAME=PATH"):
        check_name(name)


def test_other_folders_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_version").mkdir()
    (tmp_path / "no_version/config.pbtxt").write_text("")
    (tmp_path / "README.md").write_text("")
    assert models_in(tmp_path) == {}
