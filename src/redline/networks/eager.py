"""PyTorch itself as a session: eager, compiled, or TorchScript; fp32 that is fp32."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from redline.core.artifact import Layers
from redline.core.errors import ArtifactError, BuildError, InputError, RedlineError, UnsupportedError
from redline.core.files import whole_file
from redline.core.plain import Json, from_plain
from redline.core.tensor import Array, Dim, Signature, TensorSpec
from redline.formats.torch_values import at_batch, batch_size_of, has_batch, named_tensors
from redline.networks.cuda import (
    CudaOptions,
    CudaSession,
    allow_tf32,
    gpu_errors,
    gpu_platform,
    require_ampere,
    require_gpu,
    tf32,
)
from redline.networks.load import ModelRef, TorchModel, load_model
from redline.networks.modes import Mode, device_of, example_on, prepared, runner
from redline.networks.read_back import ReadBack, read_back
from redline.networks.sources import first_line

Dtype = Literal["fp32", "tf32", "fp16", "bf16"]
Layout = Literal["contiguous", "channels_last"]
_REDUCED = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TorchSession:
    """A torch module that answers; the number of threads is set for the whole process.

    Attributes:
        layers: Its convolutions, matrix products and recurrent layers by the precision that they compute in.
        precision_evidence: How that is known.
        precision_doubt: Why layers that are FP32 may still round; None where nothing lets them.
        versions: Of what it stands on.
    """

    layers = Layers.of({})
    precision_evidence: str | None = None
    precision_doubt: str | None = None

    def __init__(
        self, run: Callable[..., Any], model: TorchModel, signature: Signature, dtype: Dtype, layout: Layout
    ) -> None:
        self.signature = signature
        self.versions = {"torch": str(torch.__version__)}
        self._run: Callable[..., Any] | None = run
        self._names = tuple(spec.name for spec in signature.outputs)
        self._input_names = tuple(spec.name for spec in signature.inputs)
        self._reduced = _REDUCED.get(dtype)
        self._converts = dtype == "bf16" or layout == "channels_last"
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

    def tell(self, found: ReadBack) -> None:
        """Say in which precision it computes."""
        self.layers, self.precision_evidence, self.precision_doubt = found.layers, found.evidence, found.doubt

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
        if not self._converts or not tensor.is_floating_point():
            return tensor
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(self._reduced or tensor.dtype, memory_format=layout)

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
    ref: Mapping[str, Json],
    mode: Mode = "eager",
    threads: int = 0,
    dtype: Dtype = "fp32",
    weights_file: str | None = None,
    signature: Mapping[str, Json] | None = None,
    device: str = "cpu",
    layout: Layout = "contiguous",
    cuda_graph: bool = False,
) -> TorchSession | CudaSession:
    """Load a model and open it, from JSON values only, so that a fresh process can.

    Args:
        ref: A :class:`ModelRef` as JSON.
        mode: ``eager``, ``compile`` (torch.compile with inductor) or ``torchscript``.
        threads: Intra-op threads of this process; 0 leaves them as they are.
        dtype: ``fp16`` (GPU only) and ``bf16`` convert weights and inputs; outputs are float32 again. ``tf32`` (GPU
            only) lets float32 convolutions and matrix products round their inputs; ``fp32`` forbids it.
        weights_file: What :func:`save_weights` wrote, so that every process has the same random weights.
        signature: As JSON; with it nothing needs to be run to find the outputs.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        layout: How images lie in memory; bf16 on the CPU always has their channels last.
        cuda_graph: Record the work of each input shape once, and replay it (GPU only).
    """
    model = load_with_weights(ref, weights_file)
    known = from_plain(Signature, signature, where="signature") if signature is not None else None
    return open_model(
        model,
        mode=mode,
        threads=threads,
        dtype=dtype,
        signature=known,
        device=device,
        layout=layout,
        cuda_graph=cuda_graph,
    )


def load_with_weights(ref: Mapping[str, Json], weights_file: str | None) -> TorchModel:
    """Load a model by its JSON, with the weights that :func:`save_weights` wrote unless it is a file of its own."""
    model = load_model(from_plain(ModelRef, ref, where="model"))
    if weights_file is not None and not model.from_file:
        load_weights(model, Path(weights_file))
    return model


def open_model(
    model: TorchModel,
    *,
    mode: Mode = "eager",
    threads: int = 0,
    dtype: Dtype = "fp32",
    signature: Signature | None = None,
    device: str = "cpu",
    layout: Layout = "contiguous",
    cuda_graph: bool = False,
) -> TorchSession | CudaSession:
    """Open a loaded model as :func:`open_torch` does; ``model`` itself stays as it is.

    Raises:
        BuildError: torch.compile or TorchScript cannot take this model, or it does not run on the GPU.
        UnsupportedError: this machine lacks what the mode needs.
        DeviceError: there is no such GPU, or its memory is full.
    """
    if mode not in get_args(Mode) or dtype not in get_args(Dtype) or layout not in get_args(Layout):
        raise InputError(
            f"got mode {mode!r}, dtype {dtype!r} and layout {layout!r}, "
            f"expected {get_args(Mode)}, {get_args(Dtype)} and {get_args(Layout)}"
        )
    target = device_of(device)
    if threads > 0:
        torch.set_num_threads(threads)
    allow_tf32(allowed=False)
    if target.type == "cuda":
        options = _cuda_options(target, dtype, layout, cuda_graph=cuda_graph)
        with gpu_errors():
            return _open_on_gpu(model, mode, signature or signature_of(model), options)
    _refuse_on_cpu(dtype, cuda_graph=cuda_graph)
    signature = signature or signature_of(model)
    last = dtype == "bf16" or layout == "channels_last"
    module = prepared(model.module, target, _REDUCED.get(dtype), channels_last=last)
    examples = tuple(example_on(tensor, target, _REDUCED.get(dtype)) for tensor in model.example_inputs)
    run = runner(mode, module, examples, model, target)
    session = TorchSession(run, model, signature, dtype, layout)
    session.tell(read_back(module, examples, target))
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


def platform(device: str = "cpu") -> dict[str, str]:
    """What a torch session's speed depends on: library, device, the instructions it may use."""
    target = device_of(device)
    if target.type == "cuda":
        require_gpu(target)
        return gpu_platform(target)
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


def _cuda_options(device: torch.device, dtype: Dtype, layout: Layout, *, cuda_graph: bool) -> CudaOptions:
    require_gpu(device)
    if dtype in ("tf32", "bf16"):
        require_ampere(device, dtype)
    return CudaOptions(
        device=device,
        dtype=_REDUCED.get(dtype),
        channels_last=layout == "channels_last",
        tf32=dtype == "tf32",
        cuda_graph=cuda_graph,
    )


def _refuse_on_cpu(dtype: Dtype, *, cuda_graph: bool) -> None:
    if dtype == "tf32":
        raise UnsupportedError("TF32 is arithmetic of NVIDIA's GPUs; open it with device cuda, or take fp32 or bf16")
    if dtype == "fp16":
        raise UnsupportedError("PyTorch is slow in fp16 on a CPU; open it with device cuda, or take fp32 or bf16")
    if cuda_graph:
        raise UnsupportedError("a CUDA graph needs a GPU; open it with device cuda")


def _open_on_gpu(model: TorchModel, mode: Mode, signature: Signature, options: CudaOptions) -> CudaSession:
    with torch.cuda.device(options.device):
        module = prepared(model.module, options.device, options.dtype, channels_last=options.channels_last)
        examples = tuple(example_on(tensor, options.device, options.dtype) for tensor in model.example_inputs)
        run = runner(mode, module, examples, model, options.device)
        with tf32(allowed=options.tf32):
            found = read_back(module, examples, options.device)
        session = CudaSession(run, signature, found.layers, options)
        session.precision_evidence = found.evidence
        first_run(session, model.example_inputs, model.ref.name)
    return session


def first_run(session: CudaSession, examples: Sequence[Tensor], name: str) -> None:
    """Run a session on a model's examples, so that what cannot run says so when it is opened; it is closed then.

    Raises:
        BuildError: it does not run on the GPU.
    """
    specs = session.signature.inputs
    inputs = {spec.name: _to_numpy(tensor) for spec, tensor in zip(specs, examples, strict=True)}
    try:
        session(inputs)
    except RedlineError:
        session.close()
        raise
    except Exception as error:
        session.close()
        raise BuildError(f"{name} does not run on the GPU: {type(error).__name__}: {first_line(error)}") from error


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
