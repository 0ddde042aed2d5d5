"""What a resumed run knows of the interrupted one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from redline.core.errors import ArtifactError, InputError
from redline.core.files import sha256_of
from redline.measurement.environment import fingerprint
from redline.measurement.results import FORMAT, ResultsFile, read_records
from redline.tuning.journal import Journal


def run_record() -> dict[str, Any]:
    return {
        "kind": "run",
        "format": FORMAT,
        "model": {"name": "digits", "sha256": "abc"},
        "settings": {"batches": (1, 8), "rounds": 20, "seed": 0},
        "data": {"source": "photos", "fingerprint": "f00", "calibration": 64},
        "environment": fingerprint().to_json(),
    }


@contextmanager
def journal_in(folder: Path) -> Iterator[Journal]:
    with ResultsFile(folder / "results.jsonl") as file:
        yield Journal(file, folder)


def test_the_same_run_goes_on_and_failures_are_tried_again(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.begin(run_record())
        journal.append({"kind": "failed", "variant": "a", "stage": "build", "reason": "?"})
        journal.append({"kind": "failed", "variant": "a", "stage": "build", "reason": "?"})
    with journal_in(tmp_path) as journal:
        journal.check_request("digits", run_record()["settings"])
        journal.begin(run_record())
        assert [r["variant"] for r in journal.results.records if r["kind"] == "retry"] == ["a"]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.begin(run_record())
        journal.append({"kind": "failed", "variant": "a", "stage": "build", "reason": "?"})
        journal.append({"kind": "conclusion"})
    before = (tmp_path / "results.jsonl").read_bytes()
    with journal_in(tmp_path) as journal:
        journal.begin(run_record())
    assert (tmp_path / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("part", "key", "value", "told"),
    [
        ("model", "name", "resnet18", "another model name ('digits', now 'resnet18')"),
        ("model", "sha256", "def", "another model sha256 ('abc', now 'def')"),
        ("settings", "batches", (1,), "another settings batches ([1, 8], now [1])"),
        ("settings", "rounds", 5, "another settings rounds (20, now 5)"),
        ("data", "source", "others", "another data source ('photos', now 'others')"),
        ("environment", "cpu", "Pentium", "cpu was"),
        ("environment", "cores_available", 99, "cores_available was"),
    ],
)
def test_each_difference_is_named(part: str, key: str, value: object, told: str, tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.begin(run_record())
    other = copy.deepcopy(run_record())
    other[part][key] = value
    with journal_in(tmp_path) as journal, pytest.raises(InputError) as refused:
        journal.begin(other)
    assert told in str(refused.value)
    assert "take another folder" in str(refused.value)
    if part == "settings" or key == "name":
        with journal_in(tmp_path) as journal, pytest.raises(InputError) as early:
            journal.check_request(other["model"]["name"], other["settings"])
        assert told in str(early.value)


def test_all_differences_are_named_at_once(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.begin(run_record())
        with pytest.raises(InputError, match=r"model name.*settings rounds.*settings seed"):
            journal.check_request("mlp", {"batches": (1, 8), "rounds": 3, "seed": 1})


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"kind": "samples"}\n')
    with journal_in(tmp_path) as journal, pytest.raises(InputError, match="not a run"):
        journal.check_request("digits", {})


@pytest.mark.parametrize("torn", [b"{", b'{"kind": "samp', b'{"kind": "samples", "variant": "b"}'])
def test_a_torn_last_line_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with journal_in(tmp_path) as journal:
        journal.begin(run_record())
        journal.append({"kind": "samples", "variant": "a", "batch": 1, "round": 0, "samples_s": [1.0]})
    with path.open("ab") as file:
        file.write(torn)
    assert [record["kind"] for record in read_records(path)] == ["run", "samples"]
    with journal_in(tmp_path) as journal:
        assert journal.rounds(1) == {("a", 0)}
        assert journal.rounds(8) == set()
        journal.append({"kind": "samples", "variant": "b", "batch": 1, "round": 0, "samples_s": [1.0]})
    assert [record.get("variant") for record in read_records(path)] == [None, "a", "b"]


def test_a_broken_line_within_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"kind": "run"}\n\x00\x00\n{"kind": "samples"}\n')
    with pytest.raises(ArtifactError, match=":2 is not JSON"), journal_in(tmp_path):
        pass


def test_an_artifact_counts_only_with_the_bytes_that_were_recorded(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"weights")
    with journal_in(tmp_path) as journal:
        assert journal.whole_artifact("a.onnx") is None
        journal.append({"kind": "artifact", "name": "a.onnx", "path": "a.onnx", "sha256": sha256_of(file)})
        assert journal.whole_artifact("a.onnx") is not None
        file.write_bytes(b"weighty")
        assert journal.whole_artifact("a.onnx") is None
        file.unlink()
        assert journal.whole_artifact("a.onnx") is None
