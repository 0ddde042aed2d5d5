"""``scale convert`` and the script: real engines for a GPU that is not here, and a row for what cannot be converted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.onnx_models import conv_model, five_inputs
from tests.scale.models.yolo_tools import bright_model, touch

from redline.backends.nvidia import device_count
from redline.core.artifact import Engine
from redline.core.errors import BuildError, InputError, MissingDependencyError
from redline.formats.onnx_file import read_onnx
from redline.transforms.half import to_half
from scale.cli import main
from scale.models import conversion
from scale.models import convert as convert_module
from scale.models.conversion import Conversion, ConvertOptions
from scale.models.convert import convert
from scale.models.files import EXPORTED, find_files, why_stale

SCRIPT = Path(__file__).parents[2] / "convert_to_tensorrt.py"
TARGET = ConvertOptions(target="sm89", batch=2)
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx_bindings") is None, reason="needs TensorRT-RTX's wheels")
needs_no_tensorrt = pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    bright_model(folder / "a.onnx")
    bright_model(folder / "b.onnx", batch=4)
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def by_name(result: convert_module.ConvertResult) -> dict[str, Conversion]:
    return {row.model.name: row for row in result.conversions}


@needs_rtx
def test_a_folder_becomes_engines_that_are_found_beside_their_models(models: Path) -> None:
    result = convert(models, options=TARGET)
    assert result.passed
    rows = by_name(result)
    assert [row.result for row in rows.values()] == ["built", "built"]
    assert listing(models) == [
        "a.engine", "a.engine.engine.json", "a.onnx", "b.engine", "b.engine.engine.json", "b.onnx"
    ]  # fmt: skip
    engine = Engine.read(models / "a.engine")
    assert engine.platform["compute_capability"] == "8.9"
    assert engine.usage.class_names == ("Red", "Green")
    assert rows["a.onnx"].precision == engine.layers.describe() == "fp16"
    assert rows["a.onnx"].size_bytes == engine.path.stat().st_size
    assert engine.options["profiles"] == "1,2,2"
    assert engine.signature.inputs[0].dtype == "uint8"
    files = find_files(models / "a.onnx")
    assert files.engines == (models / "a.engine",)
    assert why_stale(engine.path, engine.provenance, files.sources) is None
    assert rows["b.onnx"].notes[0].startswith("its batch is fixed at 4 in b.onnx, asked was 2")
    assert Engine.read(models / "b.engine").signature.fixed_batch == 4


@needs_rtx
def test_what_is_good_is_kept_and_what_differs_is_built_again(models: Path) -> None:
    only = [models / "a.onnx"]

    def result(**changes: Any) -> str:
        return convert(models=only, options=replace(TARGET, **changes)).conversions[0].result

    assert [result(), result(), result(rebuild=True), result()] == ["built", "kept", "built", "kept"]
    assert [result(half=False), result(half=False)] == ["built", "kept"]
    assert Engine.read(models / "a.engine").precision == "fp32"
    assert [result(input_type="float"), result(input_type="float")] == ["built", "kept"]
    assert Engine.read(models / "a.engine").signature.inputs[0].dtype == "float32"
    assert [result(batch=3), result(target="sm86"), result(target="sm86")] == ["built", "built", "kept"]
    assert Engine.read(models / "a.engine").platform["compute_capability"] == "8.6"
    (models / "a.engine").write_bytes(b"half an engine")
    assert result(target="sm86") == "built"
    bright_model(models / "a.onnx", gain=30)
    assert result(target="sm86") == "built"


@needs_rtx
def test_bad_models_are_rows_that_do_not_stop_the_others(models: Path) -> None:
    (models / "broken.onnx").write_bytes(b"nothing")
    (models / "weights.pt").write_bytes(b"nothing")
    five_inputs(models / "five.onnx")
    to_half(read_onnx(models / "a.onnx"), models / "half.onnx")
    result = convert(models, options=TARGET)
    rows = by_name(result)
    assert not result.passed
    assert {name for name, row in rows.items() if row.result == "built"} == {"a.onnx", "b.onnx"}
    assert "truncated or not an ONNX file" in (rows["broken.onnx"].reason or "")
    assert "a detector takes one input of images" in (rows["five.onnx"].reason or "")
    assert "expected fp32" in (rows["half.onnx"].reason or "")
    assert rows["weights.pt"].reason
    if find_spec("ultralytics") is None:
        assert "pip install 'redline[yolo]'" in (rows["weights.pt"].reason or "")
    assert not list(models.glob(".*"))
    assert not (models / "broken.engine").exists()


@needs_rtx
def test_whatever_goes_wrong_leaves_what_was_there(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(models, options=TARGET)
    before = {path: path.read_bytes() for path in models.iterdir()}

    def fail(*_: Any) -> Any:
        raise BuildError("no memory left")

    monkeypatch.setattr(conversion, "_build", fail)
    result = convert(models, options=replace(TARGET, rebuild=True))
    assert [row.reason for row in result.conversions] == ["no memory left"] * 2
    assert {path: path.read_bytes() for path in models.iterdir()} == before


@needs_rtx
def test_a_pt_file_is_built_from_the_good_onnx_file_beside_it(models: Path) -> None:
    weights = models / "a.pt"
    touch(weights, at_s=1)
    (row,) = convert(models=[weights], options=TARGET).conversions
    assert (row.result, row.model, row.engine) == ("built", weights, models / "a.engine")
    assert {row.model.name for row in convert(models, options=TARGET).conversions} == {"a.pt", "b.onnx"}
    if find_spec("ultralytics") is None:
        touch(weights, at_s=2_000_000_000)
        (row,) = convert(models=[weights], options=TARGET).conversions
        assert "ultralytics is not installed" in (row.reason or "")


@needs_rtx
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_pt_file_is_exported_by_ultralytics(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics", reason="needs the extra yolo")
    from scale.models.ultralytics import require_ultralytics

    network = require_ultralytics().YOLO("yolov8n.yaml")
    network.model.names = {index: f"class {index}" for index in range(80)}
    network.save(str(tmp_path / "m.pt"))
    options = replace(TARGET, input_px=64)
    for changes, batch in (({}, 2), ({"dynamic": True}, None)):
        (row,) = convert(tmp_path, options=replace(options, **changes)).conversions
        assert row.result == "built", row.reason
        engine = Engine.read(tmp_path / "m.engine")
        assert engine.signature.fixed_batch == batch
        assert engine.signature.inputs[0].shape[1:] == (3, 64, 64)
        assert engine.usage.detection is not None
        assert any(step.step == EXPORTED for step in engine.provenance)
        assert why_stale(engine.path, engine.provenance, find_files(tmp_path / "m.pt").sources) is None
        assert convert(tmp_path, options=replace(options, **changes)).conversions[0].result == "kept"
    (tmp_path / "m.pt").write_bytes((tmp_path / "m.pt").read_bytes() + b"x")
    assert why_stale(engine.path, engine.provenance, find_files(tmp_path / "m.pt").sources)


@needs_rtx
def test_engines_name_the_best_class_unless_the_head_is_kept(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (models / f"{name}.onnx").unlink()
    bright_model(models / "three.onnx", names=("Red", "Green", "Blue"))
    bright_model(models / "two.onnx")
    words = ["convert", "--models-dir", str(models), "--target", "sm89", "--batch-size", "2", "--json"]
    for half in ((), ("--no-half",)):
        assert main([*words, *half]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [row["head"] for row in document["models"]] == ["best", "v8"]
        engine, two = Engine.read(models / "three.engine"), Engine.read(models / "two.engine")
        assert engine.signature.outputs[0].shape == ("batch", 6, 64)
        assert engine.signature.outputs[0].dtype == "float32"
        assert engine.usage.detection is not None
        assert engine.usage.detection.head == "best"
        assert engine.usage.class_names == ("Red", "Green", "Blue")
        assert two.signature.outputs[0].name == "output0"
        assert why_stale(engine.path, engine.provenance, [models / "three.onnx"]) is None
    assert main([*words, "--keep-head"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["options"]["keep_head"] is True
    assert [(row["result"], row["head"]) for row in document["models"]] == [("built", "v8")] * 2
    assert Engine.read(models / "three.engine").signature.outputs[0].shape == ("batch", 7, 64)
    assert main([*words[:-1], "--no-half"]) == 0
    assert "head" in (told := capsys.readouterr().out)
    assert "best" in told


@needs_rtx
def test_open_sizes_are_fixed_at_what_is_asked_for(tmp_path: Path) -> None:
    bright_model(tmp_path / "m.onnx", side="side")
    (row,) = convert(tmp_path, options=TARGET).conversions
    assert row.result == "built"
    engine = Engine.read(tmp_path / "m.engine")
    assert engine.signature.inputs[0].shape == ("batch", 3, 64, 64)
    assert engine.signature.dynamic_batch
    assert why_stale(engine.path, engine.provenance, [tmp_path / "m.onnx"]) is None
    assert onnx.load(str(tmp_path / "m.onnx")).graph.input[0].type.tensor_type.shape.dim[2].dim_param == "side"


@needs_rtx
def test_a_size_that_the_file_does_not_have_is_told(models: Path) -> None:
    (row,) = convert(models=[models / "a.onnx"], options=replace(TARGET, input_px=640)).conversions
    assert row.reason == (
        "a.onnx takes images of 64x64 px, got imgsz 640; leave it out, or export the model at that size"
    )


@needs_rtx
def test_progress_is_told_for_each_model(models: Path) -> None:
    told: list[tuple[str, int, int]] = []
    convert(models, options=TARGET, progress=lambda *step: told.append(step))
    assert told[0] == ("a.onnx: read", 0, 2)
    assert {(what.split(":")[0], done, total) for what, done, total in told} == {("a.onnx", 0, 2), ("b.onnx", 1, 2)}
    assert any("build fp16" in what for what, _, _ in told)


@needs_rtx
def test_the_command_prints_a_table_and_sets_the_exit_code(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "--models-dir", str(models), "--target", "sm89", "--batch-size", "2"]
    assert main([*words, "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "fp16" in told
    assert "2 of 2 models have their engine" in told
    assert main([*words, "--no-half", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["precision"] for row in document["models"]] == ["fp32", "fp32"]
    assert document["passed"]
    conv_model(models / "c.onnx")
    (models / "d.onnx").write_bytes(b"nothing")
    assert main(words) == 1
    told = capsys.readouterr().out
    assert "2 of 4 models have their engine" in told
    assert "c.onnx: failed: c.onnx: the outputs (logits ['batch', 5]) are those of no detector" in told
    assert "d.onnx: failed: " in told
    assert main([*words, "--model", str(models / "a.onnx")]) == 0


@needs_no_tensorrt
def test_without_tensorrt_it_says_what_to_type_and_writes_nothing(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(models)
    assert main(["convert", "--models-dir", str(models)]) == 3
    assert "tensorrt is not installed; type: pip install 'redline[tensorrt]'" in capsys.readouterr().err
    assert listing(models) == before
    with pytest.raises(MissingDependencyError):
        convert(models)


@pytest.mark.skipif(find_spec("tensorrt") is None or device_count() > 0, reason="needs TensorRT and no GPU")
def test_without_a_gpu_it_says_so(models: Path) -> None:
    assert main(["convert", "--models-dir", str(models)]) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--models-dir", "nowhere"], "nowhere is not a folder"),
        (["--models-dir", "."], "has no model"),
        (["--model", "m.onnx"], "m.onnx is not a file"),
        (["--model", "m.engine"], "got model m.engine, expected one of .pt"),
        (["--batch-size", "0"], "--batch-size"),
        (["--workspace", "4"], "workspace is 4 bytes, expected at least 1MiB, such as 4GiB"),
        (["--bogus"], "No such option"),
    ],
)
def test_usage_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@needs_rtx
def test_a_target_that_is_none_is_a_usage_error(models: Path) -> None:
    with pytest.raises(InputError, match="target is 'h100', expected a compute capability"):
        convert(models, options=ConvertOptions(target="h100"))


def test_the_script_is_the_command(tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run(
        [sys.executable, str(tmp_path / SCRIPT.name), "--models-dir", "nowhere"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == ("scale: error: nowhere is not a folder; name the folder of the models with --models-dir\n")
    shown = subprocess.run(
        [sys.executable, str(tmp_path / SCRIPT.name), "--help"], capture_output=True, text=True, check=True
    )
    for option in (
        "--models-dir",
        "--model",
        "--batch-size",
        "--imgsz",
        "--no-half",
        "--dynamic",
        "--workspace",
        "--keep-head",
    ):
        assert option in shown.stdout
