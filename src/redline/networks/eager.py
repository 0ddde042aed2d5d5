"""PyTorch itself as a session: eager, compiled, or TorchScript; fp32 that is fp32."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from redline.core.artifact import Layers
from redline.core.errors import ArtifactError, BuildError, InputError, UnsupportedError
from redline.core.files import whole_file
from redline.core.tensor import Array, Dim, Signature, TensorSpec
from redline.formats.torch_values import FlatOutputs, at_batch, batch_size_of, has_batch, named_tensors
from redline.networks.load import ModelRef, TorchModel, load_model
from redline.networks.sources import first_line

Mode = Literal["eager", "compile", "torchscript"]
Dtype = Literal["fp32", "bf16"]
_COMPUTE_TARGETS = ("conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "matmul", "mm.", "bmm")
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.qint8: "int8"}


class TorchSession:
    """A torch module that answers; the number of threads is set for the whole process.

    ``layers`` counts the convolutions, matrix products and recurrent layers by the type of their weights.
    """

    def __init__(self, run: Callable[..., Any], model: TorchModel, signature: Signature, dtype: Dtype) -> None:
        self.signature = signature
        self.layers = Layers.of({})
        self._run: Callable[..., Any] | None = run
        self._names = tuple(spec.name for spec in signature.outputs)
        self._input_names = tuple(spec.name for spec in signature.inputs)
        self._reduced = torch.bfloat16 if dtype == "bf16" else None
        self._held = _storages((*model.module.parameters(), *model.module.buffers()))
        self._first_outputs: list[Tensor] | None = None
        self._calls = 0
        self._writes_inputs = False
        self._reuses_outputs = False

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once, without autograd and autocast; the outputs share memory with nothing that is used again."""
        self.signature.check(inputs)
        run = self._run
        if run is None:
            raise InputError("the session is closed; open it again")
        if self._calls < 2:
            return self._careful_call(run, inputs)
        with torch.inference_mode():
            tensors = [self._tensor(inputs[name]) for name in self._input_names]
            outputs = self._outputs(run(*tensors))
            return self._arrays(outputs, tensors)

    def close(self) -> None:
        """Free the module."""
        self._run = None
        self._first_outputs = None

    def _careful_call(self, run: Callable[..., Any], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The first two calls find out whether the module writes to its inputs or reuses its outputs' memory."""
        # Made outside inference mode, where tensors do not count the writes to them.
        tensors = [self._tensor(inputs[name]).clone() for name in self._input_names]
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            versions = [tensor._version for tensor in tensors]  # noqa: SLF001 (there is no public way)
            outputs = self._outputs(run(*tensors))
            self._calls += 1
            if versions != [tensor._version for tensor in tensors]:  # noqa: SLF001
                self._writes_inputs = True
            if self._first_outputs is not None:
                pairs = zip(outputs, self._first_outputs, strict=True)
                self._reuses_outputs = any(new.data_ptr() == old.data_ptr() and new.numel() for new, old in pairs)
            self._first_outputs = outputs if self._calls == 1 else None
            return {name: _to_numpy(tensor).copy() for name, tensor in zip(self._names, outputs, strict=True)}

    def _tensor(self, array: Array) -> Tensor:
        if self._writes_inputs or not array.flags.writeable or not array.flags.c_contiguous:
            array = array.copy()
        tensor = torch.from_numpy(array)
        if self._reduced is None or not tensor.is_floating_point():
            return tensor
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(self._reduced, memory_format=layout)

    def _outputs(self, value: Any) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        found = list(named_tensors(value, self._input_names).values())
        if len(found) != len(self._names):
            raise InputError(f"the model answered with {len(found)} tensors, expected {', '.join(self._names)}")
        return found

    def _arrays(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> dict[str, Array]:
        shared = self._held.union(tensor.untyped_storage().data_ptr() for tensor in inputs)
        arrays: dict[str, Array] = {}
        for name, tensor in zip(self._names, outputs, strict=True):
            if self._reuses_outputs or tensor.untyped_storage().data_ptr() in shared:
                tensor = tensor.clone()
            arrays[name] = _to_numpy(tensor)
        return arrays


def open_torch(
    ref: Mapping[str, Any],
    mode: Mode = "eager",
    threads: int = 0,
    dtype: Dtype = "fp32",
    weights_file: str | None = None,
    signature: Mapping[str, Any] | None = None,
) -> TorchSession:
    """Load a model and open it, from JSON values only, so that a fresh process can.

    Args:
        ref: A :class:`ModelRef` as JSON.
        mode: ``eager``, ``compile`` (torch.compile with inductor) or ``torchscript``.
        threads: Intra-op threads of this process; 0 leaves them as they are.
        dtype: ``bf16`` converts weights and inputs; outputs are float32 again.
        weights_file: What :func:`save_weights` wrote, so that every process has the same random weights.
        signature: As JSON; with it nothing needs to be run to find the outputs.
    """
    model = load_model(ModelRef.from_json(ref))
    if weights_file is not None and not model.from_file:
        load_weights(model, Path(weights_file))
    known = Signature.from_json(cast("Any", signature)) if signature is not None else None
    return open_model(model, mode=mode, threads=threads, dtype=dtype, signature=known)


def open_model(
    model: TorchModel,
    *,
    mode: Mode = "eager",
    threads: int = 0,
    dtype: Dtype = "fp32",
    signature: Signature | None = None,
) -> TorchSession:
    """Open a loaded model; ``model`` itself stays as it is.

    Raises:
        BuildError: torch.compile or TorchScript cannot take this model.
        UnsupportedError: this machine lacks what the mode needs.
    """
    if mode not in get_args(Mode) or dtype not in get_args(Dtype):
        raise InputError(f"got mode {mode!r} and dtype {dtype!r}, expected {get_args(Mode)} and {get_args(Dtype)}")
    if threads > 0:
        torch.set_num_threads(threads)
    _forbid_tf32()
    signature = signature or signature_of(model)
    module = model.module
    examples = model.example_inputs
    if dtype == "bf16":
        module, examples = _to_bf16(module), tuple(_reduced(tensor) for tensor in examples)
    run: Callable[..., Any] = module
    if mode == "compile":
        run = _compiled(module)
    elif mode == "torchscript":
        run = _torchscript(module, examples, model)
    session = TorchSession(run, model, signature, dtype)
    session.layers = layers_of(module)
    return session


def signature_of(model: TorchModel) -> Signature:
    """What the model takes and gives, found by running it at two batch sizes.

    A size that follows the batch is called ``batch``; a model that answers at its examples' batch only is fixed there.
    """
    batch = batch_size_of(model.example_inputs)
    sizes = (2, 3) if model.fixed_batch is None and batch is not None else ()
    try:
        with torch.inference_mode():
            answers = [_answer(model, at_batch(model.example_inputs, size)) for size in sizes]
    except Exception:  # noqa: BLE001 (the user's code: any failure means that it takes one batch only)
        answers = []
    dynamic = len(answers) == 2
    if not answers:
        answers = [_first_answer(model)] * 2
    outputs = []
    for name, small in answers[0].items():
        large = answers[1].get(name, small)
        outputs.append(TensorSpec(name, _dims(name, small, large), _dtype_name(small)))
    inputs = []
    for name, tensor in zip(model.input_names, model.example_inputs, strict=True):
        rest = tuple(tensor.shape[1:])
        moves = dynamic and has_batch(tensor, batch)
        inputs.append(TensorSpec(name, ("batch", *rest) if moves else tuple(tensor.shape), _dtype_name(tensor)))
    return Signature(tuple(inputs), tuple(outputs))


def layers_of(module: nn.Module) -> Layers:
    """Count convolutions, linear, recurrent and attention layers by the type of their weights."""
    counts: Counter[str] = Counter()
    for layer in module.modules():
        kind = getattr(layer, "original_name", type(layer).__name__)
        compute = isinstance(layer, nn.Linear | nn.RNNBase | nn.MultiheadAttention | nn.modules.conv._ConvNd)  # noqa: SLF001
        if not compute and not (isinstance(layer, torch.jit.ScriptModule) and kind.startswith(("Conv", "Linear"))):
            continue
        weight = next(layer.parameters(recurse=False), None)
        if weight is not None:
            counts[_PRECISIONS.get(weight.dtype, "fp32")] += 1
    if not counts and isinstance(module, torch.fx.GraphModule):
        dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
        calls = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
        counts[_PRECISIONS.get(dtype, "fp32")] = sum(any(t in call for t in _COMPUTE_TARGETS) for call in calls)
    return Layers.of(counts)


def platform() -> dict[str, str]:
    """What a torch session's speed depends on: library, device, the instructions it may use."""
    return {"torch": torch.__version__, "device": "cpu", "cpu": torch.backends.cpu.get_cpu_capability()}


def save_weights(model: TorchModel, path: Path) -> Path:
    """Write every parameter and buffer, saved or not by ``state_dict``, as safetensors; whole or not at all."""
    with whole_file(path) as scratch:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in _state(model).items()}, scratch)
    return path


def load_weights(model: TorchModel, path: Path) -> None:
    """Copy what :func:`save_weights` wrote into the model.

    Raises:
        ArtifactError: the file is missing or broken, or belongs to another model.
    """
    try:
        saved = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as weights: {first_line(error)}") from error
    state = _state(model)
    wrong = sorted(set(saved) ^ set(state)) or [name for name in state if saved[name].shape != state[name].shape]
    if wrong:
        raise ArtifactError(f"{path} holds the weights of another model ({wrong[0]} differs)")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(saved[name])


def _state(model: TorchModel) -> dict[str, Tensor]:
    return dict([*model.module.named_parameters(), *model.module.named_buffers()])


def _forbid_tf32() -> None:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _to_bf16(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise UnsupportedError("a saved program keeps its own types; bf16 needs the module that it was made from")
    reduced = copy.deepcopy(module).to(torch.bfloat16)
    return cast("nn.Module", reduced.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def _reduced(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def _compiled(module: nn.Module) -> Callable[..., Any]:
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("torch.compile does not compile TorchScript; give the module or a .pt2 file")
    # Importing these takes seconds and memory that the other modes should not be charged with.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config, cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, OSError) as error:
        raise UnsupportedError("torch.compile needs a C++ compiler (g++ or clang++), and there is none") from error
    # In this process: a pool of compilers would outlive the session and share its processor.
    config.compile_threads = 1
    compiled = torch.compile(module, dynamic=False, options={"freezing": True})

    def run(*tensors: Tensor) -> Any:
        try:
            return compiled(*tensors)
        except TorchDynamoException as error:
            cause = error.__cause__ or getattr(error, "inner_exception", None) or error
            raise BuildError(f"torch.compile failed: {type(cause).__name__}: {first_line(cause)}") from error

    return run


def _torchscript(module: nn.Module, examples: Sequence[Tensor], model: TorchModel) -> Callable[..., Any]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        scripted = module if isinstance(module, torch.jit.ScriptModule) else _scripted(module, examples, model)
        try:
            frozen = torch.jit.freeze(scripted.eval())
        except RuntimeError:
            frozen = scripted  # it was frozen before it was saved
        try:
            return cast("Callable[..., Any]", torch.jit.optimize_for_inference(frozen))
        except RuntimeError:
            return cast("Callable[..., Any]", frozen)


def _scripted(module: nn.Module, examples: Sequence[Tensor], model: TorchModel) -> Any:
    flat = FlatOutputs(module, model.input_names)
    try:
        return torch.jit.trace(flat, tuple(examples), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    except Exception as traced:  # noqa: BLE001 (whatever the user's code raises under the tracer)
        try:
            return torch.jit.script(module)
        except Exception as error:
            raise BuildError(
                f"TorchScript can neither trace it ({first_line(traced)}) nor script it ({first_line(error)})"
            ) from error


def _answer(model: TorchModel, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    # Copies, as a module may write to its inputs.
    return named_tensors(model.module(*[tensor.clone() for tensor in inputs]), model.input_names)


def _first_answer(model: TorchModel) -> dict[str, Tensor]:
    try:
        with torch.inference_mode():
            return _answer(model, model.example_inputs)
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in model.example_inputs)
        raise InputError(
            f"{model.ref.name} fails on inputs of shape {shapes}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _dims(name: str, small: Tensor, large: Tensor) -> tuple[Dim, ...]:
    if small.ndim != large.ndim:
        return tuple(f"{name}_{axis}" for axis in range(small.ndim))
    return tuple(
        a if a == b else ("batch" if (a, b) == (2, 3) else f"{name}_{axis}")
        for axis, (a, b) in enumerate(zip(small.shape, large.shape, strict=True))
    )


def _dtype_name(tensor: Tensor) -> str:
    return "float32" if tensor.dtype == torch.bfloat16 else str(tensor.dtype).removeprefix("torch.")


def _to_numpy(tensor: Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.cpu().contiguous().numpy()


def _storages(tensors: Sequence[Tensor]) -> frozenset[int]:
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel())
