"""TensorRT on a GPU: builder, sessions, profiles, graphs, device tensors, broken and foreign plans."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.gpu import needs_tensorrt
from tests.onnx_models import conv_model, save_graph

from redline.backends import load_backend, open_engine
from redline.core.artifact import Engine
from redline.core.errors import EngineMismatchError, InputError, RedlineError, SignatureError, UnsupportedError
from redline.core.samples import Samples, save_samples
from redline.formats.onnx_file import read_onnx
from redline.verification.measures import errors_between

pytestmark = [pytest.mark.gpu, needs_tensorrt]


def image(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).standard_normal((batch, 3, 16, 16)).astype(np.float32)}


def right(path: Path, folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    backend = load_backend("onnxruntime", {"threads": 1})
    return backend.load(backend.compile(read_onnx(path), folder / "right"))(inputs)["logits"]


def relative(reference: np.ndarray, candidate: np.ndarray) -> float:
    return errors_between(reference.astype(np.float64), candidate.astype(np.float64)).relative


def built(folder: Path, model: Path | None = None, **options: Any) -> Engine:
    """An engine; timing every kernel well would take ten seconds for each of these tests."""
    options = {"optimization_level": 1, "timing_cache": str(folder.parent / "timing.cache"), **options}
    path = model or conv_model(folder / "m.onnx", channels=64)
    return load_backend("tensorrt", options).compile(read_onnx(path), folder / "engines")


def calibration(folder: Path, count: int = 40) -> str:
    samples = Samples(inputs=image(count, seed=9), labels=None, names=tuple(map(str, range(count))), source="test")
    save_samples(samples, folder / "calibration.npz")
    return str(folder / "calibration.npz")


def test_fp32_is_fp32_and_agrees(tmp_path: Path) -> None:
    engine = built(tmp_path, precision="fp32", profiles="1,4,8")
    assert engine.layers.precision == "fp32"
    with_engine = open_engine(str(engine.path))
    for batch in (1, 3, 8, 4, 8):
        answer = with_engine(image(batch))["logits"]
        assert relative(right(tmp_path / "m.onnx", tmp_path, image(batch)), answer) <= 1e-5
    with_engine.close()


@pytest.mark.parametrize(("precision", "bound"), [("tf32", 5e-3), ("fp16", 5e-3)])
def test_lower_precisions_are_named_as_the_engine_has_them(tmp_path: Path, precision: str, bound: float) -> None:
    engine = built(tmp_path, precision=precision, profiles="1,8,64")
    session = open_engine(str(engine.path))
    answer = session(image(64))["logits"]
    assert relative(right(tmp_path / "m.onnx", tmp_path, image(64)), answer) <= bound
    assert engine.layers.precision in (precision, "fp32")  # of a layer this small the builder may keep FP32
    session.close()


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_int8_calibrates_on_the_profiles_opt_batch_and_remembers(tmp_path: Path, method: str) -> None:
    options = {"precision": "int8", "calibrator": method, "calibration": calibration(tmp_path), "profiles": "1,8,16"}
    first = built(tmp_path, **options)
    assert first.provenance[-1].arguments["calibration"] == "computed"
    assert list((tmp_path / "engines").glob(f"calibration-{method}-*.cache"))
    second = built(tmp_path, **options, rebuild=True)
    assert second.provenance[-1].arguments["calibration"] == "from cache"
    session = open_engine(str(second.path))
    answer = session(image(16))["logits"]
    assert relative(right(tmp_path / "m.onnx", tmp_path, image(16)), answer) <= 0.1
    session.close()


def test_int8_without_samples_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        built(tmp_path, precision="int8")


def test_fewer_samples_than_the_opt_batch_calibrate_at_their_own_number(tmp_path: Path) -> None:
    engine = built(tmp_path, precision="int8", calibration=calibration(tmp_path, 5), profiles="1,8,16")
    session = open_engine(str(engine.path))
    assert np.isfinite(session(image(16))["logits"]).all()
    session.close()


def test_several_profiles_and_a_shape_outside_of_all(tmp_path: Path) -> None:
    engine = built(tmp_path, profiles="1,1,2;8,16,32")
    session = open_engine(str(engine.path))
    assert session.batch_sizes == (1, 2, 8, 16, 32)
    for batch in (1, 2, 8, 32, 1, 16):
        answer = session(image(batch))["logits"]
        np.testing.assert_allclose(answer, right(tmp_path / "m.onnx", tmp_path, image(batch)), atol=1e-4)
    with pytest.raises(SignatureError, match=r"'image': got shape \(4, 3, 16, 16\).*1x3x16x16 to 2x3x16x16; 8x3x16x16"):
        session(image(4))
    assert session(image(2))["logits"].shape == (2, 5)
    session.close()


def test_two_dynamic_sizes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)}
    sizes = ["batch", 3, "height", "width"]
    path = save_graph(
        tmp_path / "m.onnx",
        nodes,
        {"x": (TensorProto.FLOAT, sizes)},
        {"y": (TensorProto.FLOAT, ["batch", 4, "height", "width"])},
        weights,
    )
    engine = built(tmp_path, path, profiles="x=1x3x8x8,2x3x16x16,4x3x32x32")
    session = open_engine(str(engine.path))
    for shape in ((1, 3, 8, 8), (4, 3, 32, 20), (2, 3, 16, 16)):
        assert session({"x": np.ones(shape, np.float32)})["y"].shape == (shape[0], 4, *shape[2:])
    session.close()


@pytest.mark.parametrize("record", [True, False])
def test_replayed_graphs_answer_as_launches_do(tmp_path: Path, record: bool) -> None:
    engine = built(tmp_path, profiles="1,4,8")
    session = open_engine(str(engine.path), {"cuda_graph": record})
    for seed in range(6):
        for batch in (4, 1, 8):
            answer = session(image(batch, seed))["logits"]
            np.testing.assert_allclose(answer, right(tmp_path / "m.onnx", tmp_path, image(batch, seed)), atol=1e-4)
    recorded = [plan.graph is not None for lane in session._lanes for plan in lane._plans.values()]
    assert recorded == [record] * 3
    session.close()


def test_phases_and_device_times_are_positive_and_add_up(tmp_path: Path) -> None:
    engine = built(tmp_path, profiles="1,64,256")
    session = open_engine(str(engine.path))
    for _ in range(3):
        outputs, phases = session.run_phases(image(256))
    np.testing.assert_allclose(outputs["logits"], right(tmp_path / "m.onnx", tmp_path, image(256)), atol=1e-4)
    assert phases.host_to_device_s > 0
    assert phases.compute_s > 0
    assert phases.device_to_host_s > 0
    times = session.device_times(image(256), 50)
    assert len(times) == 50
    assert 0 < np.median(times) < 10 * phases.compute_s
    session.close()


def test_a_stream_of_batches_answers_in_order(tmp_path: Path) -> None:
    engine = built(tmp_path, profiles="1,16,64")
    session = open_engine(str(engine.path))
    batches = [image(1 + index % 64, seed=index) for index in range(20)]
    answers = list(session.stream(batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer["logits"], right(tmp_path / "m.onnx", tmp_path, batch), atol=1e-4)
    pinned = [session.allocate_inputs(64) for _ in range(4)]
    for index, batch in enumerate(pinned):
        batch["image"][...] = image(64, seed=index)["image"]
    for index, answer in enumerate(session.stream(pinned)):
        expected = right(tmp_path / "m.onnx", tmp_path, image(64, seed=index))
        np.testing.assert_allclose(answer["logits"], expected, atol=1e-4)
    session.close()


def test_an_abandoned_stream_leaves_the_session_usable(tmp_path: Path) -> None:
    session = open_engine(str(built(tmp_path, profiles="1,4,8").path))
    answers = session.stream([image(4, seed) for seed in range(10)])
    next(answers)
    with pytest.raises(InputError, match="unfinished stream"):
        session(image(1))
    answers.close()
    assert session(image(1))["logits"].shape == (1, 5)
    session.close()


def test_device_tensors_go_in_and_come_out_without_a_copy(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    session = open_engine(str(built(tmp_path, profiles="1,4,8").path))
    for seed in range(4):
        on_gpu = torch.from_numpy(image(4, seed)["image"]).cuda()
        answer = session.run_on_device({"image": on_gpu})["logits"]
        taken = torch.from_dlpack(answer)
        assert taken.data_ptr() == answer.pointer
        expected = right(tmp_path / "m.onnx", tmp_path, image(4, seed))
        np.testing.assert_allclose(taken.cpu().numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(answer.numpy(), expected, atol=1e-4)
        as_array = torch.as_tensor(answer, device="cuda")
        assert as_array.data_ptr() == answer.pointer
    with pytest.raises(SignatureError, match="strides"):
        session.run_on_device({"image": torch.zeros(4, 16, 16, 3, device="cuda").permute(0, 3, 1, 2)})
    with pytest.raises(SignatureError, match="device"):
        session.run_on_device({"image": torch.zeros(4, 3, 16, 16)})
    session.close()


def test_answers_on_the_gpu_feed_the_next_call(tmp_path: Path) -> None:
    session = open_engine(str(built(tmp_path, profiles="1,4,8").path))
    from redline.backends.cuda import Stream
    from redline.backends.tensorrt.device_tensor import DeviceTensor

    stream = Stream()
    array = image(4)["image"]
    tensor = DeviceTensor(array.shape, array.dtype, stream)
    stream.upload(tensor.pointer, array.ctypes.data, array.nbytes)
    tensor.ready()
    answer = session.run_on_device({"image": tensor})["logits"].numpy()
    np.testing.assert_allclose(answer, right(tmp_path / "m.onnx", tmp_path, image(4)), atol=1e-4)
    with pytest.raises(SignatureError, match="NumPy"):
        session.run_on_device({"image": array})
    session.close()


def test_one_thread_at_a_time_and_a_pool_for_more(tmp_path: Path) -> None:
    engine = built(tmp_path, profiles="1,4,8")
    pool = load_backend("tensorrt").load_pool(engine, 3)  # type: ignore[attr-defined]
    wrong: list[int] = []

    def work(seed: int) -> None:
        expected = answers[seed]
        same = [np.allclose(pool(image(4, seed))["logits"], expected, atol=1e-4) for _ in range(30)]
        wrong.extend([seed] * same.count(False))

    answers = [right(tmp_path / "m.onnx", tmp_path, image(4, seed)) for seed in range(8)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    pool.close()
    pool.close()
    with pytest.raises(InputError, match="closed"):
        pool(image(4))


def test_int64_inputs_are_narrowed_where_they_fit(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0)]
    path = save_graph(
        tmp_path / "m.onnx",
        nodes,
        {"ids": (TensorProto.INT64, ["batch", 4])},
        {"rows": (TensorProto.FLOAT, ["batch", 4, 3])},
        {"table": np.arange(30, dtype=np.float32).reshape(10, 3)},
    )
    session = open_engine(str(built(tmp_path, path).path))
    assert session({"ids": np.array([[0, 9, 1, 2]])})["rows"][0, 1].tolist() == [27, 28, 29]
    session.close()


def test_the_timing_cache_makes_the_next_build_quick_and_is_kept(tmp_path: Path) -> None:
    built(tmp_path, precision="fp16", timing_cache="")
    caches = list((tmp_path / "engines").glob("timing-*.cache"))
    assert len(caches) == 1
    assert caches[0].stat().st_size > 0
    caches[0].write_bytes(b"of another machine")
    assert built(tmp_path, precision="fp16", timing_cache="", rebuild=True).path.is_file()


def test_hardware_compatible_engines_run_here_too(tmp_path: Path) -> None:
    engine = built(tmp_path, hardware_compatible=True, profiles="1,4,8")
    elsewhere = replace(engine, platform={**engine.platform, "gpu": "NVIDIA A100", "compute_capability": "8.0"})
    session = load_backend("tensorrt").load(elsewhere)
    np.testing.assert_allclose(session(image(2))["logits"], right(tmp_path / "m.onnx", tmp_path, image(2)), atol=1e-4)
    session.close()


@pytest.mark.parametrize(
    ("key", "value"), [("tensorrt", "99.0"), ("gpu", "NVIDIA GeForce RTX 4060"), ("compute_capability", "8.9")]
)
def test_an_engine_of_another_platform_is_named_and_not_run(tmp_path: Path, key: str, value: str) -> None:
    engine = built(tmp_path)
    foreign = replace(engine, platform={**engine.platform, key: value})
    with pytest.raises(EngineMismatchError, match=f"was compiled for {key} '{value}'"):
        load_backend("tensorrt").load(foreign)


def test_broken_plans_are_never_run(tmp_path: Path) -> None:
    engine = built(tmp_path)
    whole = engine.path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for index in range(200):
        broken = bytearray(whole)
        if index % 2:
            broken = broken[: int(rng.integers(0, len(whole)))]
        else:
            broken[int(rng.integers(0, len(whole)))] ^= int(rng.integers(1, 256))
        engine.path.write_bytes(bytes(broken))
        with pytest.raises(EngineMismatchError, match="build the engine again"):
            open_engine(str(engine.path))
        refused += 1
    assert refused == 200
    engine.path.write_bytes(whole)
    assert open_engine(str(engine.path))(image(1))["logits"].shape == (1, 5)


def test_a_plan_that_is_none_is_refused_by_tensorrt_itself_in_words(tmp_path: Path) -> None:
    engine = built(tmp_path)
    engine.path.write_bytes(b"not a plan")
    from redline.core.files import sha256_of

    lying = replace(engine, sha256=sha256_of(engine.path))
    lying.save()
    with pytest.raises(EngineMismatchError, match="cannot load it"):
        open_engine(str(engine.path))


def test_a_hundred_engines_leave_no_memory_behind(tmp_path: Path) -> None:
    from redline.backends.cuda import memory_info

    engine = built(tmp_path, profiles="1,64,256")
    for _ in range(3):
        session = open_engine(str(engine.path))
        session(image(64))
        session.close()
    before = memory_info()[0]
    for _ in range(100):
        session = open_engine(str(engine.path))
        session(image(64))
        session(image(64))
        list(session.stream([image(3), image(64), image(256)]))
        session.close()
    assert before - memory_info()[0] <= 8 << 20


def test_a_shape_that_depends_on_values_is_refused_in_words(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    path = save_graph(
        tmp_path / "m.onnx", nodes, {"x": (TensorProto.FLOAT, [2, 3])}, {"y": (TensorProto.INT64, [2, "found"])}
    )
    engine = built(tmp_path, path)
    with pytest.raises(UnsupportedError, match="depends on the values"):
        open_engine(str(engine.path))


def test_what_this_generation_lacks_is_said(tmp_path: Path) -> None:
    backend: Any = load_backend("tensorrt")
    for typing in ("weak", "strong"):
        if typing not in backend.typings:
            with pytest.raises(UnsupportedError, match=f"no {typing} typing"):
                built(tmp_path, typing=typing)


def test_a_build_tells_how_far_it_is_where_it_can(tmp_path: Path) -> None:
    backend: Any = load_backend("tensorrt")
    steps: list[tuple[str, int, int]] = []
    backend.compile(read_onnx(conv_model(tmp_path / "m.onnx")), tmp_path, progress=lambda *step: steps.append(step))
    if hasattr(backend.library.module, "IProgressMonitor"):
        assert steps


def test_build_writes_what_it_found(tmp_path: Path) -> None:
    from redline.commands.build import BuildOptions, build

    model = conv_model(tmp_path / "m.onnx", channels=64)
    np.savez(tmp_path / "data.npz", image=image(64)["image"])
    result = build(
        model,
        tmp_path / "plans",
        precisions=("fp32", "fp16", "int8"),
        data=tmp_path / "data.npz",
        options=BuildOptions(typing="both", profiles=("1,4,8",), optimization_level=1),
    )
    told = json.loads((tmp_path / "plans" / "build.json").read_text())
    assert told == result.to_json()
    good = [variant for variant in result.variants if variant.engine]
    assert len(good) >= 4 if len(load_backend("tensorrt").typings) == 2 else len(good) >= 3  # type: ignore[attr-defined]
    for variant in good:
        assert variant.agreement is not None
        assert [latency.batch for latency in variant.latencies] == [1, 4, 8]
        assert all(latency.device_ms and latency.device_ms > 0 for latency in variant.latencies)


def test_one_thread_may_not_disturb_another(tmp_path: Path) -> None:
    session = open_engine(str(built(tmp_path).path))
    caught: list[RedlineError] = []

    def work() -> None:
        for _ in range(200):
            try:
                session(image(1))
            except InputError as error:
                caught.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session(image(1))["logits"].shape == (1, 5)
    session.close()
