from __future__ import annotations

from pathlib import Path

from tests.scale.outputs.samples import INFO, assert_same, detections, in_pieces

from scale.domain import from_detections, predictions_from_json, predictions_to_json
from scale.outputs import open_writer
from scale.outputs.reading import read_detections, read_info


def test_it_is_what_the_domain_writes_byte_for_byte(tmp_path: Path) -> None:
    found = detections(700, sure=12)
    assert found.scores.min() < 1e-5
    with open_writer("json", tmp_path / "x.json", INFO) as writer:
        for piece in in_pieces(found, 100):
            writer.add(piece)
    expected = from_detections(found, INFO.class_names)
    assert (tmp_path / "x.json").read_text() == predictions_to_json(expected)
    assert predictions_from_json(tmp_path / "x.json") == expected


def test_it_is_read_back_to_the_last_bit_in_the_order_of_classes(tmp_path: Path) -> None:
    found = detections()
    with open_writer("json", tmp_path / "x.json", INFO) as writer:
        writer.add(found)
    got, names = read_detections(tmp_path / "x.json")
    assert names == INFO.names
    by_name = INFO.name_index[found.classes]
    expected = found.take(by_name.argsort(kind="stable"))
    expected.classes[:] = INFO.name_index[expected.classes]
    assert_same(got, expected)
    assert read_info(tmp_path / "x.json") is None
