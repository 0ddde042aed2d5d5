from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.scale.detector_models import spot_model

import scale
from scale.cli import main

SLIDE = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"


def test_what_a_slide_is_and_what_it_would_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(SLIDE), "--window", "514", "--overlap", "0.2,0.8,128", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["reader"], facts["magnification"], len(facts["levels"])) == ("tiled", 20.0, 1)
    assert facts["mpp"] == pytest.approx(0.499)
    costs = {cost["overlap"]: cost for cost in facts["costs"]}
    # 2220 x 2967 by windows of 514: 6 x 7 at a stride of 411, 18 x 26 at one of 102.
    assert [costs[o]["all_inferences"] for o in (0.2, 0.8)] == [42, 18 * 26]
    assert all(0 < cost["windows"] <= cost["all_inferences"] for cost in costs.values())
    assert facts["sections"]


def test_models_count_by_their_own_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("a", 512), ("b", 512), ("c", 1024)):
        spot_model(tmp_path / f"{name}.onnx", size_px=size)
    assert main(["info", str(SLIDE), "-m", str(tmp_path), "--overlap", "0.25"]) == 0
    out = capsys.readouterr().out
    assert "2,220 x 2,967 px" in out
    assert main(["info", str(SLIDE), "-m", str(tmp_path), "--overlap", "0.25", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)["costs"]
    assert cost["inferences"] > cost["windows"]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["gone.svs"], "gone.svs"), ([str(SLIDE), "--overlap", "0.2,x"], "got overlap 'x'")],
)
def test_bad_input_is_one_line_and_exit_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
