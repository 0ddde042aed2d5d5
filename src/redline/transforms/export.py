"""A torch module becomes an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import torch
from onnx import ModelProto, checker
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from redline.core.artifact import OnnxModel, Step
from redline.core.errors import ExportError, InputError
from redline.core.files import whole_file
from redline.core.preprocess import Usage
from redline.formats.onnx_file import load_proto, opset_of, save_proto, versions
from redline.formats.torch_values import FlatOutputs, at_batch, batch_size_of, has_batch, named_tensors
from redline.transforms.export_errors import explain, first_line

Exporter = Literal["dynamo", "torchscript"]
DYNAMO_OPSET = 20
TORCHSCRIPT_OPSET = 17
_OLDEST_OPSET = 7
_FIRST_DYNAMO_OPSET = 18
_NEWEST_TORCHSCRIPT_OPSET = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How to export.

    Attributes:
        batch: ``dynamic`` (called "batch" in the file), or the one size that the file takes.
        dynamic_size: Images of any height and width (called so in the file).
        opset: None for the exporter's own: 20 for dynamo, 17 for torchscript (TensorRT 8.6 reads that).
        exporter: None for dynamo, or torchscript where dynamo has no answer: an opset before 18, a TorchScript module.
        fold: False leaves batch normalization and constants as they are in the module (torchscript only), for those
            who want to watch graph passes work.
        usage: What the file should say about images and classes.
    """

    batch: Literal["dynamic"] | int = "dynamic"
    dynamic_size: bool = False
    opset: int | None = None
    exporter: Exporter | None = None
    fold: bool = True
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        if self.batch != "dynamic" and (not isinstance(self.batch, int) or self.batch < 1):
            raise InputError(f"batch is {self.batch!r}, expected 'dynamic' or a number of at least 1")
        if self.exporter is not None and self.exporter not in get_args(Exporter):
            raise InputError(f"exporter is {self.exporter!r}, expected {' or '.join(get_args(Exporter))}")
        newest = onnx.defs.onnx_opset_version()
        if self.opset is not None and not _OLDEST_OPSET <= self.opset <= newest:
            raise InputError(f"opset is {self.opset}, expected {_OLDEST_OPSET} to {newest} (onnx {onnx.__version__})")
        if not self.fold and self.exporter == "dynamo":
            raise InputError("an unfolded graph needs the torchscript exporter, got exporter 'dynamo'")

    def exporter_for(self, module: nn.Module) -> Exporter:
        """The exporter that ``module`` will go through."""
        if self.exporter is not None:
            return self.exporter
        scripted = any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())
        old = self.opset is not None and self.opset < _FIRST_DYNAMO_OPSET
        return "torchscript" if scripted or old or not self.fold else "dynamo"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A module with everything that either exporter wants to know about it."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    axes: tuple[dict[int, str], ...]
    opset: int
    fold: bool
    notes: list[str] = field(default_factory=list)


def export_module(
    module: nn.Module, example_inputs: Sequence[Tensor], input_names: Sequence[str], out: Path, options: ExportOptions
) -> OnnxModel:
    """Export ``module`` in eval mode; it goes back to the mode it was in.

    The file is checked, has no trace of this machine's paths, and is written whole or not at all. What the exporter
    warned of is in the provenance, under ``notes``; ``options.usage`` travels in its metadata.

    Raises:
        ExportError: names the operator or the line of the module that is to blame, and what to try.
    """
    exporter = options.exporter_for(module)
    opset = options.opset or (DYNAMO_OPSET if exporter == "dynamo" else TORCHSCRIPT_OPSET)
    if exporter == "torchscript" and opset > _NEWEST_TORCHSCRIPT_OPSET:
        raise InputError(
            f"opset is {opset}, expected at most {_NEWEST_TORCHSCRIPT_OPSET} for the torchscript exporter; "
            "leave out --exporter, or lower --opset"
        )
    with _eval_mode(module):
        job = _plan(module, tuple(example_inputs), tuple(input_names), options, opset)
        proto = _dynamo(job) if exporter == "dynamo" else _torchscript(job)
    _clean(proto)
    _verify(job, proto)
    step = Step(
        step="export",
        arguments={
            "exporter": exporter,
            "opset": opset,
            "batch": options.batch,
            "dynamic_size": options.dynamic_size,
            "fold": options.fold,
            "notes": "; ".join(job.notes) or None,
        },
        parent_sha256=None,
        versions=versions("torch", "onnx", "onnxscript"),
    )
    return save_proto(proto, out, step=step, parent=None, usage=options.usage)


def export_torchscript(module: nn.Module, example_inputs: Sequence[Tensor], out: Path) -> None:
    """Trace ``module`` in eval mode, freeze it, and save it as a TorchScript file.

    Raises:
        ExportError: TorchScript cannot trace it.
    """
    with _eval_mode(module), _quiet([]), torch.no_grad():
        try:
            traced = torch.jit.trace(module, tuple(example_inputs), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced)
        except Exception as error:
            raise ExportError(f"TorchScript cannot trace the model: {first_line(error)}") from error
        with whole_file(out) as scratch:
            torch.jit.save(frozen, str(scratch))


def _plan(
    module: nn.Module, examples: tuple[Tensor, ...], names: tuple[str, ...], options: ExportOptions, opset: int
) -> _Job:
    if len(names) != len(examples) or len(set(names)) != len(names):
        raise InputError(f"got input names {list(names)}, expected {len(examples)} different ones")
    dynamic = options.batch == "dynamic"
    # A batch of one would be taken for a constant: sizes 0 and 1 are special to torch.export.
    size = max(2, batch_size_of(examples) or 2) if options.batch == "dynamic" else options.batch
    inputs = at_batch(examples, size)
    answer = _run(module, inputs, examples, dynamic=dynamic)
    outputs = named_tensors(answer, names)
    if not _is_flat(answer):
        module = FlatOutputs(module, names)
    axes: list[dict[int, str]] = []
    for tensor in inputs:
        own: dict[int, str] = {0: "batch"} if dynamic and has_batch(tensor, size) else {}
        if options.dynamic_size and tensor.ndim == 4:
            own |= {2: "height", 3: "width"}
        axes.append(own)
    if options.dynamic_size and not any(2 in own for own in axes):
        raise InputError("a dynamic size was asked for, but no input has the shape of images (batch, c, height, width)")
    return _Job(
        module=module,
        inputs=inputs,
        input_names=names,
        output_names=tuple(outputs),
        axes=tuple(axes),
        opset=opset,
        fold=options.fold,
    )


def _run(module: nn.Module, inputs: tuple[Tensor, ...], examples: tuple[Tensor, ...], *, dynamic: bool) -> Any:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module(*[tensor.clone() for tensor in inputs])
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        batch = batch_size_of(examples)
        hint = f"; if it takes a batch of {batch} only, export with --batch {batch}" if dynamic else ""
        raise ExportError(
            f"the model itself fails on inputs of shape {shapes}: {type(error).__name__}: {first_line(error)}{hint}"
        ) from error


def _is_flat(answer: Any) -> bool:
    if isinstance(answer, Tensor):
        return True
    return type(answer) in (tuple, list) and len(answer) > 0 and all(isinstance(item, Tensor) for item in answer)


def _dynamo(job: _Job) -> ModelProto:
    dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in job.axes)
    if isinstance(job.module, FlatOutputs):
        shapes: Any = (dynamic,)  # the inputs are one *args
    else:
        shapes = dynamic
    try:
        with _quiet(job.notes):
            program = torch.export.export(job.module, job.inputs, dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(job.input_names),
                output_names=list(job.output_names),
                dynamic_shapes=(job.axes,) if isinstance(job.module, FlatOutputs) else job.axes,
                opset_version=job.opset,
                verbose=False,
            )
    except Exception as error:
        raise explain(error, "dynamo") from error
    if exported is None:  # pragma: no cover (only where a path is given)
        raise ExportError("torch.onnx.export returned nothing")
    return exported.model_proto


# PyTorch before 2.5 has one exporter, and no name for it.
_NO_DYNAMO: dict[str, Any] = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}


def _torchscript(job: _Job) -> ModelProto:
    with tempfile.TemporaryDirectory(prefix="redline-export-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            with _quiet(job.notes), _silent_stdout():
                torch.onnx.export(
                    job.module,
                    job.inputs,
                    str(path),
                    **_NO_DYNAMO,
                    input_names=list(job.input_names),
                    output_names=list(job.output_names),
                    dynamic_axes=_torchscript_axes(job),
                    opset_version=job.opset,
                    do_constant_folding=job.fold,
                    training=torch.onnx.TrainingMode.EVAL if job.fold else torch.onnx.TrainingMode.PRESERVE,
                )
        except OSError:
            raise  # a full disk is not the model's fault
        except Exception as error:
            raise explain(error, "torchscript") from error
        return load_proto(path)


def _torchscript_axes(job: _Job) -> dict[str, dict[int, str]]:
    """The inputs' dynamic axes, and those of the outputs that follow the batch, which this exporter must be told."""
    axes = {name: own for name, own in zip(job.input_names, job.axes, strict=True) if own}
    if not any("batch" in own.values() for own in axes.values()):
        return axes
    size = batch_size_of(job.inputs) or 0
    with torch.no_grad():
        answers = [named_tensors(job.module(*at_batch(job.inputs, n)), job.input_names) for n in (size, size + 1)]
    for name, small, large in zip(job.output_names, answers[0].values(), answers[1].values(), strict=True):
        moving = [a for a in range(small.ndim) if small.ndim == large.ndim and small.shape[a] != large.shape[a]]
        if moving:
            axes[name] = {a: "batch" if small.shape[a] == size else f"{name}_{a}" for a in moving}
    return axes


def _clean(proto: ModelProto) -> None:
    """Drop stack traces and module paths: they name the exporting machine's folders and outweigh the graph."""
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for function in proto.functions:
        function.doc_string = ""
        for item in (function, *function.node):
            del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""


def _verify(job: _Job, proto: ModelProto) -> None:
    if opset_of(proto) != job.opset:
        raise ExportError(
            f"the exporter wrote opset {opset_of(proto)}, expected {job.opset}; "
            "try --exporter torchscript or another --opset"
        )
    if proto.ByteSize() < checker.MAXIMUM_PROTOBUF:
        try:
            checker.check_model(proto, full_check=True)
        except Exception as error:
            raise ExportError(f"the exporter wrote an invalid model: {first_line(error)}") from error
    sizes = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.input}
    for name, own in zip(job.input_names, job.axes, strict=True):
        for axis, symbol in own.items():
            if name in sizes and not sizes[name][axis].dim_param:
                raise ExportError(
                    f"the exporter fixed {symbol} of input {name!r} at {sizes[name][axis].dim_value}; "
                    f"export with --batch {sizes[name][axis].dim_value}"
                )


@contextlib.contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    with contextlib.suppress(NotImplementedError):  # an exported program has no modes
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet(notes: list[str]) -> Iterator[None]:
    """Turn the tracer's warnings into notes; drop the exporters' chatter."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the exporters log on many loggers with handlers of their own
    sink = io.StringIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                yield
        finally:
            logging.disable(disabled)
    for warning in caught:
        if issubclass(warning.category, TracerWarning):
            text = f"{Path(warning.filename).name}, line {warning.lineno}: {first_line(warning.message)}"
            if text not in notes:
                notes.append(text)


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """The TorchScript exporter prints the graph from C++ when it fails; a document on stdout must stay whole."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
