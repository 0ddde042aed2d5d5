"""``redline optimize`` as a script meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.cli import main


def save_model(path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[str]) -> Path:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in outputs],
        [weight],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two inputs (one of them integers) and a node that nobody needs; the answers hold NaN (0 / 0 at places)."""
    nodes = [
        helper.make_node("Cast", ["k"], ["kf"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "kf"], ["z"]),
        helper.make_node("Div", ["z", "kf"], ["y"]),
        helper.make_node("Relu", ["m"], ["unused"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("k", TensorProto.INT64, ["batch", 4]),
    ]
    return save_model(tmp_path / "in.onnx", nodes, inputs, ["y"])


def test_json_names_every_pass(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = model.with_name("out.onnx")
    assert main(["optimize", str(model), "-o", str(out), "--pass", "eliminate_deadend", "--pass", "nop", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(p["name"], p["status"], p["nodes_before"], p["nodes_after"]) for p in said["passes"]] == [
        ("eliminate_deadend", "changed", 5, 4),
        ("nop", "nothing to do", 4, 4),
    ]
    assert len(onnx.load_model(out).graph.node) == 4


def test_table_for_people(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", str(model), "-o", str(model.with_name("out.onnx")), "--pass", "eliminate_deadend"]) == 0
    shown = capsys.readouterr()
    assert "5 → 4" in shown.out
    assert "wrote" in shown.out
    assert shown.err == ""


def test_list_passes_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "--list-passes", "--json"]) == 0
    listed = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert {"fuse_bn_into_conv", "onnxslim", "onnxruntime-basic", "fold_constants"} <= listed
    assert main(["optimize", "--list-passes"]) == 0
    assert "eliminate_deadend" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["IN"], "got no -o OUT.onnx"),
        ([], "got no IN.onnx"),
        (["IN", "-o", "IN"], "another output file"),
        (["IN", "-o", "out.onnx", "--pass", "fuse_bn_in_conv"], "did you mean fuse_bn_into_conv?"),
        (["IN", "-o", "out.onnx", "--pass", "rename_input_output"], "rename_input_output reverted"),
        (["none.onnx", "-o", "out.onnx"], "none.onnx is not a file"),
    ],
)
def test_what_goes_wrong_is_one_line_and_code_2(
    model: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["optimize", *(str(model) if word == "IN" else word for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("redline: error: ")
    assert len(said.splitlines()) == 1


def test_answers_that_differ_are_found_by_name(model: Path) -> None:
    from redline.commands.optimize import same_answers
    from redline.core.errors import PassError
    from redline.data.synthetic import synthetic_samples
    from redline.formats.onnx_file import read_onnx

    original = read_onnx(model)
    check = same_answers(original, synthetic_samples(original.signature, 4, seed=0))
    check(original, original)
    proto = onnx.load_model(model)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(1.01 * np.eye(4, dtype=np.float32), "w"))
    onnx.save_model(proto, model.with_name("other.onnx"))
    with pytest.raises(PassError, match="output 'y' at batch 1: largest difference"):
        check(original, read_onnx(model.with_name("other.onnx")))


@pytest.mark.parametrize("size", ["batch", 2])
def test_fixed_and_dynamic_batch(tmp_path: Path, size: str | int) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Identity", ["m"], ["y"])]
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, 4])]
    path = save_model(tmp_path / "in.onnx", nodes, taken, ["y"])
    assert main(["optimize", str(path), "-o", str(tmp_path / "out.onnx"), "--pass", "eliminate_identity"]) == 0
    assert onnx.load_model(tmp_path / "out.onnx").graph.input[0].type == taken[0].type
