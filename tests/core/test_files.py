"""Files are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redline.core.files import whole_file, whole_folder, write_whole


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with pytest.raises(OSError, match="disk"), whole_file(path) as scratch:
        scratch.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.txt") as scratch:
        scratch.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "best"
    with whole_folder(target) as folder:
        (folder / "one").write_text("1")
    with pytest.raises(ValueError, match="no"), whole_folder(target) as folder:
        (folder / "two").write_text("2")
        raise ValueError("no")
    assert [item.name for item in target.iterdir()] == ["one"]
    with whole_folder(target) as folder:
        (folder / "three").write_text("3")
    assert [item.name for item in target.iterdir()] == ["three"]
    assert [item.name for item in tmp_path.iterdir()] == ["best"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode
