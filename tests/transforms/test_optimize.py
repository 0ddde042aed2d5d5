"""Graph passes: what they do, and that one that misbehaves takes nothing with it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError, MissingDependencyError, PassError
from redline.formats.onnx_file import load_proto, read_onnx
from redline.transforms import passes as passes_module
from redline.transforms.fold import fold_constants
from redline.transforms.graphs import same_graph
from redline.transforms.half import to_half
from redline.transforms.optimize import WORKER, optimize
from redline.transforms.passes import DEFAULT_PASSES, PASSES, available_passes

MISBEHAVING_WORKER = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
from redline.transforms import pass_worker
source, target, name = sys.argv[1:]
match name:
    case "eliminate_deadend":
        os.kill(os.getpid(), signal.SIGSEGV)
    case "eliminate_identity":
        time.sleep(600)
    case "eliminate_nop_pad":
        raise RuntimeError("no idea what to do")
    case "eliminate_nop_cast":
        open(target, "wb").write(b"not a model")
    case "eliminate_nop_split":
        pass
    case _:
        sys.exit(pass_worker.main(sys.argv[1:]))
"""


def conv_bn_add(path: Path, *, with_batch_norm: bool = True) -> OnnxModel:
    """Conv, BatchNormalization, Add of a per-channel constant, Relu: an export whose batch norm was not fused."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int, low: float = -1.0) -> onnx.TensorProto:
        return numpy_helper.from_array(random.uniform(low, 1.0, shape).astype(np.float32), name)

    batch_norm = helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], name="bn")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            *([batch_norm] if with_batch_norm else []),
            helper.make_node("Add", ["n" if with_batch_norm else "c", "bias"], ["a"], name="add"),
            helper.make_node("Relu", ["a"], ["y"], name="relu"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [
            weight("w", 4, 3, 3, 3),
            *(weight(name, 4) for name in ("scale", "shift", "mean")),
            weight("var", 4, low=0.5),
            weight("bias", 1, 4, 1, 1),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    proto.metadata_props.add(key="note", value="kept")
    onnx.save_model(proto, path)
    return read_onnx(path)


def answers(model: OnnxModel, batch: int) -> np.ndarray:
    x = np.random.default_rng(batch).normal(size=(batch, 3, 8, 8)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(model.path), options).run(None, {"x": x})[0]


def equal_answers(before: OnnxModel, after: OnnxModel) -> None:
    for batch in (1, 3):
        np.testing.assert_allclose(answers(after, batch), answers(before, batch), rtol=1e-4, atol=1e-5)


def accept(_: OnnxModel, __: OnnxModel) -> None:
    pass


def test_fused_batch_norm_leaves_initializers_that_quantize(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    model = conv_bn_add(tmp_path / "in.onnx")
    names = ["fuse_bn_into_conv", "onnxruntime-basic"]
    result = optimize(model, tmp_path / "out.onnx", passes=names, check=equal_answers)

    nodes = [(o.status, o.nodes_before, o.nodes_after) for o in result.outcomes]
    assert nodes == [("changed", 4, 3), ("changed", 3, 2)]
    proto = load_proto(result.model.path)
    assert [node.op_type for node in proto.graph.node] == ["Conv", "Relu"]
    assert set(proto.graph.node[0].input[1:]) <= {tensor.name for tensor in proto.graph.initializer}
    quantize_dynamic(str(result.model.path), str(tmp_path / "int8.onnx"))
    assert "ConvInteger" in {node.op_type for node in load_proto(tmp_path / "int8.onnx").graph.node}


def test_shapes_beside_the_weights_own_are_dropped(tmp_path: Path) -> None:
    proto = load_proto(conv_bn_add(tmp_path / "in.onnx").path)
    proto.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    onnx.save_model(proto, tmp_path / "in.onnx")
    result = optimize(read_onnx(tmp_path / "in.onnx"), tmp_path / "out.onnx", passes=["nop"], check=accept)
    assert "w" not in {value.name for value in load_proto(result.model.path).graph.value_info}


def test_onnxoptimizer_alone_would_leave_the_weight_to_run_time(tmp_path: Path) -> None:
    """The defect that the fold behind fuse_bn_into_conv is there for; drop the fold when this fails."""
    onnxoptimizer = pytest.importorskip("onnxoptimizer")
    bare = onnxoptimizer.optimize(load_proto(conv_bn_add(tmp_path / "in.onnx").path), ["fuse_bn_into_conv"])
    conv = next(node for node in bare.graph.node if node.op_type == "Conv")
    assert len(bare.graph.node) > 4
    assert conv.input[1] not in {tensor.name for tensor in bare.graph.initializer}


def test_a_bias_is_fused(tmp_path: Path) -> None:
    model = conv_bn_add(tmp_path / "in.onnx", with_batch_norm=False)
    result = optimize(model, tmp_path / "out.onnx", passes=["fuse_add_bias_into_conv"], check=equal_answers)
    conv, relu = load_proto(result.model.path).graph.node
    assert (conv.op_type, relu.op_type) == ("Conv", "Relu")
    assert set(conv.input[1:]) <= {tensor.name for tensor in load_proto(result.model.path).graph.initializer}


@pytest.mark.parametrize("name", ["fuse_bn_into_conv", "onnxslim", "onnxruntime-basic", "onnxruntime-extended"])
def test_signature_history_and_metadata_survive(tmp_path: Path, name: str) -> None:
    model = conv_bn_add(tmp_path / "in.onnx")
    result = optimize(model, tmp_path / "out.onnx", passes=[name], check=equal_answers)

    assert result.outcomes[0].status == "changed"
    assert result.model.signature == model.signature
    assert result.model.provenance[-1].step == "optimize"
    assert result.model.provenance[-1].parent_sha256 == model.sha256
    assert result.model.provenance[-1].arguments == {"changed": name}
    proto = load_proto(result.model.path)
    assert "kept" in {prop.value for prop in proto.metadata_props}
    assert len(proto.opset_import) <= 2


def test_default_passes_leave_only_the_convolution(tmp_path: Path) -> None:
    result = optimize(conv_bn_add(tmp_path / "in.onnx"), tmp_path / "out.onnx", check=equal_answers)
    assert [o.name for o in result.outcomes] == list(DEFAULT_PASSES)
    assert result.outcomes[-1].nodes_after <= 3


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    once = optimize(
        conv_bn_add(tmp_path / "in.onnx"), tmp_path / "once.onnx", passes=["fuse_bn_into_conv"], check=accept
    )
    twice = optimize(once.model, tmp_path / "twice.onnx", passes=["fuse_bn_into_conv"], check=accept)
    assert [(o.status, o.reason) for o in twice.outcomes] == [("nothing to do", None)]
    assert same_graph(load_proto(once.model.path), load_proto(twice.model.path))


def test_crash_hang_exception_and_rubbish_are_contained_and_named(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(MISBEHAVING_WORKER.format(folder=str(Path(passes_module.__file__).parents[2])))
    bad = ["eliminate_deadend", "eliminate_nop_pad", "eliminate_nop_cast", "eliminate_nop_split"]
    result = optimize(
        conv_bn_add(tmp_path / "in.onnx"),
        tmp_path / "out.onnx",
        passes=[*bad, "fuse_bn_into_conv"],
        check=equal_answers,
        worker=(sys.executable, str(script)),
    )

    reasons = [outcome.reason or "" for outcome in result.outcomes]
    assert [o.status for o in result.outcomes] == ["failed"] * 4 + ["changed"]
    assert "SIGSEGV" in reasons[0]
    assert reasons[1] == "RuntimeError: no idea what to do"
    assert "no valid model" in reasons[2]
    assert "no valid model" in reasons[3]
    assert result.model.provenance[-1].arguments["failed"] == ",".join(bad)

    with pytest.raises(PassError, match=r"eliminate_identity failed: still running after 0\.5 s"):
        optimize(
            conv_bn_add(tmp_path / "in.onnx"),
            tmp_path / "hung.onnx",
            passes=["eliminate_identity"],
            check=accept,
            timeout_s=0.5,
            worker=(sys.executable, str(script)),
        )
    assert not (tmp_path / "hung.onnx").exists()


def test_a_pass_that_changes_answers_is_reverted_and_nothing_is_written(tmp_path: Path) -> None:
    def refuse(_: OnnxModel, __: OnnxModel) -> None:
        raise PassError("output 'y': far off")

    with pytest.raises(PassError, match="fuse_bn_into_conv reverted: output 'y': far off"):
        optimize(conv_bn_add(tmp_path / "in.onnx"), tmp_path / "out.onnx", passes=["fuse_bn_into_conv"], check=refuse)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx"]


def test_a_pass_that_renames_inputs_is_reverted(tmp_path: Path) -> None:
    result = optimize(
        conv_bn_add(tmp_path / "in.onnx"), tmp_path / "out.onnx", passes=["rename_input_output", "nop"], check=accept
    )
    assert [o.status for o in result.outcomes] == ["reverted", "nothing to do"]
    assert "signature" in (result.outcomes[0].reason or "")


def test_a_pass_that_widens_fp16_to_fp32_is_reverted(tmp_path: Path) -> None:
    """ONNX Runtime's optimizer does that on processors without FP16 kernels, and the file would pass for FP16."""
    half = to_half(conv_bn_add(tmp_path / "in.onnx"), tmp_path / "half.onnx")
    result = optimize(half, tmp_path / "out.onnx", passes=["nop", "onnxruntime-basic"], check=accept)
    assert result.model.precision == "fp16"
    if result.outcomes[1].status == "reverted":
        assert result.outcomes[1].reason == "layers went from fp16 to fp32"


def test_unknown_and_missing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = conv_bn_add(tmp_path / "in.onnx")
    with pytest.raises(InputError, match="did you mean eliminate_deadend"):
        optimize(model, tmp_path / "out.onnx", passes=["eliminate_deadends"], check=accept)
    with pytest.raises(InputError, match="got no passes"):
        optimize(model, tmp_path / "out.onnx", passes=[], check=accept)
    monkeypatch.setattr(passes_module, "_installed_onnxoptimizer_passes", frozenset)
    monkeypatch.setattr(passes_module, "_is_installed", lambda tool: tool in ("redline", "onnxruntime"))
    with pytest.raises(MissingDependencyError, match="redline\\[optimize\\]"):
        optimize(model, tmp_path / "out.onnx", passes=["fuse_bn_into_conv"], check=accept)
    assert set(available_passes()) == {"onnxruntime-basic", "onnxruntime-extended", "fold_constants"}


def test_every_installed_pass_is_listed_with_a_line_of_its_own() -> None:
    onnxoptimizer = pytest.importorskip("onnxoptimizer")
    assert set(onnxoptimizer.get_available_passes()) <= set(available_passes())
    assert len({info.summary for info in PASSES.values()}) == len(PASSES)


def test_folding_sees_through_cast_like_and_leaves_quantization_alone(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("CastLike", ["one", "x"], ["typed"]),
            helper.make_node("Expand", ["typed", "shape"], ["grown"]),
            helper.make_node("Mul", ["x", "grown"], ["scaled"]),
            helper.make_node("DequantizeLinear", ["q", "step"], ["weight"]),
            helper.make_node("MatMul", ["scaled", "weight"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.array(2, np.int64), "one"),
            numpy_helper.from_array(np.array([4], np.int64), "shape"),
            numpy_helper.from_array(np.ones((4, 2), np.int8), "q"),
            numpy_helper.from_array(np.array(0.5, np.float32), "step"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folded = fold_constants(proto)

    assert [node.op_type for node in folded.graph.node] == ["Mul", "DequantizeLinear", "MatMul"]
    assert {tensor.name for tensor in folded.graph.initializer} == {"grown", "q", "step"}
    assert len(proto.graph.node) == 5
    x = {"x": np.ones((3, 4), np.float32)}
    one, other = (onnxruntime.InferenceSession(p.SerializeToString()).run(None, x)[0] for p in (proto, folded))
    np.testing.assert_array_equal(one, other)


def test_the_worker_says_what_went_wrong_in_one_line(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run([*WORKER, str(tmp_path / "none.onnx"), "out", "nop"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ArtifactError" in done.stderr
    assert len(done.stderr.splitlines()) == 1
