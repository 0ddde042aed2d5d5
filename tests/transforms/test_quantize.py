"""Quantization: what is written runs in INT8, answers nearly as before, and says why where it cannot."""

from __future__ import annotations

import logging
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError, QuantizeError, SignatureError
from redline.core.samples import Samples
from redline.formats.onnx_file import load_proto, read_onnx
from redline.transforms.calibrate import calibrate
from redline.transforms.layer_error import layer_errors, snr_db, suggest
from redline.transforms.nncf_int8 import quantize_nncf
from redline.transforms.quantize import StaticOptions, quantize_dynamic, quantize_static
from redline.transforms.quantize_auto import GateResult, quantize_auto
from redline.transforms.quantize_graph import prepare
from redline.transforms.quantize_presets import PRESETS, TARGETS

SIZE = 12


def build(nodes, weights, path: Path, *, batch: int | str = "batch", opset: int = 18, output="logits", classes=6):
    """A model of one image input and one output of class scores."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    return read_onnx(path)


def cnn(path: Path, *, batch: int | str = "batch", opset: int = 18, outlier: bool = False) -> OnnxModel:
    """Three convolutions with a shortcut, pooling and a linear layer.

    With ``outlier`` the second convolution has a channel of huge range that the third does not even look at, so that
    one scale for the tensor between them leaves nothing of the other channels.
    """
    random = np.random.default_rng(0)

    def conv(outs: int, ins: int) -> np.ndarray:
        return (random.standard_normal((outs, ins, 3, 3)) / np.sqrt(9 * ins)).astype(np.float32) * 1.5

    weights = {"w1": conv(8, 3), "w2": conv(8, 8), "w3": conv(8, 8), "w4": conv(8, 8)}
    weights |= {f"b{i}": random.standard_normal(8).astype(np.float32) * 0.1 for i in (1, 2, 3, 4)}
    weights |= {"fc": random.standard_normal((8, 6)).astype(np.float32), "fb": np.zeros(6, np.float32)}
    if outlier:
        weights["w2"][0] *= 3e4
        weights["w3"][:, 0] = 0
    make, pads = helper.make_node, [1, 1, 1, 1]
    nodes = [
        make("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=pads),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name="second", pads=pads),
        make("Relu", ["c2"], ["r2"], name="relu2"),
        make("Conv", ["r2", "w3", "b3"], ["c3"], name="third", pads=pads),
        make("Add", ["c3", "r1"], ["sum"], name="add"),
        make("Relu", ["sum"], ["r3"], name="relu3"),
        make("Conv", ["r3", "w4", "b4"], ["c4"], name="fourth", pads=pads),
        make("Relu", ["c4"], ["r4"], name="relu4"),
        make("GlobalAveragePool", ["r4"], ["pool"], name="pool"),
        make("Flatten", ["pool"], ["flat"], name="flat"),
        make("Gemm", ["flat", "fc", "fb"], ["logits"], name="head"),
    ]
    return build(nodes, weights, path, batch=batch, opset=opset)


def pictures(count: int, *, seed: int = 1, labels: bool = False) -> Samples:
    """Noise with a brightness and a contrast of each picture's own."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, 3, SIZE, SIZE)) * random.uniform(0.3, 1.5, (count, 1, 1, 1))
    images = (noise + random.standard_normal((count, 3, 1, 1))).astype(np.float32)
    return Samples(
        inputs={"image": images},
        labels=np.arange(count) % 6 if labels else None,
        names=tuple(str(i) for i in range(count)),
        source="noise",
    )


def answers(model: OnnxModel, samples: Samples) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    size = model.signature.fixed_batch or len(samples)
    rows = [session.run(None, samples.batch(start, size))[0] for start in range(0, len(samples), size)]
    return np.concatenate(rows)[: len(samples)]


def fused_operators(model: OnnxModel, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return cnn(tmp_path / "cnn.onnx")


@pytest.mark.parametrize("opset", [13, 18, 22])
def test_static_int8_computes_every_layer_in_integers(tmp_path: Path, opset: int) -> None:
    model = cnn(tmp_path / "cnn.onnx", opset=opset)
    quantized = quantize_static(model, tmp_path / "int8.onnx", pictures(16))
    operators = fused_operators(quantized, tmp_path)
    assert quantized.layers.counts == (("int8", 5),)
    assert (operators["QLinearConv"], operators["QGemm"], operators["Conv"], operators["Gemm"]) == (4, 1, 0, 0)
    assert quantized.signature == model.signature
    assert quantized.signature.dynamic_batch


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_static_answers_stay_near_the_float_ones(model: OnnxModel, tmp_path: Path, method: str) -> None:
    quantized = quantize_static(model, tmp_path / "int8.onnx", pictures(32), StaticOptions(method=method))
    unseen = pictures(32, seed=2)
    assert snr_db(answers(model, unseen), answers(quantized, unseen)) > (20 if method != "entropy" else 10)


def test_the_answer_itself_is_not_rounded_to_8_bits(model: OnnxModel, tmp_path: Path) -> None:
    quantized = quantize_static(model, tmp_path / "int8.onnx", pictures(8))
    assert load_proto(quantized.path).graph.node[-1].op_type == "Gemm"


def test_provenance_says_how(model: OnnxModel, tmp_path: Path) -> None:
    samples = pictures(4)
    quantized = quantize_static(model, tmp_path / "a.onnx", samples, StaticOptions(keep_float=("first",)))
    step = quantized.provenance[-1]
    assert step.parent_sha256 == model.sha256
    assert dict(step.arguments) == {
        "target": "onnxruntime",
        "method": "minmax",
        "samples": 4,
        "samples_sha256": samples.fingerprint(),
        "keep_float": "first",
    }


def test_a_fixed_batch_is_calibrated_with_the_samples_going_round(tmp_path: Path) -> None:
    model = cnn(tmp_path / "cnn.onnx", batch=4)
    quantized = quantize_static(model, tmp_path / "int8.onnx", pictures(6))
    assert quantized.signature.fixed_batch == 4
    assert quantized.layers.counts == (("int8", 5),)


def test_tensorrt_gets_zero_points_of_zero_and_float_biases(model: OnnxModel, tmp_path: Path) -> None:
    quantized = quantize_static(model, tmp_path / "trt.onnx", pictures(8), StaticOptions(target="tensorrt"))
    weights = {t.name: numpy_helper.to_array(t) for t in load_proto(quantized.path).graph.initializer}
    zero_points = [value for name, value in weights.items() if name.endswith("zero_point")]
    assert zero_points
    assert all(value.dtype == np.int8 and not value.any() for value in zero_points)
    assert not any(value.dtype == np.int32 for value in weights.values())
    assert quantized.precision == "int8"


def test_dynamic_int8_has_unsigned_weights(model: OnnxModel, tmp_path: Path) -> None:
    quantized = quantize_dynamic(model, tmp_path / "dynamic.onnx")
    weights = [t for t in load_proto(quantized.path).graph.initializer if t.name.endswith("_quantized")]
    assert {t.data_type for t in weights} == {TensorProto.UINT8}
    assert len(weights) == 5
    assert quantized.signature == model.signature
    assert snr_db(answers(model, pictures(8)), answers(quantized, pictures(8))) > 20


def test_dynamic_int8_takes_weights_whose_shapes_are_noted(model: OnnxModel, tmp_path: Path) -> None:
    proto = load_proto(model.path)
    head = proto.graph.node[-1]
    head.attribute.append(helper.make_attribute("transB", 1))
    for tensor in proto.graph.initializer:
        if tensor.name == "fc":
            tensor.CopyFrom(numpy_helper.from_array(np.ones((6, 8), np.float32), "fc"))
    proto.graph.value_info.append(helper.make_tensor_value_info("fc", TensorProto.FLOAT, [6, 8]))
    model.path.write_bytes(proto.SerializeToString())
    assert quantize_dynamic(read_onnx(model.path), tmp_path / "dynamic.onnx").precision == "int8"


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_dynamic_int8_is_refused_with_the_reason(model: OnnxModel, tmp_path: Path, target: str) -> None:
    with pytest.raises(QuantizeError, match=r"ConvInteger.*--mode static"):
        quantize_dynamic(model, tmp_path / "dynamic.onnx", target=target)
    assert not (tmp_path / "dynamic.onnx").exists()


def test_every_target_has_a_preset() -> None:
    assert tuple(PRESETS) == TARGETS
    with pytest.raises(InputError, match="onnxruntime, openvino, tensorrt"):
        StaticOptions(target="tpu")


def test_a_kept_layer_stays_float_with_what_follows_it(model: OnnxModel, tmp_path: Path) -> None:
    quantized = quantize_static(model, tmp_path / "a.onnx", pictures(8), StaticOptions(keep_float=("third",)))
    assert dict(quantized.layers.counts) == {"int8": 4, "fp32": 1}
    assert fused_operators(quantized, tmp_path)["QLinearAdd"] == 0


def test_a_node_that_is_not_there_is_refused_with_those_near_it(model: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match=r"'frist'.*first"):
        quantize_static(model, tmp_path / "a.onnx", pictures(2), StaticOptions(keep_float=("frist",)))


def test_keeping_all_is_refused(model: OnnxModel, tmp_path: Path) -> None:
    keep = ("first", "second", "third", "fourth", "head")
    with pytest.raises(QuantizeError, match="nothing to quantize"):
        quantize_static(model, tmp_path / "a.onnx", pictures(2), StaticOptions(keep_float=keep))


def test_a_quantized_model_is_refused(model: OnnxModel, tmp_path: Path) -> None:
    quantized = quantize_static(model, tmp_path / "a.onnx", pictures(2))
    with pytest.raises(QuantizeError, match="quantized already"):
        quantize_dynamic(quantized, tmp_path / "b.onnx")


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalMaxPool", ["image"], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    with pytest.raises(QuantizeError, match="nothing to quantize"):
        quantize_dynamic(build(nodes, {}, tmp_path / "pool.onnx", classes=3), tmp_path / "a.onnx")


def test_weights_computed_at_run_time_are_refused_by_name(tmp_path: Path) -> None:
    weights = {"w": np.ones((6, 3, SIZE, SIZE), np.float32), "g": np.float32([2.0])}
    nodes = [
        helper.make_node("Mul", ["w", "g"], ["scaled"]),
        helper.make_node("Conv", ["image", "scaled"], ["c"], name="unfolded"),
        helper.make_node("Flatten", ["c"], ["logits"]),
    ]
    with pytest.raises(QuantizeError, match=r"'unfolded'.*--pass fold_constants"):
        quantize_static(build(nodes, weights, tmp_path / "m.onnx"), tmp_path / "a.onnx", pictures(2))


def test_an_unfused_normalization_is_refused_by_name(tmp_path: Path) -> None:
    ones = np.ones(6, np.float32)
    weights = {"w": np.ones((6, 3, SIZE, SIZE), np.float32), "s": ones, "b": ones, "m": ones, "v": ones}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Flatten", ["n"], ["logits"]),
    ]
    with pytest.raises(QuantizeError, match=r"'norm'.*fuse_bn_into_conv"):
        quantize_static(build(nodes, weights, tmp_path / "m.onnx"), tmp_path / "a.onnx", pictures(2))


def test_samples_that_do_not_fit_or_are_not_finite_are_refused(model: OnnxModel, tmp_path: Path) -> None:
    small = Samples(inputs={"image": np.zeros((2, 3, 5, 5), np.float32)}, labels=None, names=("a", "b"), source="t")
    with pytest.raises(SignatureError, match="expected"):
        quantize_static(model, tmp_path / "a.onnx", small)
    broken = pictures(2)
    broken.inputs["image"][1, 0, 0, 0] = np.nan
    with pytest.raises(QuantizeError, match="'image' has NaN"):
        quantize_static(model, tmp_path / "a.onnx", broken)
    assert not (tmp_path / "a.onnx").exists()


def test_clipping_methods_ignore_a_lone_outlier(model: OnnxModel) -> None:
    samples = pictures(64)
    samples.inputs["image"][0, 0, 0, 0] = 1000
    proto = prepare(model)
    high = {m: calibrate(proto, model, samples, method=m).by_tensor["image"][1] for m in ("minmax", "entropy")}
    assert high["minmax"] == 1000
    assert high["entropy"] < 100


def test_batches_do_not_change_the_ranges(model: OnnxModel) -> None:
    proto = prepare(model)
    one, five = (calibrate(proto, model, pictures(12), batch=size).by_tensor for size in (1, 5))
    assert one.keys() == five.keys()
    assert all(np.allclose(one[name], five[name], rtol=1e-4) for name in one)


def test_nothing_is_said_and_no_logging_is_set_up(
    model: OnnxModel, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    quantize_static(model, tmp_path / "a.onnx", pictures(4), StaticOptions(method="percentile"))
    quantize_dynamic(model, tmp_path / "b.onnx")
    assert root.handlers == []
    assert root.filters == []
    assert capfd.readouterr() == ("", "")


def test_layer_errors_find_the_sensitive_layers(tmp_path: Path) -> None:
    model = cnn(tmp_path / "cnn.onnx", outlier=True)
    errors = layer_errors(model, pictures(16))
    assert {error.node for error in errors[:2]} == {"second", "third"}
    assert set(suggest(errors)) == {"second", "third"}
    assert len(errors) == 5


def test_no_layer_is_suggested_where_none_stands_out(model: OnnxModel) -> None:
    assert suggest(layer_errors(model, pictures(16))) == ()


def snr_gate(reference: OnnxModel, least_db: float):
    unseen = pictures(24, seed=3)
    right = answers(reference, unseen)

    def judge(candidate: OnnxModel) -> GateResult:
        found = snr_db(right, answers(candidate, unseen))
        return GateResult(passed=found >= least_db, score=found, reason=f"{found:.1f} dB")

    return judge


def test_auto_keeps_only_the_layers_that_the_gate_needs(tmp_path: Path) -> None:
    model = cnn(tmp_path / "cnn.onnx", outlier=True)
    plain = quantize_static(model, tmp_path / "plain.onnx", pictures(16))
    gate = snr_gate(model, 25)
    assert not gate(plain).passed
    result = quantize_auto(model, tmp_path / "auto.onnx", pictures(16), StaticOptions(), gate)
    assert set(result.kept) == {"second", "third"}
    assert gate(result.model).passed
    assert dict(result.model.layers.counts) == {"int8": 3, "fp32": 2}
    assert [len(one.kept) for one in result.tried][:3] == [0, 1, 2]


def test_auto_keeps_nothing_where_all_layers_pass(model: OnnxModel, tmp_path: Path) -> None:
    result = quantize_auto(model, tmp_path / "auto.onnx", pictures(16), StaticOptions(), snr_gate(model, 15))
    assert result.kept == ()
    assert result.errors == ()
    assert result.model.layers.counts == (("int8", 5),)


def test_auto_gives_up_with_the_best_that_it_saw(model: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match=r"even with 2 of 5 layers in float; the best was .* dB"):
        quantize_auto(model, tmp_path / "auto.onnx", pictures(8), StaticOptions(), snr_gate(model, 500))
    assert not (tmp_path / "auto.onnx").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nncf") is None, reason="needs nncf")
def test_nncf_gives_an_onnx_file_and_touches_nothing_here(model: OnnxModel, tmp_path: Path) -> None:
    logger_class = logging.getLoggerClass()
    quantized = quantize_nncf(model, tmp_path / "nncf.onnx", pictures(16), keep_float=("first",))
    operators = fused_operators(quantized, tmp_path)
    assert (operators["QLinearConv"], operators["Conv"]) == (3, 1)
    assert quantized.signature == model.signature
    assert snr_db(answers(model, pictures(16)), answers(quantized, pictures(16))) > 15
    assert logging.getLoggerClass() is logger_class
