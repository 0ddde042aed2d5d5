"""``redline quantize`` as a script meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import redline
from redline.cli import main
from redline.core.errors import InputError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two convolutions; between them a channel of huge range that the second does not look at."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "w2": random.standard_normal((32, 8, 3, 3)).astype(np.float32),
        "fc": random.standard_normal((32, 4)).astype(np.float32),
    }
    weights["w1"][0] *= 1e5
    weights["w2"][:, 0] = 0
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="first"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "fc"], ["logits"], name="head"),
    ]
    for index in range(3):  # so that half of the layers is more than two
        weights[f"e{index}"] = np.eye(4, dtype=np.float32) + 0.1
        nodes[-1].output[0] = f"h{index}"
        nodes.append(helper.make_node("MatMul", [f"h{index}", f"e{index}"], ["logits"], name=f"extra{index}"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    images = random.standard_normal((60, 3, 8, 8)) + 2 * random.standard_normal((60, 3, 1, 1))
    np.savez(tmp_path / "data.npz", image=images.astype(np.float32))
    return tmp_path / "data.npz"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_static_shows_sizes_and_layers(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    code, shown, err = run(capsys, "quantize", model, "-o", out, "--mode", "static", "--data", data, "--samples", 8)
    assert (code, err) == (0, "")
    assert out.is_file()
    assert "before" in shown
    assert "fp32" in shown
    assert "int8" in shown
    assert "calibrated on 8 samples" in shown


def test_json_is_one_document(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--mode", "static", "--data", data, "--for", "tensorrt", "--keep", "first", "--report", "--json")
    code, shown, _ = run(capsys, "quantize", model, "-o", tmp_path / "a.onnx", *words)
    found = json.loads(shown)
    assert code == 0
    assert dict(found["after"]["layers"]) == {"int8": 5, "fp32": 1}
    assert found["kept"] == ["first"]
    assert len(found["layers"]) == 6
    assert "1.25x" in found["expectation"]


def test_report_names_the_layers_to_keep(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--mode", "static", "--data", data, "--report")
    code, shown, _ = run(capsys, "quantize", model, "-o", tmp_path / "a.onnx", *words)
    assert code == 0
    assert "--keep first" in shown
    assert "--keep second" in shown


def test_auto_keeps_what_the_gate_needs_and_says_what_it_tried(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--mode", "static", "--data", data, "--samples", 20, "--auto", "--min-agreement", 0.9, "--json")
    code, shown, err = run(capsys, "quantize", model, "-o", tmp_path / "a.onnx", *words)
    assert (code, err) == (0, "")
    found = json.loads(shown)
    assert set(found["kept"]) == {"first", "second"}
    assert [attempt["passed"] for attempt in found["tried"]][:2] == [False, False]
    assert found["samples"] == 20


@pytest.mark.parametrize("mode", ["dynamic", "fp16"])
def test_modes_without_samples(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    code, shown, _ = run(capsys, "quantize", model, "-o", tmp_path / "a.onnx", "--mode", mode, "--json")
    assert code == 0
    assert json.loads(shown)["after"]["precision"] == ("int8" if mode == "dynamic" else "fp16")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "static"], "needs --data"),
        (["--mode", "int4"], "'int4', expected one of static, dynamic, fp16"),
        (["--mode", "dynamic", "--for", "tensorrt"], "TensorRT refuses ConvInteger"),
        (["--mode", "dynamic", "--for", "tpu"], "'tpu', expected one of onnxruntime"),
        (["--mode", "dynamic", "--auto"], "need --mode static"),
        (["--mode", "static", "--data", "nowhere", "--method", "magic"], "'magic', expected one of minmax"),
        (["--mode", "static", "--data", "nowhere"], "nowhere is not there"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_no_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, shown, err = run(capsys, "quantize", model, "-o", tmp_path / "a.onnx", *words)
    assert (code, shown) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a.onnx").exists()


def test_the_function_has_the_name_and_keywords_of_the_command(model: Path, data: Path, tmp_path: Path) -> None:
    result = redline.quantize(model, tmp_path / "a.onnx", mode="static", data=data)
    assert result.model.precision == "int8"
    assert result.source.precision == "fp32"
    with pytest.raises(InputError, match="another output file"):
        redline.quantize(model, model, mode="dynamic")
