"""Torch-TensorRT: what each generation is asked, by its wheels; and on a GPU what comes of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from redline.core.artifact import Engine, Layers
from redline.core.errors import (
    ArtifactError,
    BuildError,
    DataError,
    DeviceError,
    EngineMismatchError,
    InputError,
    MissingDependencyError,
    UnsupportedError,
)
from redline.core.files import sha256_of
from redline.core.plain import to_plain
from redline.core.session import Session, SupportsDeviceTiming, SupportsPhases
from redline.core.tensor import Signature, TensorSpec
from redline.networks.eager import open_torch, save_weights, signature_of
from redline.networks.load import ModelRef, load_model
from redline.networks.torch_tensorrt import (
    BACKEND,
    compile_torch_tensorrt,
    open_saved,
    open_torch_tensorrt,
    refuse_foreign,
)
from redline.networks.torch_tensorrt_inside import calibration_batches, precisions_in
from redline.networks.torch_tensorrt_plan import CompilePlan, TrtPrecision, plan_compile

WHEELS: Mapping[str, Any] = json.loads((Path(__file__).parent / "data" / "torch_tensorrt_signatures.json").read_text())
PRECISIONS: tuple[TrtPrecision, ...] = ("fp32", "tf32", "fp16")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def needs_torch_tensorrt(test: Callable[..., None]) -> Callable[..., None]:
    there = find_spec("torch_tensorrt") is not None and torch.cuda.is_available()
    missing = pytest.mark.skipif(not there, reason="needs torch_tensorrt and an NVIDIA GPU")
    return cast("Callable[..., None]", pytest.mark.gpu(missing(test)))


def version_of(wheel: str) -> tuple[int, int]:
    major, minor = wheel.split(".")[:2]
    return int(major), int(minor)


def known_arguments(wheel: str, plan: CompilePlan) -> list[str]:
    names: list[str] = WHEELS[wheel]["functions"]["ts.compile" if plan.front_end == "ts" else "dynamo.compile"]
    return names


@pytest.mark.parametrize("wheel", WHEELS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_generation_is_asked_by_names_that_it_knows(wheel: str, precision: TrtPrecision) -> None:
    plan = plan_compile(version_of(wheel), precision)
    assert set(plan.arguments) <= set(known_arguments(wheel, plan))


@pytest.mark.parametrize("wheel", WHEELS)
@pytest.mark.parametrize("ir", ["ts", "dynamo"])
def test_fp16_is_asked_for_in_a_way_that_is_not_ignored(wheel: str, ir: Any) -> None:
    try:
        plan = plan_compile(version_of(wheel), "fp16", ir)
    except UnsupportedError:
        assert ir == "ts"
        return
    enabled = "float16" in str(plan.arguments.get("enabled_precisions", ""))
    # Exactly one: a strongly typed engine follows a half module and refuses a list of precisions.
    assert enabled != plan.half
    assert plan.binding == plan.half


@pytest.mark.parametrize("wheel", WHEELS)
def test_the_typing_that_is_asked_for_is_the_one_that_a_generation_has(wheel: str) -> None:
    plan = plan_compile(version_of(wheel), "fp16", "dynamo")
    names = known_arguments(wheel, plan)
    strong = "enabled_precisions" not in names or WHEELS[wheel]["use_explicit_typing_default"] is True
    assert plan.half == strong
    assert ("use_explicit_typing" in plan.arguments) == (strong and "use_explicit_typing" in names)


@pytest.mark.parametrize("wheel", WHEELS)
def test_int8_is_for_generations_with_calibrators(wheel: str) -> None:
    version = version_of(wheel)
    if WHEELS[wheel]["calibrators"]:
        plan = plan_compile(version, "int8", "ts")
        assert plan.calibrates
        assert "calibrator" in known_arguments(wheel, plan)
    else:
        with pytest.raises(UnsupportedError, match="redline build"):
            plan_compile(version, "int8", "ts" if version < (2, 13) else "auto")
    with pytest.raises(UnsupportedError, match="nvidia-modelopt"):
        plan_compile(version, "int8", "dynamo")


@pytest.mark.parametrize("wheel", WHEELS)
def test_what_dynamo_made_is_saved_where_there_is_a_way(wheel: str) -> None:
    plan = plan_compile(version_of(wheel), "fp32", "dynamo")
    names = WHEELS[wheel]["functions"].get("save", [])
    assert plan.saves == bool(names)
    if plan.saves:
        assert {"output_format", "inputs", "retrace"} <= set(names)


def test_fp32_forbids_tf32_and_tf32_allows_it() -> None:
    for wheel in WHEELS:
        assert plan_compile(version_of(wheel), "fp32").arguments["disable_tf32"] is True
        assert plan_compile(version_of(wheel), "tf32").arguments["disable_tf32"] is False


def test_the_front_end_follows_the_version_and_the_model() -> None:
    assert plan_compile((2, 2), "fp32").front_end == "ts"
    assert plan_compile((2, 5), "fp32").front_end == "dynamo"
    assert plan_compile((2, 5), "fp32", scripted=True).front_end == "ts"
    with pytest.raises(UnsupportedError, match="takes no TorchScript"):
        plan_compile((2, 5), "fp32", "dynamo", scripted=True)
    with pytest.raises(UnsupportedError, match="no longer has"):
        plan_compile((2, 13), "fp32", "ts")


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(InputError, match="got precision 'fp8'"):
        plan_compile((2, 13), "fp8")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ir 'fx'"):
        plan_compile((2, 13), "fp16", "fx")  # type: ignore[arg-type]


def test_the_inspector_tells_precisions_or_nothing() -> None:
    def layer(kind: str, tensor: str) -> dict[str, Any]:
        return {"LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": tensor}]}

    told = {
        "Layers": [
            layer("CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
            layer("CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format"),
            layer("gemm", "Row major linear FP32"),
            layer("PointWiseV2", "Row major linear FP32"),
        ]
    }
    assert precisions_in(json.dumps(told)) == ["fp16", "int8", "fp32"]
    for nothing in ("", "[]", "{}", '{"Layers": ["conv1 + relu1"]}'):
        assert precisions_in(nothing) is None


def test_calibration_goes_in_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.arange(10, dtype=np.float32).reshape(5, 2))
    batches = calibration_batches(path, ["x"], 2)
    assert [batch[0].tolist() for batch in batches] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    with pytest.raises(DataError, match="fewer samples than the batch of 6"):
        calibration_batches(path, ["x"], 6)
    with pytest.raises(DataError, match="with image"):
        calibration_batches(path, ["image"], 2)
    path.write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be calibrated on"):
        calibration_batches(path, ["x"], 2)


def saved_engine(folder: Path) -> Engine:
    path = folder / "model.ts"
    path.write_bytes(b"an engine")
    spec = TensorSpec("input", ("batch", 3), "float32")
    engine = Engine(
        path=path,
        sha256=sha256_of(path),
        backend=BACKEND,
        signature=Signature((spec,), (replace(spec, name="output"),)),
        layers=Layers.of({"fp32": 1}),
        platform={"gpu": "NVIDIA H200", "compute_capability": "9.0", "torch": "2.2.2", "torch_tensorrt": "2.2.0"},
        options={"precision": "fp32", "ir": "ts", "half": False, "batch_min": 1, "batch_max": 4, "notes": ""},
    )
    engine.save()
    return engine


def test_another_machines_engine_is_refused_by_everything_that_differs(tmp_path: Path) -> None:
    engine = saved_engine(tmp_path)
    refuse_foreign(engine, engine.platform)
    with pytest.raises(EngineMismatchError, match=r"gpu NVIDIA H200 \(here NVIDIA A100\).*compile it again"):
        refuse_foreign(engine, {**engine.platform, "gpu": "NVIDIA A100"})
    with pytest.raises(EngineMismatchError, match=r"torch_tensorrt 2.2.0 \(here 2.13.0\)"):
        refuse_foreign(engine, {**engine.platform, "torch_tensorrt": "2.13.0"})


def test_a_changed_file_or_another_precision_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    engine = saved_engine(tmp_path)
    with pytest.raises(EngineMismatchError, match="compiled for fp32, got fp16"):
        open_torch_tensorrt({"name": "digits"}, precision="fp16", saved=str(engine.path))
    replace(engine, backend="tensorrt").save()
    with pytest.raises(ArtifactError, match="was made by tensorrt"):
        open_saved(engine.path)
    engine.save()
    engine.path.write_bytes(b"another")
    with pytest.raises(EngineMismatchError, match="sha256"):
        open_saved(engine.path)
    with pytest.raises(ArtifactError, match="is not there"):
        open_saved(tmp_path / "none.ts")


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="torch_tensorrt is installed")
def test_without_the_package_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"redline\[torch-tensorrt\]"):
        open_torch_tensorrt({"name": "digits"})
    with pytest.raises(MissingDependencyError):
        compile_torch_tensorrt({"name": "digits"}, tmp_path / "out.ts")
    with pytest.raises(MissingDependencyError):
        open_saved(saved_engine(tmp_path).path)


@pytest.mark.skipif(
    find_spec("torch_tensorrt") is None or torch.cuda.is_available(), reason="needs torch_tensorrt and no GPU"
)
def test_without_a_gpu_it_says_so_and_does_not_die_of_the_import() -> None:
    with pytest.raises(DeviceError, match="GPU"):
        open_torch_tensorrt({"name": "digits"})


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="needs a GPU"):
        open_torch_tensorrt({"name": "digits"}, device="cpu")
    for batch in ([1, 2], [2, 1, 3], [0, 1, 1]):
        with pytest.raises(InputError, match="smallest, the usual and the largest"):
            open_torch_tensorrt({"name": "digits"}, batch=batch)


class OnGpu:
    """A built-in trained model with its answers on the CPU."""

    def __init__(self, folder: Path) -> None:
        model = load_model("digits")
        self.ref = to_plain(ModelRef("digits"))
        self.weights = str(save_weights(model, folder / "weights.safetensors"))
        self.signature: dict[str, Any] = dict(to_plain(signature_of(model)))
        self.name = model.input_names[0]
        self.shape = tuple(model.example_inputs[0].shape[1:])
        self.cpu = open_torch(self.ref, weights_file=self.weights)

    def inputs(self, batch: int) -> dict[str, Any]:
        return {self.name: np.random.default_rng(batch).random((batch, *self.shape), dtype=np.float32)}

    def arguments(self, **more: Any) -> dict[str, Any]:
        known = {"ref": self.ref, "weights_file": self.weights, "signature": self.signature}
        return json.loads(json.dumps({**known, **more}))  # type: ignore[no-any-return]

    def worst(self, session: Session, batch: int) -> float:
        """The largest error relative to the largest answer."""
        expected, got = self.cpu(self.inputs(batch)), session(self.inputs(batch))
        assert list(got) == list(expected)
        return max(float(np.abs(got[name] - expected[name]).max() / np.abs(expected[name]).max()) for name in expected)


@pytest.fixture
def on_gpu(tmp_path: Path) -> OnGpu:
    return OnGpu(tmp_path)


@needs_torch_tensorrt
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("tf32", 5e-3), ("fp16", 2e-2)])
def test_every_precision_answers_as_the_cpu_does(on_gpu: OnGpu, precision: Any, tolerance: float) -> None:
    session = open_torch_tensorrt(**on_gpu.arguments(precision=precision, batch=[1, 4, 8]))
    assert isinstance(session, SupportsPhases)
    assert isinstance(session, SupportsDeviceTiming)
    for batch in (4, 1, 8):
        assert on_gpu.worst(session, batch) <= tolerance
    if precision != "fp16":
        assert session.layers.precision == precision
    else:
        read = session.layers.precision in ("fp16", "fp32")
        assert read or any("cannot be read" in note for note in session.notes)
    with pytest.raises(InputError, match="compiled for 1 to 8"):
        session(on_gpu.inputs(9))
    assert all(seconds > 0 for seconds in session.device_times(on_gpu.inputs(4), 5))
    session.close()


@needs_torch_tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_was_saved_answers_the_same(on_gpu: OnGpu, precision: Any, tmp_path: Path) -> None:
    out = tmp_path / "model.engine"
    arguments = on_gpu.arguments(precision=precision, batch=[1, 4, 8])
    engine = compile_torch_tensorrt(out=out, **arguments)
    assert engine.platform["gpu"] == torch.cuda.get_device_name(0)
    assert engine.sha256 == sha256_of(out)
    session = open_torch_tensorrt(**arguments, saved=str(out))
    again = open_saved(out, cuda_graph=True)
    assert session.layers == engine.layers
    for batch in (1, 8):
        assert on_gpu.worst(session, batch) <= 2e-2
        one, two = session(on_gpu.inputs(batch)), again(on_gpu.inputs(batch))
        for name, array in one.items():
            np.testing.assert_allclose(array, two[name], rtol=1e-3, atol=1e-3)
    session.close()
    again.close()


@needs_torch_tensorrt
def test_a_foreign_or_broken_file_is_refused(on_gpu: OnGpu, tmp_path: Path) -> None:
    out = tmp_path / "model.engine"
    engine = compile_torch_tensorrt(out=out, **on_gpu.arguments())
    replace(engine, platform={**engine.platform, "gpu": "NVIDIA T4"}).save()
    with pytest.raises(EngineMismatchError, match="NVIDIA T4"):
        open_saved(out)
    engine.save()
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(EngineMismatchError, match="sha256"):
        open_saved(out)


@needs_torch_tensorrt
def test_a_fixed_batch_is_in_the_signature(on_gpu: OnGpu) -> None:
    session = open_torch_tensorrt(**on_gpu.arguments(batch=[3, 3, 3]))
    assert session.signature.fixed_batch == 3
    assert on_gpu.worst(session, 3) <= 1e-4
    session.close()


@needs_torch_tensorrt
def test_int8_is_calibrated_or_refused(on_gpu: OnGpu, tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, **on_gpu.inputs(64))
    arguments = on_gpu.arguments(precision="int8", batch=[1, 8, 8], calibration=str(samples))
    try:
        session = open_torch_tensorrt(**arguments, ir="ts")
    except UnsupportedError as error:
        assert "modelopt" in str(error) or "TensorRT 11" in str(error)
        return
    assert on_gpu.worst(session, 8) <= 0.5
    session.close()


@needs_torch_tensorrt
def test_what_tensorrt_cannot_take_is_a_build_error(tmp_path: Path) -> None:
    factory = tmp_path / "user.py"
    factory.write_text(
        "import torch\nfrom torch import nn\n"
        "class Unique(nn.Module):\n    def forward(self, x):\n        return torch.unique(x)\n"
        "def make():\n    return Unique(), torch.rand(2, 3)\n"
    )
    with pytest.raises(BuildError):
        open_torch_tensorrt({"name": f"{factory}:make"}, batch=[2, 2, 2])
