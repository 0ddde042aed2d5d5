"""A model goes through one front end of Torch-TensorRT, or into a file; the library itself is handed in."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from redline.core.artifact import Layers
from redline.core.errors import BuildError, RedlineError
from redline.core.files import whole_file
from redline.core.tensor import Signature
from redline.formats.torch_values import FlatOutputs, at_batch
from redline.networks.load import TorchModel
from redline.networks.modes import as_tf32, example_on, layers_of, prepared
from redline.networks.sources import first_line
from redline.networks.torch_tensorrt_inside import calibrator, engines_in, left_to_torch, read_layers
from redline.networks.torch_tensorrt_plan import CompilePlan, TrtPrecision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A model with what is asked of Torch-TensorRT."""

    model: TorchModel
    signature: Signature
    precision: TrtPrecision
    batch: tuple[int, int, int]
    plan: CompilePlan
    device: torch.device
    calibration: Path | None

    @property
    def dtype(self) -> torch.dtype | None:
        """What the module and its inputs become; None where they stay as they are."""
        return torch.float16 if self.plan.half else None

    def examples(self, batch: int) -> tuple[Tensor, ...]:
        """Inputs of so many samples on the GPU."""
        return tuple(example_on(t, self.device, self.dtype) for t in at_batch(self.model.example_inputs, batch))

    def moves(self) -> list[bool]:
        """Which inputs have a batch of several sizes."""
        ranged = self.batch[0] < self.batch[2]
        return [ranged and bool(spec.shape) and isinstance(spec.shape[0], str) for spec in self.signature.inputs]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compiled:
    """What Torch-TensorRT made, with what is known of it."""

    module: Any
    layers: Layers
    notes: tuple[str, ...]


def compile_request(library: Any, request: Request) -> Compiled:
    """Compile, and find out what came of it.

    Raises:
        BuildError: it cannot be compiled, or TensorRT took no part of it.
    """
    module = prepared(request.model.module, request.device, request.dtype, channels_last=False)
    name = request.model.ref.name
    through = _torchscript if request.plan.front_end == "ts" else _dynamo
    with quiet(f"Torch-TensorRT {library.__version__} cannot compile {name}"), torch.no_grad():
        made = through(library, request, module)
    engines = engines_in(made)
    if not engines:
        raise BuildError(f"TensorRT took no part of {name}: all of it would run in PyTorch; take a torch session")
    notes = []
    left = left_to_torch(made)
    if left:
        notes.append(f"{left} of its operations or parts stay in PyTorch")
    layers = read_layers(engines)
    if layers is None and request.plan.binding:
        layers = layers_of(module)
    if layers is None:
        notes.append(f"{request.precision} was asked for, and what TensorRT chose cannot be read from this engine")
        layers = Layers.of({})
    return Compiled(module=made, layers=as_tf32(layers) if request.precision == "tf32" else layers, notes=tuple(notes))


def _torchscript(library: Any, request: Request, module: nn.Module) -> Any:
    examples = request.examples(request.batch[1])
    traced: Any = module
    if not isinstance(module, torch.jit.ScriptModule):
        flat = _flat(module, examples, request.model.input_names)
        traced = torch.jit.trace(flat, examples, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    arguments = _arguments(request.plan)
    if request.calibration is not None and request.plan.calibrates:
        names = [spec.name for spec in request.signature.inputs]
        arguments["calibrator"] = calibrator(library, request.calibration, names, request.batch[1], request.device)
    return library.compile(traced, ir="ts", inputs=_inputs(library, request), **arguments)


def _dynamo(library: Any, request: Request, module: nn.Module) -> Any:
    low, opt, high = request.batch
    # A batch of one would be taken for a constant: sizes 0 and 1 are special to torch.export.
    examples = request.examples(max(2, opt) if low < high else opt)
    flat = _flat(module, examples, request.model.input_names)
    shapes: Any = None
    if low < high:
        size = torch.export.Dim("batch", min=low, max=high)
        shapes = tuple({0: size} if moves else {} for moves in request.moves())
        parameters = inspect.signature(flat.forward).parameters.values()
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
            shapes = (shapes,)
    known = inspect.signature(torch.export.export).parameters
    strict: dict[str, Any] = {"strict": False} if "strict" in known else {}
    program = torch.export.export(flat, examples, dynamic_shapes=shapes, **strict)
    return library.dynamo.compile(program, inputs=_inputs(library, request), **_arguments(request.plan))


def _flat(module: nn.Module, examples: Sequence[Tensor], names: Sequence[str]) -> nn.Module:
    answer = module(*[tensor.clone() for tensor in examples])
    return module if isinstance(answer, Tensor) else FlatOutputs(module, names)


def _arguments(plan: CompilePlan) -> dict[str, Any]:
    arguments = dict(plan.arguments)
    if "enabled_precisions" in arguments:
        names = cast("tuple[str, ...]", arguments["enabled_precisions"])
        arguments["enabled_precisions"] = {getattr(torch, name) for name in names}
    return arguments


def _inputs(library: Any, request: Request) -> list[Any]:
    low, opt, high = request.batch
    found = []
    for tensor, moves in zip(request.examples(opt), request.moves(), strict=True):
        rest = tuple(tensor.shape[1:])
        if moves:
            shapes = {"min_shape": (low, *rest), "opt_shape": (opt, *rest), "max_shape": (high, *rest)}
            found.append(library.Input(**shapes, dtype=tensor.dtype))
        else:
            found.append(library.Input(tuple(tensor.shape), dtype=tensor.dtype))
    return found


def save_compiled(library: Any, request: Request, compiled: Compiled, path: Path) -> None:
    """Write it, whole or not at all: TorchScript, or an exported program.

    Raises:
        BuildError: it cannot be saved.
    """
    what = f"Torch-TensorRT {library.__version__} cannot save {request.model.ref.name}"
    with quiet(what), whole_file(path) as scratch:
        if request.plan.front_end == "ts":
            torch.jit.save(compiled.module, str(scratch))
            return
        # Without retracing, which would fix the batch at the examples'.
        library.save(
            compiled.module,
            str(scratch),
            output_format="exported_program",
            inputs=list(request.examples(request.batch[1])),
            retrace=False,
        )


@contextmanager
def quiet(what: str) -> Iterator[None]:
    """Keep another library's warnings to itself, and let its errors say what they mean to the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RedlineError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise BuildError(f"{what}: {type(error).__name__}: {first_line(error)}") from error
