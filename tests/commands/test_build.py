"""``redline build`` with real TensorRT-RTX builds for a GPU that is not here."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.onnx_models import conv_model

from redline.cli import main
from redline.commands.build import BuildOptions, build
from redline.core.artifact import Engine
from redline.core.errors import InputError

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
TARGET = BuildOptions(target="sm89")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return conv_model(tmp_path / "m.onnx", channels=16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    return tmp_path / "data.npz"


def test_every_precision_is_what_the_engine_says(model: Path, data: Path, tmp_path: Path) -> None:
    result = build(model, tmp_path / "plans", precisions=("fp32", "tf32", "fp16", "int8"), data=data, options=TARGET)
    assert [variant.got for variant in result.variants] == ["fp32", "tf32", "fp16", "int8"]
    assert result.passed
    for variant in result.variants:
        assert variant.engine == Engine.read(tmp_path / "plans" / f"m_{variant.recipe.name}.plan")
        assert variant.size_bytes
        assert variant.build_s
        assert variant.agreement is None
        assert any("there is no GPU here" in note for note in variant.notes)
    assert json.loads((tmp_path / "plans" / "build.json").read_text()) == result.to_json()
    assert not list((tmp_path / "plans").glob(".*"))


def test_what_is_there_already_is_not_built_again(model: Path, data: Path, tmp_path: Path) -> None:
    first = build(model, tmp_path / "plans", precisions=("fp16", "int8"), data=data, options=TARGET)
    again = build(model, tmp_path / "plans", precisions=("fp16", "int8"), data=data, options=TARGET)
    for before, after in zip(first.variants, again.variants, strict=True):
        assert before.engine == after.engine
        assert "was there already" in after.notes[0]
    conv_model(model, channels=16, seed=3)
    other = build(model, tmp_path / "plans", precisions=("fp16",), data=data, options=TARGET)
    assert other.variants[0].engine != first.variants[0].engine
    (tmp_path / "plans" / "m_fp16.plan").write_bytes(b"half a plan")
    whole = build(model, tmp_path / "plans", precisions=("fp16",), data=data, options=TARGET)
    assert whole.variants[0].engine is not None
    assert Engine.read(whole.variants[0].engine.path).precision == "fp16"


def test_what_this_generation_lacks_is_a_row_with_the_reason(model: Path, data: Path, tmp_path: Path) -> None:
    options = BuildOptions(target="sm89", typing="both")
    result = build(model, tmp_path / "plans", precisions=("fp16",), data=data, options=options)
    rows = {variant.recipe.name: variant for variant in result.variants}
    assert "no weak typing" in (rows["fp16_weak"].failed or "")
    assert rows["fp16_strong"].got == "fp16"
    assert not result.passed
    entropy = BuildOptions(target="sm89", calibrator="entropy")
    told = build(model, tmp_path / "plans", precisions=("int8",), data=data, options=entropy).variants[0].failed
    assert told == "calibrators ended with weak typing, got calibrator entropy; use --calibrator qdq"


def test_int8_needs_samples_and_fp16_does_not(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="INT8 needs --data"):
        build(model, tmp_path / "plans", precisions=("int8",), options=TARGET)
    assert build(model, tmp_path / "plans", precisions=("fp16",), options=TARGET).passed


def test_a_target_that_it_cannot_build_for_is_told_with_those_that_it_can(model: Path, tmp_path: Path) -> None:
    result = build(model, tmp_path / "plans", precisions=("fp32",), options=BuildOptions(target="sm90"))
    assert "expected one of" in (result.variants[0].failed or "")
    assert "sm89" in (result.variants[0].failed or "")


def test_a_profile_that_does_not_fit_is_told(model: Path, tmp_path: Path) -> None:
    options = BuildOptions(target="sm89", profiles=("image=1x1x16x16,1x1x16x16,1x1x16x16",))
    result = build(model, tmp_path / "plans", precisions=("fp32",), options=options)
    assert "image: got profile shape 1x1x16x16, expected ('batch', 3, 16, 16)" in (result.variants[0].failed or "")
    with pytest.raises(InputError, match="expected MIN,OPT,MAX"):
        build(model, tmp_path / "plans", precisions=("fp32",), options=BuildOptions(target="sm89", profiles=("1,2",)))


def test_the_command_prints_a_table_and_sets_the_exit_code(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", str(model), "-o", str(tmp_path / "plans"), "--target", "sm89", "--data", str(data)]
    assert main([*words, "--precision", "fp32", "--precision", "int8"]) == 0
    told = capsys.readouterr().out
    assert "int8 (qdq)" in told
    assert f"{(tmp_path / 'plans' / 'm_int8.plan').stat().st_size:,}" in told
    assert main([*words, "--precision", "fp16", "--typing", "weak"]) == 1
    assert main([*words, "--precision", "fp8"]) == 2
    assert main([*words, "--workspace", "4 gigs"]) == 2
    assert main([*words, "--precision", "fp16", "--json"]) == 0
    captured = capsys.readouterr().out
    assert json.loads(captured[captured.index("{") :])["variants"][0]["got"] == "fp16"


def test_torch_tensorrt_that_is_not_here_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("torch_tensorrt") is not None:
        pytest.skip("Torch-TensorRT is here")
    assert main(["build", "digits", "-o", str(tmp_path / "plans"), "--backend", "torch-tensorrt"]) == 3
    assert "pip install 'redline[torch-tensorrt]'" in capsys.readouterr().err
