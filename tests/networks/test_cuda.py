"""PyTorch sessions on a GPU against the same model on the CPU, and what is refused without one."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redline.core.artifact import Layers
from redline.core.errors import BuildError, DeviceError, InputError, SignatureError, UnsupportedError
from redline.core.session import Session, SupportsDeviceTiming, SupportsPhases
from redline.networks.cuda import CudaSession, allow_tf32
from redline.networks.eager import open_model, open_torch, platform
from redline.networks.load import TorchModel, load_model, wrap_module

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
HAS_GPU = torch.cuda.is_available()
AMPERE = HAS_GPU and torch.cuda.get_device_capability() >= (8, 0)


def needs_gpu(test: Callable[..., None]) -> Callable[..., None]:
    missing = pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU that PyTorch can use")
    return cast("Callable[..., None]", pytest.mark.gpu(missing(test)))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(1152, 10)
    )


def image(batch: int) -> dict[str, Any]:
    return {"input": np.random.default_rng(batch).random((batch, 3, 16, 16), dtype=np.float32)}


def worst(got: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest error relative to the largest answer."""
    assert list(got) == list(expected)
    return max(float(np.abs(got[name] - expected[name]).max() / np.abs(expected[name]).max()) for name in expected)


@pytest.fixture
def model() -> TorchModel:
    return wrap_module(small(), torch.rand(1, 3, 16, 16))


@pytest.fixture
def forbidden_again() -> Iterator[None]:
    yield
    allow_tf32(allowed=False)


@pytest.mark.usefixtures("forbidden_again")
def test_old_and_new_switches_of_tf32_agree() -> None:
    for allowed in (True, False, True):
        allow_tf32(allowed=allowed)
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed
        if hasattr(torch.backends.cudnn, "conv"):
            expected = "tf32" if allowed else "ieee"
            assert torch.backends.cuda.matmul.fp32_precision == expected
            assert torch.backends.cudnn.conv.fp32_precision == expected
            assert torch.backends.cudnn.rnn.fp32_precision == expected


def test_switching_tf32_tells_nobody_of_deprecation_even_in_a_fresh_process() -> None:
    code = (
        "from redline.networks.cuda import allow_tf32\nallow_tf32(allowed=True)\nallow_tf32(allowed=False)\n"
        "import torch\nprint(torch.get_float32_matmul_precision())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "highest", "")


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_without_a_gpu_it_says_so(model: TorchModel) -> None:
    for dtype in ("fp32", "tf32", "fp16", "bf16"):
        with pytest.raises(DeviceError, match="GPU|CUDA"):
            open_model(model, device="cuda", dtype=dtype)  # type: ignore[arg-type]
    with pytest.raises(DeviceError):
        platform("cuda")


def test_devices_that_are_none_are_refused(model: TorchModel) -> None:
    for name in ("gpu", "cuda:x", "mps", ""):
        with pytest.raises(InputError, match="expected cpu, cuda or cuda:1"):
            open_model(model, device=name)


def on_gpu(model: TorchModel, **options: Any) -> CudaSession:
    session = open_model(model, device="cuda", **options)
    assert isinstance(session, CudaSession)
    return session


@needs_gpu
@pytest.mark.parametrize("mode", ["eager", "torchscript"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_fp32_is_fp32(model: TorchModel, mode: Any, layout: Any, cuda_graph: bool) -> None:
    cpu = open_model(model)
    session = on_gpu(model, mode=mode, layout=layout, cuda_graph=cuda_graph)
    assert isinstance(session, Session)
    assert isinstance(session, SupportsPhases)
    assert isinstance(session, SupportsDeviceTiming)
    assert session.layers == Layers.of({"fp32": 3})
    for batch in (1, 3, 64, 3):
        assert worst(session(image(batch)), cpu(image(batch))) <= 1e-4
    assert next(model.module.parameters()).device.type == "cpu"
    session.close()


@needs_gpu
@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_what_is_rounded_is_called_so(model: TorchModel, precision: Any, cuda_graph: bool) -> None:
    if precision != "fp16" and not AMPERE:
        pytest.skip("needs compute capability 8.0")
    session = on_gpu(model, dtype=precision, layout="channels_last", cuda_graph=cuda_graph)
    answer = session(image(16))
    error = worst(answer, open_model(model)(image(16)))
    assert session.layers == Layers.of({precision: 3})
    assert answer["output"].dtype == np.float32
    assert 0 < error <= 0.05
    session.close()


@needs_gpu
@pytest.mark.skipif(not AMPERE, reason="needs compute capability 8.0")
def test_sessions_of_both_kinds_keep_their_arithmetic_side_by_side(model: TorchModel) -> None:
    exact, rounded, cpu = on_gpu(model), on_gpu(model, dtype="tf32"), open_model(model)
    for _ in range(3):
        assert worst(exact(image(32)), cpu(image(32))) <= 5e-5 < worst(rounded(image(32)), cpu(image(32)))
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    assert worst(exact(image(32)), cpu(image(32))) <= 5e-5
    exact.close()
    rounded.close()


@needs_gpu
@pytest.mark.slow
def test_compiled_answers_as_eager_does(model: TorchModel) -> None:
    if find_spec("triton") is None:
        with pytest.raises(UnsupportedError, match="pip install 'triton"):
            on_gpu(model, mode="compile")
        return
    cpu = open_model(model)
    for cuda_graph in (False, True):
        session = on_gpu(model, mode="compile", cuda_graph=cuda_graph)
        for batch in (1, 5):
            assert worst(session(image(batch)), cpu(image(batch))) <= 1e-4
        session.close()


@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_outputs_are_the_callers_to_keep(model: TorchModel, cuda_graph: bool) -> None:
    session = on_gpu(model, cuda_graph=cuda_graph)
    kept = [session(image(batch))["output"] for batch in (1, 2, 1, 2)]
    copies = [array.copy() for array in kept]
    kept[0] += 7
    for _ in range(3):
        session(image(1))
        session(image(2))
    np.testing.assert_array_equal(kept[0], copies[0] + 7)
    for array, copy in zip(kept[1:], copies[1:], strict=True):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_allclose(session(image(1))["output"], copies[0], rtol=1e-5, atol=1e-6)
    session.close()


@needs_gpu
def test_inputs_of_every_kind(model: TorchModel) -> None:
    session = on_gpu(model)
    expected = session(image(4))["output"]
    readonly = image(4)["input"]
    readonly.flags.writeable = False
    strided = np.repeat(image(4)["input"], 2, axis=0)[::2]
    pinned = session.allocate_inputs(4)
    pinned["input"][...] = image(4)["input"]
    for inputs in ({"input": readonly}, {"input": strided}, pinned):
        np.testing.assert_allclose(session(inputs)["output"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(SignatureError, match="float64"):
        session({"input": np.zeros((1, 3, 16, 16))})
    session.close()


@needs_gpu
def test_a_module_that_writes_to_its_input_leaves_the_callers_array_alone() -> None:
    session = on_gpu(wrap_module(nn.Sequential(nn.ReLU(inplace=True)), torch.rand(1, 3)), cuda_graph=True)
    for array in (np.full((1, 3), -1, np.float32), session.allocate_inputs(1)["input"]):
        array[...] = -1
        for _ in range(3):
            assert session({"input": array})["output"].max() == 0
            assert array.max() == -1
    session.close()


@needs_gpu
def test_integers_and_nested_answers() -> None:
    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, x: Tensor) -> Any:
            return {"rows": self.table(x), "more": [x + 1, x]}

    model = wrap_module(Answers(), torch.tensor([1, 2]))
    cpu, session = open_model(model), on_gpu(model, dtype="fp16")
    inputs = {"x": np.array([8, 0, 3])}
    expected, got = cpu(inputs), session(inputs)
    assert list(got) == list(expected)
    np.testing.assert_allclose(got["rows"], expected["rows"], atol=1e-2)
    np.testing.assert_array_equal(got["more_0"], expected["more_0"])
    session.close()


@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_phases_and_device_times_are_seconds_of_the_gpus_clock(cuda_graph: bool) -> None:
    session = on_gpu(load_model("resnet18"), cuda_graph=cuda_graph)
    inputs = {"input": np.random.default_rng(0).random((16, 3, 224, 224), dtype=np.float32)}
    inputs = {session.signature.inputs[0].name: inputs["input"]}
    answer, phases = session.run_phases(inputs)
    assert worst(answer, session(inputs)) <= 1e-5
    assert min(phases.host_to_device_s, phases.compute_s, phases.device_to_host_s) > 0
    times = session.device_times(inputs, 20)
    assert len(times) == 20
    assert min(times) > 0
    computing = float(np.median([session.run_phases(inputs)[1].compute_s for _ in range(20)]))
    assert float(np.median(times)) == pytest.approx(computing, rel=0.5)
    session.close()


@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_closing_gives_the_gpus_memory_back(cuda_graph: bool) -> None:
    model = load_model("resnet18")
    on_gpu(model, cuda_graph=cuda_graph).close()
    gc.collect()
    torch.cuda.empty_cache()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(5):
        session = on_gpu(model, cuda_graph=cuda_graph)
        assert torch.cuda.memory_allocated() > before
        session.close()
        session.close()
    assert torch.cuda.memory_allocated() <= before
    assert torch.cuda.memory_reserved() <= reserved
    with pytest.raises(InputError, match="closed"):
        session({session.signature.inputs[0].name: np.zeros((1, 3, 224, 224), np.float32)})


@needs_gpu
def test_what_cannot_be_recorded_says_so() -> None:
    class Peeks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + float(x.sum())

    model = wrap_module(Peeks(), torch.rand(2, 3))
    with pytest.raises(BuildError, match="CUDA graph"):
        on_gpu(model, cuda_graph=True)
    session = on_gpu(model)
    assert session({"x": np.ones((2, 3), np.float32)})["output"].max() == 7
    session.close()


@needs_gpu
def test_a_module_that_insists_on_the_cpu_is_a_build_error() -> None:
    class Insists(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(3, device="cpu").repeat(2, 1)

    with pytest.raises(BuildError, match="does not run on the GPU"):
        on_gpu(wrap_module(Insists(), torch.rand(2, 3)))


@needs_gpu
def test_memory_that_does_not_suffice_says_so() -> None:
    class Greedy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + (torch.empty(1 << 42, device=x.device).sum() if x.is_cuda else 0)

    with pytest.raises(DeviceError, match="memory is full"):
        on_gpu(wrap_module(Greedy(), torch.rand(2, 3)))


@needs_gpu
def test_a_fresh_process_opens_it_from_json() -> None:
    arguments = {"ref": {"name": "digits"}, "dtype": "fp16", "device": "cuda:0", "layout": "channels_last"}
    session = open_torch(**json.loads(json.dumps({**arguments, "cuda_graph": True})))
    assert session.layers.precision == "fp16"
    session.close()


@needs_gpu
def test_platform_names_the_gpu() -> None:
    told = platform("cuda")
    assert told["gpu"] == torch.cuda.get_device_name(0)
    assert told["torch"] == torch.__version__
    with pytest.raises(DeviceError, match="expected cuda:0"):
        platform("cuda:99")
