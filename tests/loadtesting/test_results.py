from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.loadtesting.documents import AGREEMENT, closed, document, opened

from redline.core.errors import ArtifactError
from redline.core.plain import to_line
from redline.loadtesting.results import read_loadtest, write_loadtest


def test_a_document_is_read_back_as_it_was(tmp_path: Path) -> None:
    told = document([closed(2, (10, 20)), opened(20.0, (50.0, 60.0))], agreement=AGREEMENT, notes=("a note",))
    write_loadtest(told, tmp_path / "loadtest.json")
    assert read_loadtest(tmp_path / "loadtest.json") == told
    assert read_loadtest(tmp_path) == told


def test_windows_without_a_round_are_paired_by_their_order(tmp_path: Path) -> None:
    value = json.loads(to_line(document([closed(2, (10, 20), rounds=3)])))
    for one in value["points"][0]["windows"]:
        for name in ("round", "elapsed_s", "lead"):
            del one[name]
    (tmp_path / "loadtest.json").write_text(json.dumps(value))
    windows = read_loadtest(tmp_path).points[0].windows
    assert [(one.target, one.round) for one in windows] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert windows[0].elapsed_s == windows[0].seconds


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[]", "not a load test"),
        ('{"points": [], "format": 2}', "format 2"),
        ('{"points": [], "format": 1}', "broken load test"),
    ],
)
def test_what_is_no_load_test_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "loadtest.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=told):
        read_loadtest(path)
    with pytest.raises(ArtifactError, match="not a file"):
        read_loadtest(tmp_path / "other.json")
