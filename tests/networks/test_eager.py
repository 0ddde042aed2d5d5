from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redline.core.artifact import Layers
from redline.core.errors import ArtifactError, BuildError, InputError, SignatureError, UnsupportedError
from redline.core.plain import to_plain
from redline.core.session import Session
from redline.networks.eager import load_weights, open_model, open_torch, platform, save_weights, signature_of
from redline.networks.load import load_model, wrap_module
from redline.networks.modes import prepared, runner

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
needs_new_torch = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="this PyTorch is older than those we support"
)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor | None


class Answers(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("constant", torch.ones(3))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 4))


def image(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).random((batch, 3, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("mode", ["eager", "torchscript", pytest.param("compile", marks=pytest.mark.slow)])
def test_every_mode_answers_as_the_module_does(mode: Any) -> None:
    model = wrap_module(small(), torch.rand(1, 3, 8, 8))
    session = open_model(model, mode=mode, threads=torch.get_num_threads())
    assert isinstance(session, Session)
    assert session.signature.inputs[0].shape == ("batch", 3, 8, 8)
    assert session.signature.outputs[0].shape == ("batch", 4)
    assert session.layers == Layers.of({"fp32": 2})
    for batch in (1, 3, 3):
        answer = session({"input": image(batch)})["output"]
        np.testing.assert_allclose(answer, model.module(torch.from_numpy(image(batch))), atol=1e-5)
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session({"input": image(1)})


def test_bf16_is_called_so_and_answers_in_float32() -> None:
    model = wrap_module(small(), torch.rand(1, 3, 8, 8))
    session = open_model(model, dtype="bf16")
    answer = session({"input": image(2)})["output"]
    assert session.layers.precision == "bf16"
    assert answer.dtype == np.float32
    exact = model.module(torch.from_numpy(image(2))).numpy()
    assert not np.array_equal(answer, exact)
    np.testing.assert_allclose(answer, exact, atol=0.05)


@pytest.mark.parametrize("mode", ["eager", "torchscript"])
@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda m, x: (x + 1, x.sum(1)), ["output0", "output1"]),
        (lambda m, x: {"b": x + 1, "a": (x * 2, [x - 1])}, ["b", "a_0", "a_1"]),
        (lambda m, x: Pair(x + 1, None), ["left"]),
    ],
)
def test_nested_answers(mode: Any, function: Any, names: list[str]) -> None:
    session = open_model(wrap_module(Answers(function), torch.rand(1, 3)), mode=mode)
    x = np.ones((2, 3), np.float32)
    answer = session({"x": x})
    assert list(answer) == names
    np.testing.assert_array_equal(answer[names[0]], x + 1)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = torch.zeros(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.scratch.copy_(x)


@pytest.mark.parametrize(
    "module",
    [Answers(lambda m, x: x), Answers(lambda m, x: x[:, :2]), Answers(lambda m, x: m.constant), Reused()],
)
def test_outputs_are_the_callers_to_keep(module: nn.Module) -> None:
    session = open_model(wrap_module(module, torch.rand(2, 3)))
    x = np.zeros((2, 3), np.float32)
    kept, copies = [], []
    for value in range(5):
        x[...] = value
        output = session({"x": x})["output"]
        kept.append(output)
        copies.append(output.copy())
    for output, copied in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(output, copied)
    kept[-1] += 7
    np.testing.assert_array_equal(session({"x": x})["output"], copies[-1])


def test_a_module_that_writes_to_its_input_leaves_the_callers_array_alone() -> None:
    session = open_model(wrap_module(nn.Sequential(nn.ReLU(inplace=True)), torch.rand(1, 3)))
    x = np.full((1, 3), -1, np.float32)
    for _ in range(4):
        assert session({"input": x})["output"].max() == 0
        assert x.max() == -1


def test_arrays_that_torch_cannot_share() -> None:
    session = open_model(wrap_module(nn.Linear(3, 2), torch.rand(1, 3)))
    readonly = np.ones((2, 3), np.float32)
    readonly.flags.writeable = False
    for array in (readonly, np.ones((4, 6), np.float32)[::-2, ::2]):
        for _ in range(3):
            assert session({"input": array})["output"].shape == (2, 2)


def test_inputs_that_do_not_fit_are_refused() -> None:
    session = open_model(wrap_module(nn.Linear(3, 2), torch.rand(1, 3)))
    with pytest.raises(SignatureError, match="float64"):
        session({"input": np.ones((1, 3))})
    with pytest.raises(SignatureError, match="expected"):
        session({"wrong": np.ones((1, 3), np.float32)})


def test_integer_inputs() -> None:
    session = open_model(wrap_module(nn.Embedding(9, 4), torch.tensor([1])))
    assert session.signature.inputs[0].dtype == "int64"
    assert session({"input": np.array([8, 0])})["output"].shape == (2, 4)


def test_a_module_that_takes_one_batch_only_has_it_fixed() -> None:
    signature = signature_of(wrap_module(Answers(lambda m, x: x.view(1, 3)), torch.rand(1, 3)))
    assert signature.inputs[0].shape == (1, 3)
    assert not signature.dynamic_batch


def test_a_module_that_fails_on_its_own_examples() -> None:
    with pytest.raises(InputError, match=r"fails on inputs of shape \(1, 4\): RuntimeError"):
        signature_of(wrap_module(nn.Linear(3, 2), torch.rand(1, 4)))


@pytest.mark.parametrize("function", [lambda m, x: 3, lambda m, x: None])
def test_answers_without_tensors_are_refused(function: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        open_model(wrap_module(Answers(function), torch.rand(1, 3)))


def test_what_torchscript_cannot_take_is_a_build_error() -> None:
    def untraceable(module: nn.Module, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("no tracing here")
        return x

    with pytest.raises(BuildError, match="no tracing here"):
        open_model(wrap_module(Answers(untraceable), torch.rand(1, 3)), mode="torchscript")


@needs_new_torch
def test_compile_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.cpp_builder.cpp_compiler_search", _no_compiler)
    with pytest.raises(UnsupportedError, match="C\\+\\+ compiler"):
        open_model(wrap_module(nn.Linear(3, 2)), mode="compile")


def _no_compiler(search: object) -> str:
    from torch._inductor.exc import InvalidCxxCompiler

    raise InvalidCxxCompiler


def test_a_fresh_process_has_the_same_weights(tmp_path: Path) -> None:
    factory = tmp_path / "user.py"
    factory.write_text(
        "import os, torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(os.getpid())\n    shared = nn.Linear(3, 3)\n"
        "    return nn.Sequential(shared, nn.BatchNorm1d(3), shared)\n"
    )
    model = load_model(f"{factory}:make")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = open_model(model)({"input": x})["output"]
    arguments = {
        "ref": to_plain(model.ref),
        "threads": 1,
        "weights_file": str(save_weights(model, tmp_path / "w.safetensors")),
        "signature": to_plain(signature_of(model)),
    }
    code = (
        "import json, sys, numpy as np\nfrom redline.networks.eager import open_torch\n"
        "session = open_torch(**json.loads(sys.argv[1]))\n"
        "answer = session({'input': np.arange(6, dtype=np.float32).reshape(2, 3)})['output']\n"
        "print(json.dumps(answer.tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-6)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = save_weights(wrap_module(nn.Linear(3, 2)), tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="another model"):
        load_weights(wrap_module(nn.Linear(4, 2)), path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_weights(wrap_module(nn.Linear(3, 2)), path)


@needs_new_torch
def test_saved_programs_are_sessions_too(tmp_path: Path) -> None:
    module, x = small().eval(), torch.rand(2, 3, 8, 8)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "two.pt2")
    torch.jit.save(torch.jit.freeze(torch.jit.trace(module, x)), tmp_path / "small.ts")
    for mode in ("eager", "torchscript"):
        session = open_torch({"name": str(tmp_path / "two.pt2")}, mode)  # type: ignore[arg-type]
        assert session.signature.fixed_batch == 2
        np.testing.assert_allclose(session({"input": x.numpy()})["output"], module(x).detach(), atol=1e-5)
        assert session.layers == Layers.of({"fp32": 2})


def test_platform_names_the_library() -> None:
    assert platform()["torch"] == torch.__version__


def test_channels_last_answers_the_same() -> None:
    model = wrap_module(small(), torch.rand(1, 3, 8, 8))
    session = open_model(model, layout="channels_last")
    assert session.layers == Layers.of({"fp32": 2})
    for batch in (2, 1, 2, 3):
        expected = model.module(torch.from_numpy(image(batch)))
        np.testing.assert_allclose(session({"input": image(batch)})["output"], expected, atol=1e-5)


def test_outputs_of_channels_last_are_the_callers_to_keep() -> None:
    session = open_model(wrap_module(Answers(lambda m, x: x), torch.rand(2, 3, 4, 4)), layout="channels_last")
    x = np.zeros((2, 3, 4, 4), np.float32)
    kept = []
    for value in range(5):
        x[...] = value
        kept.append(session({"x": x})["output"])
    assert [float(array.max()) for array in kept] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "fp16"}, "slow in fp16 on a CPU"),
        ({"dtype": "tf32"}, "NVIDIA's GPUs"),
        ({"cuda_graph": True}, "needs a GPU"),
    ],
)
def test_what_only_a_gpu_can_do_is_refused_on_the_cpu(options: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        open_model(wrap_module(nn.Linear(3, 2)), **options)


def test_unknown_choices_are_refused() -> None:
    for options in ({"dtype": "fp64"}, {"mode": "fast"}, {"layout": "nhwc"}):
        with pytest.raises(InputError, match=next(iter(options.values()))):
            open_model(wrap_module(nn.Linear(3, 2)), **options)  # type: ignore[arg-type]


@pytest.mark.skipif(find_spec("triton") is not None, reason="Triton is installed")
def test_compiling_for_a_gpu_asks_for_triton_and_no_compiler() -> None:
    module = nn.Linear(3, 2)
    model = wrap_module(module, torch.rand(1, 3))
    with pytest.raises(UnsupportedError, match="pip install 'triton"):
        runner("compile", module, model.example_inputs, model, torch.device("cuda", 0))


@needs_new_torch
def test_saved_programs_move_with_the_devices_that_are_written_into_them(tmp_path: Path) -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + torch.arange(3)

    x, there = torch.rand(2, 3), torch.device("meta")
    torch.export.save(torch.export.export(Places().eval(), (x,)), tmp_path / "places.pt2")
    module = load_model(str(tmp_path / "places.pt2")).module
    moved = prepared(module, there, None, channels_last=False)
    assert moved(x.to(there)).device == there
    assert module(x).device.type == "cpu"
    for dtype, channels_last, name in ((torch.float16, False, "fp16"), (None, True, "channels_last")):
        with pytest.raises(UnsupportedError, match=f"{name} needs the module"):
            prepared(module, there, dtype, channels_last=channels_last)
