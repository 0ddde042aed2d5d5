"""ONNX Runtime's CUDA and TensorRT providers: answers, placement, timing and memory; what can be told without a GPU."""

from __future__ import annotations

import gc
import logging
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import conv_model, save_graph

from redline.backends import load_backend, open_engine, why_not
from redline.backends.nvidia import find_gpus
from redline.backends.ort_gpu import OrtCudaOptions, drop_copies
from redline.backends.ort_gpu_session import elsewhere
from redline.backends.ort_providers import CUDA, Trouble, explain, placement
from redline.backends.ort_tensorrt import OrtTensorRtOptions
from redline.core.artifact import Engine
from redline.core.errors import EngineMismatchError, InputError, SignatureError, UnsupportedError
from redline.core.session import SupportsDeviceTiming, SupportsPhases, SupportsProfiles
from redline.formats.onnx_file import read_onnx
from redline.transforms.half import to_half
from redline.verification.measures import errors_between

BACKENDS = ("onnxruntime-cuda", "onnxruntime-tensorrt")
reason_against = cache(why_not)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.gpu) for name in BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    return skip_without(request.param)


@pytest.fixture
def cuda() -> str:
    return skip_without("onnxruntime-cuda")


def skip_without(name: str) -> str:
    if reason := reason_against(name):
        pytest.skip(reason)
    return name


def image(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).standard_normal((batch, 3, 16, 16)).astype(np.float32)}


def built(backend: str, folder: Path, path: Path | None = None, **options: Any) -> Engine:
    path = path or conv_model(folder / "m.onnx", channels=64)
    return load_backend(backend, options).compile(read_onnx(path), folder / "engines")


def right(folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return onnxruntime.InferenceSession(str(folder / "m.onnx"), providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def relative(reference: np.ndarray, candidate: np.ndarray) -> float:
    return errors_between(reference.astype(np.float64), candidate.astype(np.float64)).relative


def test_answers_agree_with_the_cpu_at_several_batch_sizes(backend: str, tmp_path: Path) -> None:
    engine = built(backend, tmp_path)
    session = open_engine(str(engine.path))
    limit = {"fp32": 1e-4, "tf32": 5e-3}[engine.layers.precision]
    for batch in (1, 3, 8, 2, 32):
        assert relative(right(tmp_path, image(batch)), session(image(batch))["logits"]) <= limit
    session.close()


def test_a_convolutional_network_runs_wholly_on_the_provider(
    backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = built(backend, tmp_path)
    with caplog.at_level(logging.WARNING):
        session = open_engine(str(engine.path))
    assert session.fallen_back == {}  # type: ignore[attr-defined]
    assert engine.provenance[-1].arguments["elsewhere"] == ""
    assert "nodes on" not in caplog.text
    session.close()


def test_outputs_are_the_callers_to_keep(backend: str, tmp_path: Path) -> None:
    session = open_engine(str(built(backend, tmp_path).path))
    first = session(image(2, seed=1))["logits"]
    kept = first.copy()
    for seed in range(2, 8):
        session(image(2, seed=seed))
    assert isinstance(session, SupportsDeviceTiming)
    session.device_times(image(2, seed=9), 5)
    session.close()
    gc.collect()
    np.testing.assert_array_equal(first, kept)


def test_device_times_are_one_for_each_call_and_less_than_the_wall(backend: str, tmp_path: Path) -> None:
    session = open_engine(str(built(backend, tmp_path).path))
    assert isinstance(session, SupportsDeviceTiming)
    session.device_times(image(8), 5)
    started = time.perf_counter()
    times = session.device_times(image(8), 20)
    assert len(times) == 20
    assert min(times) > 0
    assert sum(times) <= time.perf_counter() - started
    session.close()


def test_phases_come_with_the_same_answer(backend: str, tmp_path: Path) -> None:
    session = open_engine(str(built(backend, tmp_path).path))
    assert isinstance(session, SupportsPhases)
    outputs, phases = session.run_phases(image(4))
    np.testing.assert_allclose(outputs["logits"], session(image(4))["logits"], rtol=1e-5, atol=1e-6)
    assert min(phases.host_to_device_s, phases.compute_s, phases.device_to_host_s) > 0
    session.close()


def test_load_and_close_twenty_times_returns_the_memory(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings")
    from redline.backends.cuda import memory_info

    engine = built(backend, tmp_path)

    def once() -> None:
        session = open_engine(str(engine.path))
        session(image(8))
        session.close()
        del session
        gc.collect()

    for _ in range(2):
        once()
    before, _ = memory_info()
    for _ in range(20):
        once()
    after, _ = memory_info()
    assert before - after <= 8 << 20


def test_fp16_of_the_graph_is_seen_in_the_engine(backend: str, tmp_path: Path) -> None:
    half = to_half(read_onnx(conv_model(tmp_path / "m.onnx", channels=64)), tmp_path / "half.onnx")
    engine = built(backend, tmp_path, half.path)
    assert engine.layers.precision == "fp16"
    session = open_engine(str(engine.path))
    assert relative(right(tmp_path, image(8)), session(image(8))["logits"]) <= 5e-3
    session.close()


@pytest.mark.gpu
def test_tf32_is_named_where_it_was_allowed(cuda: str, tmp_path: Path) -> None:
    expected = "tf32" if float(find_gpus().gpus[0].compute_capability) >= 8 else "fp32"
    assert built(cuda, tmp_path, tf32=True).layers.precision == expected
    assert built(cuda, tmp_path).layers.precision == "fp32"


@pytest.mark.gpu
def test_what_falls_to_the_cpu_is_counted_and_named_and_the_saved_graph_loads(
    cuda: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Det has no CUDA kernel; what is before and behind it has.
    path = save_graph(
        tmp_path / "m.onnx",
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Det", ["r"], ["d"]),
            helper.make_node("Sigmoid", ["d"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["batch", 3, 3])},
        {"y": (TensorProto.FLOAT, ["batch"])},
    )
    engine = built(cuda, tmp_path, path)
    with caplog.at_level(logging.WARNING):
        session = open_engine(str(engine.path))
    assert session.fallen_back is not None  # type: ignore[attr-defined]
    assert session.fallen_back["Det"] == 1  # type: ignore[attr-defined]
    assert "Det 1" in str(engine.provenance[-1].arguments["elsewhere"])
    assert "on the CPU" in caplog.text
    x = np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(session({"x": x})["y"], right(tmp_path, {"x": x}), rtol=1e-4)
    session.close()


@pytest.mark.gpu
def test_the_tensorrt_provider_is_held_to_its_profile_and_its_engines(tmp_path: Path) -> None:
    name = skip_without("onnxruntime-tensorrt")
    engine = built(name, tmp_path, profile="2,4,8")
    session = open_engine(str(engine.path))
    assert isinstance(session, SupportsProfiles)
    assert session.batch_sizes == (2, 4, 8)
    with pytest.raises(SignatureError, match=r"got shape \(1, 3, 16, 16\).*2x3x16x16 to 8x3x16x16"):
        session(image(1))
    session.close()
    cached = next(engine.path.parent.glob("*.engines/*.engine"))
    cached.write_bytes(cached.read_bytes()[:-7] + b"changed")
    with pytest.raises(EngineMismatchError, match="does not hold the engines that were built"):
        open_engine(str(engine.path))


def test_retrained_weights_never_meet_the_engines_of_the_old_ones(backend: str, tmp_path: Path) -> None:
    built(backend, tmp_path)
    path = conv_model(tmp_path / "m.onnx", channels=64, seed=1)
    session = open_engine(str(built(backend, tmp_path, path).path))
    assert relative(right(tmp_path, image(2)), session(image(2))["logits"]) <= 5e-3
    session.close()


@pytest.mark.parametrize("name", BACKENDS)
def test_without_the_provider_nothing_runs_on_the_cpu_in_its_name(name: str, tmp_path: Path) -> None:
    reason = reason_against(name)
    if reason is None:
        pytest.skip("it works here")
    with pytest.raises(UnsupportedError, match="cannot be used") as refusal:
        built(name, tmp_path)
    assert reason in str(refusal.value)


def test_copies_that_the_runtime_saved_are_taken_out_again(tmp_path: Path) -> None:
    proto = onnx.load(conv_model(tmp_path / "m.onnx"))
    for node in proto.graph.node:
        node.input[:] = [f"{name}_{CUDA}" if name in ("image", "p") else name for name in node.input]
        node.output[:] = [f"{name}_{CUDA}" if name == "logits" else name for name in node.output]
    copies = [
        helper.make_node("MemcpyFromHost", [name], [f"{name}_{CUDA}"], name=f"Memcpy_{name}") for name in ("image", "p")
    ]
    copies.append(helper.make_node("MemcpyToHost", [f"logits_{CUDA}"], ["logits"], name="Memcpy_out"))
    proto.graph.node.extend(copies)
    shape = [1, 3, 16, 16]
    proto.graph.value_info.append(helper.make_tensor_value_info(f"image_{CUDA}", TensorProto.FLOAT, shape))
    assert drop_copies(proto)
    assert not drop_copies(proto)
    assert not proto.graph.value_info
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, image(2))[0], right(tmp_path, image(2)))


def test_copies_around_a_branch_are_taken_out_too() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node(operator, [f"x_{CUDA}"], [f"b_{CUDA}"]),
            helper.make_node("MemcpyToHost", [f"b_{CUDA}"], ["b"]),
        ]
        return helper.make_graph(nodes, operator, [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])])

    graph = helper.make_graph(
        [
            helper.make_node("MemcpyFromHost", ["x"], [f"x_{CUDA}"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg")),
        ],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert drop_copies(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([-1, 2], np.float32)
    np.testing.assert_array_equal(session.run(None, {"c": np.array(False), "x": x})[0], -x)


def test_where_nodes_run_is_read_from_the_runtime(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        str(conv_model(tmp_path / "m.onnx")), options, providers=["CPUExecutionProvider"]
    )
    nodes = placement(session)
    if nodes is None:
        pytest.skip("this ONNX Runtime does not say")
    found = elsewhere(CUDA, nodes)
    assert found is not None
    assert found["Gemm"] == 1
    assert elsewhere("CPUExecutionProvider", nodes) == {}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            "Failed to load library x.so with error: libcublasLt.so.13: cannot open shared object file: No such file",
            Trouble(
                reason="its library libcublasLt.so.13 is not here", fix="pip install 'onnxruntime-gpu[cuda,cudnn]'"
            ),
        ),
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            Trouble(reason="its library libcuda.so.1 is not here", fix="install the NVIDIA driver"),
        ),
        (
            "Parse Failed to parse provider option: CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; file=y.cc ;",
            Trouble(reason="CUDA failure 2: out of memory"),
        ),
        ("/src/state.cc:729 void f(Options&, const Other&) Please install it", Trouble(reason="Please install it")),
    ],
)
def test_errors_of_the_libraries_in_words(told: str, expected: Trouble) -> None:
    assert explain(told) == expected


def test_a_driver_that_is_too_old_is_told_so() -> None:
    found = explain("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ;")
    assert "too old" in found.reason
    assert found.fix == "update the NVIDIA driver"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: OrtCudaOptions(device=-1), "device is -1, expected 0 or more"),
        (lambda: OrtCudaOptions(graph_optimization="most"), "graph_optimization is 'most', expected all"),
        (lambda: OrtCudaOptions(cudnn_conv_algo_search="FAST"), "'FAST', expected EXHAUSTIVE, HEURISTIC, DEFAULT"),
        (lambda: OrtTensorRtOptions(workspace_bytes=-1), "workspace_bytes is -1"),
        (lambda: OrtTensorRtOptions(profile="1,2"), "expected MIN,OPT,MAX"),
        (lambda: OrtTensorRtOptions(profile="1,2,4;8,8,8"), "expected one"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()
