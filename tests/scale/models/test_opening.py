"""Which file answers, and that one warning says why it is not the engine."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.onnx_models import conv_model
from tests.scale.models.yolo_tools import SIDE_PX, bright_model, image_with, touch

from redline.backends import nvidia
from redline.core.artifact import Engine, Layers
from redline.core.errors import DeviceError, EngineMismatchError, InputError, MissingDependencyError, RedlineError
from redline.core.host import cpu_info
from redline.core.tensor import Array
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx
from scale.models import opening
from scale.models.conversion import ConvertOptions
from scale.models.convert import convert
from scale.models.files import MissingModelError
from scale.models.loaded import OpenFile, loaded
from scale.models.opening import FallbackWarning, open_model
from scale.models.places import Place
from scale.models.spec import ModelSpec

IMAGE = image_with((1, 2, 0), (5, 6, 1))
needs_no_ultralytics = pytest.mark.skipif(find_spec("ultralytics") is not None, reason="ultralytics is here")
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx_bindings") is None, reason="needs TensorRT-RTX's wheels")


def spec(path: Path, **changes: Any) -> ModelSpec:
    return ModelSpec(**({"name": "colours", "path": path, "class_names": {0: "Red"}} | changes))


def reds(opened: opening.OpenModel, image: Array = IMAGE) -> list[list[float]]:
    return opened([image])[0].boxes.tolist()


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return bright_model(tmp_path / "m.onnx")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Engines of any content open as the ONNX file beside them; says how they were asked for."""
    asked: dict[str, Any] = {}

    def open_engine_file(path: Path, *, device: int = 0) -> OpenFile:
        asked.update(path=path, device=device)
        content = path.read_bytes()
        if content != b"good":
            raise EngineMismatchError(f"{path.name}: TensorRT cannot load it: {content.decode()}")
        model = read_onnx(path.with_suffix(".onnx"))
        return OpenFile(session=open_onnx(model), usage=model.usage, runtime="tensorrt", precision="fp16")

    monkeypatch.setattr(opening, "open_engine_file", open_engine_file)
    return asked


def engine(path: Path, content: bytes = b"good", *, at_s: int = 2_000_000_000) -> Path:
    path.write_bytes(content)
    return touch(path, at_s=at_s)


def test_an_engine_beside_the_model_answers_without_a_word(
    onnx: Path, gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "device_count", lambda: 2)
    engine(onnx.with_suffix(".engine"))
    opened = open_model(spec(onnx), device="cuda:1", fallback=False, engine="expected")
    assert (opened.runtime, opened.precision, opened.notes) == ("tensorrt", "fp16", ())
    assert opened.origin.path == onnx.with_suffix(".engine")
    assert gpu["device"] == 1
    assert reds(opened) == [[8, 16, 16, 24]]
    opened.close()


def test_a_model_whose_file_is_gone_answers_by_its_engine(onnx: Path, gpu: dict[str, Any]) -> None:
    engine(onnx.with_suffix(".engine"))
    opened = open_model(spec(onnx.with_suffix(".pt")), fallback=False)
    assert (opened.runtime, opened.notes) == ("tensorrt", ())
    opened.close()


def test_the_second_engine_answers_where_the_first_cannot(onnx: Path, gpu: dict[str, Any]) -> None:
    engine(onnx.with_suffix(".engine"), b"of another GPU")
    engine(onnx.with_suffix(".plan"))
    opened = open_model(spec(onnx), fallback=False)
    assert opened.origin.path.suffix == ".plan"
    opened.close()


@pytest.mark.parametrize("named", [".onnx", ".engine", ".pt"])
def test_an_engine_that_does_not_load_is_replaced_with_one_warning(onnx: Path, gpu: dict[str, Any], named: str) -> None:
    engine(onnx.with_suffix(".engine"), b"made for sm89")
    with pytest.warns(FallbackWarning) as told:
        opened = open_model(spec(onnx.with_suffix(named)), engine="expected")
    assert len(told) == 1
    message = str(told[0].message)
    assert "m.engine: TensorRT cannot load it: made for sm89" in message
    assert message.startswith(f"m{named} is run by onnxruntime")
    assert opened.notes[0] == message
    assert opened.runtime == "onnxruntime"
    assert reds(opened) == [[8, 16, 16, 24]]
    opened.close()


def test_an_engine_older_than_its_model_is_stale(onnx: Path, gpu: dict[str, Any]) -> None:
    engine(onnx.with_suffix(".engine"), at_s=1000)
    with pytest.warns(FallbackWarning, match=r"m\.engine is older than m\.onnx; type: scale convert --model .*m\.onnx"):
        open_model(spec(onnx)).close()
    with pytest.raises(EngineMismatchError, match=r"m\.engine is older than m\.onnx"):
        open_model(spec(onnx), fallback=False)


def test_an_engine_that_gives_no_numbers_is_replaced(
    onnx: Path, gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(onnx.with_suffix(".engine"))
    model = read_onnx(onnx)

    class Overflowing:
        signature = model.signature
        closed = False

        def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
            return {"output0": np.full((len(inputs["images"]), 6, 64), np.inf, np.float32)}

        def close(self) -> None:
            Overflowing.closed = True

    broken = OpenFile(session=Overflowing(), usage=model.usage, runtime="tensorrt", precision="fp16")
    monkeypatch.setattr(opening, "open_engine_file", lambda path, *, device: broken)
    with pytest.warns(FallbackWarning, match="output0 is not finite; build it again in float32"):
        open_model(spec(onnx)).close()
    assert Overflowing.closed


def test_a_gpu_that_is_asked_for_is_used_or_missed_aloud(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="got device 'cuda', and this machine has no NVIDIA GPU; take auto or cpu"):
        open_model(spec(onnx), device="cuda")
    open_model(spec(onnx), device="auto").close()
    monkeypatch.setattr(nvidia, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="got device 'cuda:1', and this machine has 1 NVIDIA GPU, counted from 0"):
        open_model(spec(onnx), device="cuda:1")
    with pytest.warns(FallbackWarning, match=r"m\.onnx is run by onnxruntime: on the CPU, since "):
        opened = open_model(spec(onnx), device="cuda", onnx_runtime="onnxruntime")
    assert len(opened.notes) == 1
    opened.close()


def test_without_an_engine_only_those_who_expect_one_are_warned(onnx: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_model(spec(onnx)).close()
        open_model(spec(onnx), engine="never").close()
        open_model(spec(onnx), engine="expected", device="cpu").close()
    with pytest.warns(FallbackWarning, match=r"there is no m\.engine or m\.plan \(type: scale convert --model"):
        open_model(spec(onnx), engine="expected").close()


def test_without_fallback_a_missing_engine_is_an_error_that_says_what_to_type(onnx: Path) -> None:
    with pytest.raises(MissingModelError, match=r"no m\.engine or m\.plan \(type: scale convert"):
        open_model(spec(onnx), fallback=False, engine="expected")
    with pytest.raises(FileNotFoundError):
        open_model(spec(onnx), fallback=False)


def test_without_fallback_every_engine_that_failed_is_named(onnx: Path, gpu: dict[str, Any]) -> None:
    engine(onnx.with_suffix(".engine"), b"reason one")
    engine(onnx.with_suffix(".plan"), b"reason two")
    with pytest.raises(EngineMismatchError, match=r"reason one; m\.plan: .*reason two"):
        open_model(spec(onnx), fallback=False)


@needs_rtx
def test_a_real_engine_for_another_gpu_is_foreign_and_a_changed_one_corrupt(onnx: Path) -> None:
    assert convert(models=[onnx], options=ConvertOptions(target="sm89", batch=2)).passed
    path = onnx.with_suffix(".engine")
    with pytest.warns(FallbackWarning, match=r"m\.engine was compiled for|m\.engine.*sm89|compute capability"):
        open_model(spec(onnx)).close()
    good = path.read_bytes()
    for broken in (good[:-1], good[:1000], b"", good + b"x"):
        path.write_bytes(broken)
        with pytest.warns(FallbackWarning, match=r"m\.engine has sha256 .*build the engine again"):
            open_model(spec(onnx)).close()
    path.write_bytes(good)
    bright_model(onnx, gain=30)
    with pytest.warns(FallbackWarning, match=r"m\.engine was made of another m\.onnx than the one beside it"):
        open_model(spec(onnx)).close()
    Engine.described(path).sidecar.write_text("{")
    with pytest.warns(FallbackWarning, match="is not an engine description"):
        open_model(spec(onnx)).close()


def test_an_empty_engine_without_a_description_is_corrupt(onnx: Path) -> None:
    engine(onnx.with_suffix(".engine"), b"")
    with pytest.warns(FallbackWarning, match="has 0 bytes, which is no engine"):
        open_model(spec(onnx)).close()


def test_a_missing_model_is_named_at_first_use(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"m\.pt is not there, nor is an \.onnx"):
        open_model(spec(tmp_path / "m.pt"))


def test_what_answers_for_a_file_that_is_gone_is_told(onnx: Path) -> None:
    with pytest.warns(FallbackWarning, match=r"m\.pt is run by onnxruntime \(m\.onnx\): m\.pt is not there"):
        open_model(spec(onnx.with_suffix(".pt"))).close()


@needs_no_ultralytics
def test_a_pt_file_alone_needs_ultralytics(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"weights")
    with pytest.raises(MissingDependencyError, match=r"pip install 'redline\[yolo\]'"):
        open_model(spec(tmp_path / "m.pt"))


@needs_no_ultralytics
def test_an_onnx_file_older_than_its_pt_file_does_not_answer_for_it(onnx: Path) -> None:
    touch(onnx.with_suffix(".pt"), at_s=2_000_000_000)
    with pytest.raises(RedlineError, match=r"m\.onnx is older than m\.pt; export it again; .*ultralytics"):
        open_model(spec(onnx.with_suffix(".pt")))
    open_model(spec(onnx)).close()  # who names the ONNX file gets it
    touch(onnx.with_suffix(".pt"), at_s=1)
    open_model(spec(onnx.with_suffix(".pt"))).close()


def test_a_pt_file_that_answers_for_itself_is_nothing_to_warn_of(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = touch(onnx.with_suffix(".pt"), at_s=2_000_000_000)  # the ONNX file is stale

    def open_torch(request: opening._Request, path: Path, runtime: str) -> opening.OpenModel:
        model = read_onnx(onnx)
        opened = OpenFile(session=open_onnx(model), usage=model.usage, runtime=runtime, precision="fp32")
        return loaded(request.spec, path, opened)

    monkeypatch.setattr(opening, "_open_torch", open_torch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_model(spec(weights), engine="never")
    assert opened.notes == ("m.pt is run by torch: m.onnx is older than m.pt; export it again",)
    opened.close()
    with pytest.warns(FallbackWarning, match=r"there is no m\.engine"):
        open_model(spec(weights), engine="expected").close()


def test_an_engine_alone_that_may_not_be_used(tmp_path: Path) -> None:
    engine(tmp_path / "m.engine")
    with pytest.raises(MissingModelError, match=r"is an engine; beside it is no \.onnx or \.pt"):
        open_model(spec(tmp_path / "m.engine"), device="cpu")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"device": "gpu"}, "got device 'gpu', expected auto, cpu, cuda or cuda:1"),
        ({"engine": "yes"}, "engine is 'yes', expected one of if-there"),
        ({"onnx_runtime": "tflite"}, "onnx_runtime is 'tflite'"),
        ({"cpu_precision": "int8"}, "cpu_precision is 'int8', expected one of fp32, bf16"),
        ({"engine": "never", "fallback": False}, "no engine is to be used"),
        ({"device": "cpu", "fallback": False}, "device cpu runs no engine"),
    ],
)
def test_what_cannot_be_asked_for(onnx: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_model(spec(onnx), **arguments)


def test_openvino_where_it_is_asked_for(onnx: Path) -> None:
    pytest.importorskip("openvino")
    opened = open_model(spec(onnx), onnx_runtime="openvino", threads=1)
    assert opened.runtime == "openvino"
    assert reds(opened) == [[8, 16, 16, 24]]
    opened.close()


def test_several_threads_may_call_openvino_at_one_time(onnx: Path) -> None:
    pytest.importorskip("openvino")
    opened = open_model(spec(onnx), onnx_runtime="openvino", cpu_calls=2)
    image = image_with((8, 16, 0))
    alone = opened([image])[0]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: opened.detector([image])[0], range(40)):
            assert found.boxes.tolist() == alone.boxes.tolist()
    opened.close()


@pytest.mark.skipif("avx512_bf16" not in cpu_info()[1], reason="this processor has no bf16")
def test_bf16_is_asked_for_and_told(onnx: Path) -> None:
    pytest.importorskip("openvino")
    opened = open_model(spec(onnx), cpu_precision="bf16")
    assert (opened.runtime, opened.precision, opened.notes) == ("openvino", "bf16", ())
    assert reds(opened) == [[8, 16, 16, 24]]
    opened.close()


def test_a_processor_without_bf16_is_told(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("redline.backends.openvino")
    monkeypatch.setattr(openvino, "_layers", lambda _: Layers.of({"fp32": 2}))
    with pytest.warns(FallbackWarning, match="in fp32, since this processor has no bf16"):
        opened = open_model(spec(onnx), cpu_precision="bf16")
    assert opened.precision == "fp32"
    opened.close()


def test_an_int8_file_does_not_speak_for_the_processor(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("redline.backends.openvino")
    monkeypatch.setattr(openvino, "_layers", lambda _: Layers.of({"int8": 2}))
    opened = open_model(spec(onnx), cpu_precision="bf16")
    assert (opened.precision, opened.notes) == ("int8", ())
    opened.close()


def test_classes_are_counted_by_what_was_asked_for(tmp_path: Path) -> None:
    path = bright_model(tmp_path / "m.onnx", names=("Red", "Green", "Blue"))
    opened = open_model(spec(path, class_names={2: "Sky", 0: "Fire"}))
    assert opened.names == ("Fire", "Sky")
    found = opened([image_with((0, 0, 0), (1, 0, 1), (2, 0, 2))])[0]
    assert sorted(zip(found.boxes[:, 0].tolist(), found.classes.tolist(), strict=True)) == [(0.0, 0), (16.0, 1)]
    opened.close()
    opened = open_model(spec(path, class_names={}))
    assert opened.names == ("Red", "Green", "Blue")
    opened.close()
    opened = open_model(spec(path, class_names={0: "Warm", 1: "Warm", 2: "Cold"}))
    found = opened([image_with((0, 0, 0), (1, 0, 1), (2, 0, 2))])[0]
    assert opened.names == ("Warm", "Cold")
    assert sorted(found.classes.tolist()) == [0, 0, 1]
    opened.close()


def test_classes_that_the_file_has_not_or_calls_otherwise_are_told(onnx: Path) -> None:
    with pytest.raises(InputError, match=r"has no class 5; m\.onnx has 2: Red, Green"):
        open_model(spec(onnx, class_names={5: "Red"}))
    opened = open_model(spec(onnx, class_names={0: "Green", 1: "Red"}))
    assert opened.notes == (
        "m.onnx calls its class 1 'Green', and class 0 was asked for by that name",
        "m.onnx calls its class 0 'Red', and class 1 was asked for by that name",
    )
    opened.close()


def test_a_file_that_says_nothing_about_itself(tmp_path: Path) -> None:
    path = bright_model(tmp_path / "m.onnx", told=False)
    with pytest.raises(InputError, match=r"m\.onnx names no classes; name them"):
        open_model(spec(path, class_names={}))
    opened = open_model(spec(path))
    assert reds(opened) == [[8, 16, 16, 24]]
    opened.close()


def test_the_size_of_the_input(tmp_path: Path) -> None:
    fixed = bright_model(tmp_path / "fixed.onnx")
    with pytest.raises(InputError, match="takes images of 64x64 px, got input 640"):
        open_model(spec(fixed, input_px=640))
    for name, told in (("told", True), ("silent", False)):
        path = bright_model(tmp_path / f"{name}.onnx", side="side", told=told)
        opened = open_model(spec(path, input_px=SIDE_PX))
        assert opened.detector.input_hw == (SIDE_PX, SIDE_PX)
        assert reds(opened) == [[8, 16, 16, 24]]
        opened.close()


@pytest.mark.parametrize(("fixed", "asked", "batch"), [("batch", 3, 3), (2, 3, 2), (4, 3, 3)])
def test_any_number_of_images_in_batches(tmp_path: Path, fixed: int | str, asked: int, batch: int) -> None:
    opened = open_model(spec(bright_model(tmp_path / "m.onnx", batch=fixed), batch=asked))
    assert opened.batch == batch
    images = [image_with((index, 0, 0)) for index in range(7)]
    assert [found.boxes[0, 0] for found in opened(images)] == [8.0 * index for index in range(7)]
    assert opened([]) == []
    opened.close()


def test_confidence_is_the_specs(onnx: Path) -> None:
    dim = (image_with((1, 2, 0)) * 0.55).astype(np.uint8)
    for confidence, count in ((0.5, 1), (0.9, 0)):
        opened = open_model(spec(onnx, confidence=confidence))
        assert len(reds(opened, dim)) == count
        opened.close()


def test_a_model_that_does_not_detect_is_closed_and_refused(tmp_path: Path) -> None:
    model = read_onnx(conv_model(tmp_path / "m.onnx"))

    class Watched:
        signature = model.signature
        closed = False

        def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
            raise AssertionError(inputs)

        def close(self) -> None:
            Watched.closed = True

    with pytest.raises(InputError, match="those of no detector"):
        loaded(
            spec(tmp_path / "m.onnx"),
            tmp_path / "m.onnx",
            OpenFile(
                session=Watched(),
                usage=replace(model.usage, class_names=("a",) * 5),
                runtime="onnxruntime",
                precision="fp32",
            ),
        )
    assert Watched.closed


def test_on_a_gpu_pytorch_goes_before_onnx_on_the_cpu(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(onnx.with_suffix(".pt"), at_s=1)
    tried: list[str] = []
    monkeypatch.setattr(opening._Request, "try_to_open", lambda _self, candidate: tried.append(candidate[1]))
    for runtimes in (["onnxruntime-cuda", "onnxruntime"], ["onnxruntime"]):
        monkeypatch.setattr(Place, "onnx_runtimes", lambda _self, told=runtimes: told)
        monkeypatch.setattr(opening, "place_of", lambda _device: Place(cpu_wanted=False, on_gpu=True))
        with pytest.raises(MissingModelError):
            open_model(spec(onnx.with_suffix(".pt")))
    assert tried == ["onnxruntime-cuda", "torch", "onnxruntime", "torch", "onnxruntime"]
