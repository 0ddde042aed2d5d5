"""Export a PyTorch model to ONNX and prove that ONNX Runtime answers as PyTorch does."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from redline.commands.optimize import difference
from redline.core.artifact import OnnxModel
from redline.core.errors import ExportError, InputError, RedlineError
from redline.core.preprocess import Usage
from redline.core.tensor import Array
from redline.formats.torch_values import at_batch, like, named_tensors
from redline.networks.load import ModelRef, TorchModel, load_model
from redline.opening.sessions import open_onnx
from redline.transforms.export import Exporter, ExportOptions, export_module, export_torchscript

if TYPE_CHECKING:
    from redline.core.session import Session

__all__ = ["Exported", "export", "export_model"]

_BATCH_SIZES = (1, 3)
_SEED = 1
# The same sums in another order move a float32 answer by some roundings of its largest terms (1e-6 of the peak for
# ResNet-18); a wrong graph shows about 1.
_ABSOLUTE, _RELATIVE = 1e-5, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported model with what was compared.

    Attributes:
        max_abs_difference: The largest difference to PyTorch over all outputs and ``batch_sizes``.
        notes: What the loader and the exporter had to say.
    """

    model: OnnxModel
    max_abs_difference: float
    batch_sizes: tuple[int, ...]
    notes: tuple[str, ...]
    torchscript: Path | None = None


def export(
    model: str | TorchModel,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    batch: Literal["dynamic"] | int = "dynamic",
    dynamic_size: bool = False,
    opset: int | None = None,
    weights: str | Path | None = None,
    exporter: Exporter | None = None,
    fold: bool = True,
    torchscript: str | Path | None = None,
) -> Exported:
    """Export a model to ``out``, which is written only if ONNX Runtime answers as PyTorch at two batch sizes.

    Args:
        model: A name as ``redline export --help`` lists them, or what :func:`redline.networks.load.wrap_module` made.
        out: The ONNX file to write.
        size: Height and width of the images in pixels; None for the model's own.
        batch: ``dynamic``, or the one size that the file will take.
        dynamic_size: Leave height and width open too.
        opset: None for the exporter's own (20; 17 for torchscript).
        weights: A checkpoint: ``.safetensors`` or a state dict.
        exporter: ``dynamo`` or ``torchscript``; None chooses.
        fold: False leaves batch normalization and constants as they are in the module.
        torchscript: Write a TorchScript file here as well.

    Raises:
        InputError: the model cannot be loaded.
        ExportError: it cannot be exported, or the file answers differently.
    """
    options = ExportOptions(batch=batch, dynamic_size=dynamic_size, opset=opset, exporter=exporter, fold=fold)
    if isinstance(model, TorchModel):
        if size is not None or weights is not None:
            raise InputError("size and weights belong to a model's name; this model is loaded already")
        loaded = model
    else:
        loaded = load_model(ModelRef(model, str(weights) if weights is not None else None, size))
    exported = export_model(loaded, Path(out), options)
    if torchscript is None:
        return exported
    export_torchscript(loaded.module, loaded.example_inputs, Path(torchscript))
    return replace(exported, torchscript=Path(torchscript))


def export_model(model: TorchModel, out: Path, options: ExportOptions) -> Exported:
    """Like :func:`export` for a model that is loaded."""
    if model.fixed_batch is not None and options.batch != model.fixed_batch:
        raise InputError(
            f"{model.ref.name} was saved for a batch of {model.fixed_batch}, got batch {options.batch!r}; "
            f"type --batch {model.fixed_batch}"
        )
    sizes = _BATCH_SIZES if options.batch == "dynamic" else (options.batch,)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-", suffix=".partial") as folder:
        scratch = Path(folder) / out.name
        usage = Usage(preprocess=model.preprocess, class_names=model.class_names or (), detection=model.detection)
        told = replace(options, usage=usage)
        written = export_module(model.module, model.example_inputs, model.input_names, scratch, told)
        largest = _compare(model, written, _feeds(model, sizes, grow=options.dynamic_size))
        for file in sorted(Path(folder).iterdir(), key=lambda path: path == scratch):
            file.replace(out.parent / file.name)
    steps = written.provenance[0].arguments
    warned = str(steps["notes"]).split("; ") if steps.get("notes") else []
    return Exported(
        model=replace(written, path=out),
        max_abs_difference=largest,
        batch_sizes=sizes,
        notes=(*model.notes, *_scripted_note(model, steps.get("exporter"), options), *warned),
    )


def _scripted_note(model: TorchModel, used: object, options: ExportOptions) -> tuple[str, ...]:
    if used != "torchscript" or options.exporter is not None or not options.fold:
        return ()
    why = "opset below 18" if options.opset is not None and options.opset < 18 else f"{model.ref.name} is TorchScript"
    return (f"exported by the torchscript exporter ({why})",)


def _feeds(model: TorchModel, sizes: Sequence[int], *, grow: bool) -> list[tuple[torch.Tensor, ...]]:
    """Inputs that differ from the examples, so that an answer that was baked into the file is found out."""
    generator = torch.Generator().manual_seed(_SEED)
    feeds = [tuple(like(t, generator) for t in at_batch(model.example_inputs, size)) for size in sizes]
    if grow:
        resize = torch.nn.functional.interpolate
        feeds.append(
            tuple(
                resize(t.float(), size=(t.shape[2] * 2, t.shape[3] * 2)).to(t.dtype) if t.ndim == 4 else t
                for t in feeds[0]
            )
        )
    return feeds


def _compare(model: TorchModel, written: OnnxModel, feeds: Sequence[tuple[torch.Tensor, ...]]) -> float:
    candidate = open_onnx(written)
    try:
        return max(_difference(_answer(model, feed), candidate, _named(model, feed)) for feed in feeds)
    finally:
        candidate.close()


def _answer(model: TorchModel, feed: Sequence[torch.Tensor]) -> dict[str, Array]:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Copies, as a module may write to its inputs.
        answer = named_tensors(model.module(*[tensor.clone() for tensor in feed]), model.input_names)
    return {name: tensor.numpy() for name, tensor in answer.items()}


def _named(model: TorchModel, feed: Sequence[torch.Tensor]) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in zip(model.input_names, feed, strict=True)}


def _difference(expected: dict[str, Array], candidate: Session, inputs: dict[str, Array]) -> float:
    # Inputs that the model ignores are gone from the file's graph, and its session would refuse them.
    taken = {spec.name for spec in candidate.signature.inputs}
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    try:
        given = candidate({name: array for name, array in inputs.items() if name in taken})
    except RedlineError:
        raise
    except Exception as error:
        raise ExportError(
            f"the exported file fails on {shapes}, PyTorch does not: {' '.join(str(error).split())[:200]}"
        ) from error
    largest = 0.0
    for name, right in expected.items():
        complaint = difference(right, given[name], _ABSOLUTE, _RELATIVE)
        if complaint:
            raise ExportError(
                f"the exported file answers differently from PyTorch on {shapes}: output {name!r}: {complaint}; "
                "nothing was written; try the other --exporter, or --batch with a fixed size"
            )
        if right.size:
            apart = np.abs(right.astype(np.float64) - given[name].astype(np.float64))
            largest = max(largest, float(apart[np.isfinite(apart)].max(initial=0.0)))
    return largest
