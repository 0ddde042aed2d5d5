"""Engines on the disk: the description lies beside the file and is of that file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from redline.core.artifact import Engine, Layers
from redline.core.errors import ArtifactError, EngineMismatchError
from redline.core.files import sha256_of
from redline.core.tensor import Signature


def engine(path: Path) -> Engine:
    path.write_bytes(b"plan")
    made = Engine(
        path=path,
        sha256=sha256_of(path),
        backend="onnxruntime",
        signature=Signature(inputs=(), outputs=()),
        layers=Layers.of({"fp32": 3}),
        platform={},
        options={},
        provenance=(),
    )
    made.save()
    return made


def test_what_was_saved_is_read_by_either_name(tmp_path: Path) -> None:
    made = engine(tmp_path / "a.plan")
    assert Engine.read(made.path) == Engine.read(made.sidecar) == made


def test_an_engine_may_move_and_change_its_name_together_with_its_description(tmp_path: Path) -> None:
    made = engine(tmp_path / "a.plan")
    moved = replace(made, path=tmp_path / "b.plan")
    made.sidecar.rename(moved.sidecar)
    made.path.rename(moved.path)
    assert Engine.read(moved.path) == moved


def test_the_description_of_a_copy_is_never_taken_for_the_original(tmp_path: Path) -> None:
    made = engine(tmp_path / "a.plan")
    cut = replace(made, path=tmp_path / "cut.plan")
    cut.sidecar.write_bytes(made.sidecar.read_bytes())
    cut.path.write_bytes(b"pla")
    with pytest.raises(EngineMismatchError, match=r"cut\.plan has sha256"):
        Engine.read(cut.path)


def test_without_a_description_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.plan").write_bytes(b"plan")
    with pytest.raises(ArtifactError, match="is not there"):
        Engine.read(tmp_path / "a.plan")
