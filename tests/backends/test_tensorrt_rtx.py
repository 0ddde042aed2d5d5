"""TensorRT-RTX builds real engines without a GPU, for one that is not here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.onnx_models import conv_model, five_inputs, integer_input, no_inputs, save_graph

from redline.backends import load_backend, open_engine
from redline.core.artifact import Engine, OnnxModel
from redline.core.errors import BuildError, EngineMismatchError, InputError, UnsupportedError
from redline.core.samples import Samples
from redline.formats.onnx_file import read_onnx
from redline.transforms.half import to_half
from redline.transforms.quantize import StaticOptions, quantize_dynamic, quantize_static

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX's wheels are installed on Linux on x86-64 alone")


def compiled(model: OnnxModel, folder: Path, *, target: str = "sm89", **options: Any) -> Engine:
    return load_backend("tensorrt-rtx", {"target": target, **options}).compile(model, folder / "engines")


def samples(shape: tuple[int, ...], *, name: str = "image", count: int = 8) -> Samples:
    values = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    return Samples(inputs={name: values}, labels=None, names=tuple(map(str, range(count))), source="test")


@dataclass(frozen=True)
class Files:
    """One model as FP32, FP16 and INT8 files."""

    fp32: OnnxModel
    fp16: OnnxModel
    int8: OnnxModel


def small_net(path: Path) -> Path:
    """Three convolutions and a linear layer with enough weights that an engine's size shows their type."""
    rng = np.random.default_rng(0)
    channels = (3, 64, 256, 256)
    constants = {"fc": rng.standard_normal((256, 10)).astype(np.float32), "fc_b": np.zeros(10, np.float32)}
    nodes, tensor = [], "image"
    for index in range(3):
        weights = rng.standard_normal((channels[index + 1], channels[index], 3, 3)).astype(np.float32)
        constants[f"w{index}"] = weights / np.float32(3 * channels[index] ** 0.5)
        constants[f"b{index}"] = np.full(channels[index + 1], 0.1, np.float32)
        inputs = [tensor, f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{index}"], name=f"conv{index}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        tensor = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["p"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"], name="flatten"))
    nodes.append(helper.make_node("Gemm", ["f", "fc", "fc_b"], ["logits"], name="linear"))
    ends = {"image": (TensorProto.FLOAT, ["batch", 3, 32, 32])}, {"logits": (TensorProto.FLOAT, ["batch", 10])}
    return save_graph(path, nodes, *ends, constants)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("small")
    model = read_onnx(small_net(folder / "net.onnx"))
    return Files(
        fp32=model,
        fp16=to_half(model, folder / "net_fp16.onnx"),
        int8=quantize_static(model, folder / "net_int8.onnx", samples((3, 32, 32)), StaticOptions(target="tensorrt")),
    )


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Files:
    import redline

    folder = tmp_path_factory.mktemp("resnet18")
    model = redline.export("resnet18", folder / "resnet18.onnx").model
    few = samples((3, 224, 224), name=model.signature.inputs[0].name, count=4)
    return Files(
        fp32=model,
        fp16=to_half(model, folder / "resnet18_fp16.onnx"),
        int8=quantize_static(model, folder / "resnet18_int8.onnx", few, StaticOptions(target="tensorrt")),
    )


def sizes_and_layers(files: Files, folder: Path, layers: int) -> None:
    engines = {name: compiled(getattr(files, name), folder, name=name) for name in ("fp32", "fp16", "int8")}
    for name, engine in engines.items():
        assert engine.layers.counts == ((name, layers),)
        assert engine.provenance[-1].arguments["layers_read_from"] == "builder's report"
        assert engine.provenance[-1].arguments["typing"] == "strong"
        assert engine.path.name == f"{name}.plan"
    size = {name: engine.path.stat().st_size for name, engine in engines.items()}
    assert size["fp32"] > size["fp16"] > size["int8"]


def test_each_precision_of_a_small_net_is_read_from_the_engine(small: Files, tmp_path: Path) -> None:
    sizes_and_layers(small, tmp_path, layers=4)


@pytest.mark.slow
def test_each_precision_of_resnet18_is_read_from_the_engine(resnet18: Files, tmp_path: Path) -> None:
    sizes_and_layers(resnet18, tmp_path, layers=21)


def test_fp32_is_fp32_and_tf32_is_called_tf32(small: Files, tmp_path: Path) -> None:
    assert compiled(small.fp32, tmp_path).layers.counts == (("fp32", 4),)
    assert compiled(small.fp32, tmp_path, precision="fp32", name="fp32").layers.counts == (("fp32", 4),)
    assert compiled(small.fp32, tmp_path, precision="tf32", name="tf32").layers.counts == (("tf32", 4),)


def test_layers_that_stay_in_float_are_true_fp32(small: Files, tmp_path: Path) -> None:
    mixed = to_half(small.fp32, tmp_path / "mixed.onnx", keep_nodes=("conv0",))
    assert dict(compiled(mixed, tmp_path).layers.counts) == {"fp16": 3, "fp32": 1}


def test_an_engine_reads_back_as_it_was_written(small: Files, tmp_path: Path) -> None:
    engine = compiled(small.fp16, tmp_path, profiles="1,4,8")
    again = Engine.read(engine.path)
    assert again == engine
    assert again.backend == "tensorrt-rtx"
    assert again.platform["compute_capability"] == "8.9"
    assert again.options["target"] == "sm89"
    assert [step.step for step in again.provenance] == ["half", "compile tensorrt-rtx"]
    assert again.provenance[-1].parent_sha256 == small.fp16.sha256
    engine.path.write_bytes(engine.path.read_bytes()[:-1])
    with pytest.raises(EngineMismatchError, match="build the engine again"):
        Engine.read(engine.path)


def test_several_profiles_are_built_and_noted(small: Files, tmp_path: Path) -> None:
    one = compiled(small.fp32, tmp_path, profiles="1,4,8", name="one")
    two = compiled(small.fp32, tmp_path, profiles="1,4,8;16,32,64", name="two")
    assert one.provenance[-1].arguments["profiles"] == "image 1x3x32x32 to 8x3x32x32"
    assert two.provenance[-1].arguments["profiles"] == "image 1x3x32x32 to 8x3x32x32; image 16x3x32x32 to 64x3x32x32"
    assert two.layers.counts == (("fp32", 4),)  # each node once, though each profile has layers of its own


def test_a_profile_of_whole_shapes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    ends = {"x": (TensorProto.FLOAT, ["n", 3, "h", "w"])}, {"y": (TensorProto.FLOAT, ["n", 4, "h", "w"])}
    model = read_onnx(save_graph(tmp_path / "m.onnx", nodes, *ends, weights))
    with pytest.raises(InputError, match="--profile x=MIN,OPT,MAX"):
        compiled(model, tmp_path, profiles="1,2,4")
    engine = compiled(model, tmp_path, profiles="x=1x3x8x8,2x3x16x16,4x3x32x32")
    assert engine.provenance[-1].arguments["profiles"] == "x 1x3x8x8 to 4x3x32x32"


def test_a_fixed_batch_takes_no_profile(tmp_path: Path) -> None:
    model = read_onnx(conv_model(tmp_path / "m.onnx", batch=2))
    assert compiled(model, tmp_path).provenance[-1].arguments["profiles"] == ""
    with pytest.raises(InputError, match="has fixed shapes and takes no profile"):
        compiled(model, tmp_path, profiles="1,2,4")


@pytest.mark.parametrize("make", [five_inputs, no_inputs, integer_input])
def test_any_number_and_kind_of_inputs(make: Any, tmp_path: Path) -> None:
    engine = compiled(read_onnx(make(tmp_path / "m.onnx")), tmp_path)
    assert engine.layers.counts == ()
    assert engine.path.stat().st_size > 0


def test_weights_beside_the_model_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    proto = onnx.load(str(small_net(folder / "m.onnx")))
    onnx.save(proto, str(folder / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    assert compiled(read_onnx(Path("model/m.onnx")), tmp_path).layers.counts == (("fp32", 4),)


def test_the_same_model_for_another_gpu_is_another_engine(small: Files, tmp_path: Path) -> None:
    ada = compiled(small.fp16, tmp_path)
    blackwell = compiled(small.fp16, tmp_path, target="sm120")
    assert ada.path == blackwell.path
    assert ada.sha256 != blackwell.sha256
    assert blackwell.platform["compute_capability"] == "12.0"
    assert Engine.read(blackwell.path).platform == blackwell.platform


def test_what_is_built_already_is_not_built_again(small: Files, tmp_path: Path) -> None:
    first = compiled(small.fp16, tmp_path)
    assert compiled(small.fp16, tmp_path) == first
    assert compiled(small.fp16, tmp_path, rebuild=True).provenance[-1] != first.provenance[-1]


def test_loading_says_what_the_engine_was_compiled_for(small: Files, tmp_path: Path) -> None:
    engine = compiled(small.fp32, tmp_path)
    with pytest.raises(EngineMismatchError, match=r"net.plan was compiled for .*(there is no GPU here|build it again)"):
        open_engine(str(engine.path))


def test_progress_is_told_from_the_first_step_to_the_last(small: Files, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def note(phase: str, done: int, total: int) -> None:
        told.append((phase, done, total))

    backend: Any = load_backend("tensorrt-rtx", {"target": "sm89"})
    backend.compile(small.fp32, tmp_path, progress=note)
    assert told
    assert all(0 <= done <= total for _, done, total in told)
    for phase in {phase for phase, _, _ in told}:
        steps = [(done, total) for name, done, total in told if name == phase]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]


def test_a_build_that_is_told_to_stop_stops(small: Files, tmp_path: Path) -> None:
    backend: Any = load_backend("tensorrt-rtx", {"target": "sm89"})
    with pytest.raises(BuildError, match=r"net.onnx: TensorRT-RTX .* could not build it"):
        backend.compile(small.fp32, tmp_path, progress=lambda *_: False)
    assert not list(tmp_path.glob("*.plan"))


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="odd", domain="my.domain")
    path = save_graph(
        tmp_path / "m.onnx", [node], {"x": (TensorProto.FLOAT, [1, 3])}, {"y": (TensorProto.FLOAT, [1, 3])}
    )
    proto = onnx.load(str(path))
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    onnx.save(proto, str(path))
    with pytest.raises(
        UnsupportedError, match=r"m.onnx: .* has no operator my.domain:Frobnicate \(node odd\); replace"
    ):
        compiled(read_onnx(path), tmp_path)


def test_a_bias_of_int32_is_refused_with_what_to_do(small: Files, tmp_path: Path) -> None:
    options = StaticOptions(target="onnxruntime")
    other = quantize_static(small.fp32, tmp_path / "other.onnx", samples((3, 32, 32)), options)
    with pytest.raises(BuildError) as caught:
        compiled(other, tmp_path)
    told = str(caught.value)
    assert re.search(r"\(node \w*b0\w*, DequantizeLinear\)", told)
    assert "no INT32 bias: quantize the original: redline quantize MODEL -o other.onnx --for tensorrt" in told
    assert "cudaError" not in told


def test_zero_points_other_than_0_are_refused_with_what_to_do(tmp_path: Path) -> None:
    scale, zero = np.array(0.1, np.float32), np.array(3, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="rounding"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="back"),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="product"),
    ]
    constants = {"s": scale, "z": zero, "w": np.eye(4, dtype=np.float32)}
    ends = {"x": (TensorProto.FLOAT, [2, 4])}, {"y": (TensorProto.FLOAT, [2, 4])}
    model = read_onnx(save_graph(tmp_path / "m.onnx", nodes, *ends, constants))
    with pytest.raises(BuildError, match=r"\(node rounding, QuantizeLinear\); it wants symmetric INT8.*--for tensorrt"):
        compiled(model, tmp_path)


def test_dynamic_quantization_is_refused_with_what_to_do(small: Files, tmp_path: Path) -> None:
    dynamic = quantize_dynamic(small.fp32, tmp_path / "dynamic.onnx")
    with pytest.raises(
        UnsupportedError, match=r"\(node \w+, \w+\): it takes no dynamic quantization; quantize the orig"
    ):
        compiled(dynamic, tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"target": "sm61"}, UnsupportedError, r"cannot build for sm61, expected one of .*sm89"),
        ({"target": "ada"}, InputError, r"target is 'ada', expected a compute capability such as sm89"),
        (
            {"typing": "weak"},
            UnsupportedError,
            r"no weak typing: precision flags and calibrators ended with TensorRT 10",
        ),
        ({"precision": "fp16"}, InputError, r"net.onnx is fp32 and strong typing follows the graph.*--mode fp16"),
        ({"precision": "int8"}, InputError, r"net.onnx is fp32 and strong typing follows the graph.*--mode static"),
        ({"version_compatible": True}, UnsupportedError, r"makes no version-compatible engines"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(
    small: Files, tmp_path: Path, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        compiled(small.fp32, tmp_path, **options)


def test_int8_and_fp16_files_are_not_called_fp32(small: Files, tmp_path: Path) -> None:
    for model in (small.fp16, small.int8):
        with pytest.raises(
            InputError, match=f"{model.path.name} is {model.precision} and strong typing follows the graph"
        ):
            compiled(model, tmp_path, precision="fp32")


def test_without_a_gpu_a_target_must_be_named(small: Files, tmp_path: Path) -> None:
    from redline.backends.nvidia import device_count

    if device_count():
        pytest.skip("there is a GPU here, for which it would build")
    with pytest.raises(UnsupportedError, match="there is none here; name one .*--target sm89"):
        load_backend("tensorrt-rtx", {}).compile(small.fp32, tmp_path)


def test_quantized_weights_are_in_the_plan_as_int8(tmp_path: Path, small: Files) -> None:
    plain = compiled(small.fp32, tmp_path, name="plain").path.stat().st_size
    rounded = compiled(small.int8, tmp_path, name="rounded").path.stat().st_size
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(str(small.fp32.path)).graph.initializer)
    assert plain - rounded > weights / 2
