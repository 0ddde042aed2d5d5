"""Any model that a user can name, as a torch module that is ready to answer."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redline.core.errors import InputError
from redline.core.preprocess import Detection, Preprocess
from redline.formats.torch_values import KeywordInputs, identifier
from redline.networks import sources
from redline.networks.sources import Source
from redline.networks.table import MODELS
from redline.networks.zoo import build

_DEFAULT_SIZE_PX = (224, 224)
_RANDOM = "its weights are random: its answers mean nothing; give a checkpoint with --weights FILE"
_PROGRAM_SUFFIXES = (".pt2", ".pt", ".pth", ".ts", ".jit", ".torchscript")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What the user asked for: a name, a checkpoint, the size of the images (height, width)."""

    name: str
    weights: str | None = None
    size_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TorchModel:
    """A module in eval mode, fp32, without gradients, with what is needed to feed it.

    Attributes:
        example_inputs: By position, in the order of ``input_names``; never all zeros.
        asset: Name of data that ships with Redline and fits this model, if any.
        parameters: How many numbers it learned.
        detection: What its outputs mean, for a detector.
        fixed_batch: The only batch that it takes, None where any does as far as is known.
        from_file: The module came out of a file whole, so its weights need no file of their own.
        notes: What the user should know about how it was loaded.
    """

    ref: ModelRef
    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    preprocess: Preprocess | None
    asset: str | None
    class_names: tuple[str, ...] | None
    parameters: int
    detection: Detection | None = None
    fixed_batch: int | None = None
    from_file: bool = False
    notes: tuple[str, ...] = ()


def load_model(ref: ModelRef | str) -> TorchModel:
    """Load a built-in name, ``torchvision:NAME``, ``timm:NAME``, ``file.py:function``, ``.pt2`` or TorchScript file.

    Raises:
        InputError: there is no such model, or it cannot be used; says why.
        MissingDependencyError: it needs a package that is not installed.
    """
    ref = ModelRef(ref) if isinstance(ref, str) else ref
    if ref.size_px and min(ref.size_px) < 1:
        raise InputError(f"size is {ref.size_px[0]}x{ref.size_px[1]} pixels, expected at least 1x1")
    source = _find(ref)
    if ref.weights and ref.name not in MODELS and ref.weights != "pretrained":
        if source.from_file:
            raise InputError(f"{ref.name} brings its own weights; leave --weights out")
        sources.apply_weights(source.module, Path(ref.weights))
        source = replace(source, notes=())
    return _ready(ref, source)


def wrap_module(module: nn.Module, example_inputs: Any = None, *, name: str = "model") -> TorchModel:
    """A module that is already in memory, as :func:`load_model` would give it; the module goes to eval mode.

    Args:
        module: Any ``nn.Module``.
        example_inputs: A tensor, a tuple, or a dict of tensors by argument name; inferred from the first layer
            where there is none.
        name: What to call it.
    """
    examples = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    return _ready(ModelRef(name), Source(module=module, example_inputs=examples))


def _find(ref: ModelRef) -> Source:
    name = ref.name
    if name in MODELS:
        return _from_zoo(ref)
    if name.lower().endswith(".onnx"):
        raise InputError(f"{name} is an ONNX file, expected a PyTorch model; ONNX files need no export")
    library, _, rest = name.partition(":")
    if library == "torchvision":
        return sources.from_torchvision(rest, ref.weights)
    if library == "timm":
        return sources.from_timm(rest, ref.weights)
    file, _, function = name.rpartition(":")
    if file.endswith(".py"):
        return sources.from_factory(Path(file), function)
    if name.endswith(".py"):
        raise InputError(f"{name} lacks the function; type {name}:function, one that returns an nn.Module")
    if name.lower().endswith(_PROGRAM_SUFFIXES) or Path(name).is_file():
        return sources.from_file(Path(name))
    raise InputError(f"there is no model {name!r}; {_suggestion(name)}")


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, MODELS, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return (
        f"expected one of {', '.join(MODELS)}, torchvision:NAME, timm:NAME, path/to/file.py:function, "
        "or a .pt2, TorchScript or .onnx file"
    )


def _ready(ref: ModelRef, source: Source) -> TorchModel:
    module, notes = _inference(source)
    raw = source.example_inputs if source.example_inputs is not None else _inferred_examples(ref, module)
    if isinstance(raw, Mapping):
        names = [str(name) for name in raw]
        values = list(raw.values())
        module = KeywordInputs(module, names)
    else:
        values = list(raw)
        names = _forward_names(ref, module, len(values))
    examples = _resized(ref, _tensors(ref, names, values)) if source.example_inputs is not None else tuple(values)
    preprocess = source.preprocess or _preprocess_of(source.module, examples)
    if preprocess and ref.size_px:
        preprocess = replace(preprocess, height_px=ref.size_px[0], width_px=ref.size_px[1])
    return TorchModel(
        ref=ref,
        module=module,
        example_inputs=examples,
        input_names=_distinct(module, names),
        preprocess=preprocess,
        asset=source.asset,
        class_names=source.class_names,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        detection=source.detection,
        fixed_batch=source.fixed_batch,
        from_file=source.from_file,
        notes=(*source.notes, *notes),
    )


def _inference(source: Source) -> tuple[nn.Module, tuple[str, ...]]:
    module, notes = source.module, []
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if isinstance(module, torch.fx.GraphModule) and source.from_file:
        return module, ()  # an exported program refuses eval(); it was checked when it was loaded
    floating = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    if any(tensor.dtype != torch.float32 for tensor in floating):
        notes.append(f"its {str(next(t.dtype for t in floating if t.dtype != torch.float32))[6:]} weights became fp32")
        module = module.float()
    return module.cpu().eval(), tuple(notes)


def _inferred_examples(ref: ModelRef, module: nn.Module) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        kind = getattr(layer, "original_name", type(layer).__name__)
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        if kind == "Conv2d":
            channels = weight.shape[1] * int(getattr(layer, "groups", 1))
            return (torch.rand(1, channels, *(ref.size_px or _DEFAULT_SIZE_PX), generator=generator),)
        if kind == "Linear":
            return (torch.rand(1, weight.shape[1], generator=generator),)
        break
    raise InputError(
        f"{ref.name}: what it takes cannot be told from its first layer (a Conv2d or Linear could); "
        "return (module, example_inputs) from the function"
    )


def _tensors(ref: ModelRef, names: Sequence[str], values: Sequence[Any]) -> tuple[Tensor, ...]:
    if not values:
        raise InputError(f"{ref.name}: got no example inputs, expected at least one tensor")
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, Tensor):
            raise InputError(f"{ref.name}: example input {name!r} is a {type(value).__name__}, expected a tensor")
    return tuple(value.detach().cpu() for value in values)


def _resized(ref: ModelRef, examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if ref.size_px is None:
        return examples
    if not any(tensor.ndim == 4 for tensor in examples):
        raise InputError(f"{ref.name}: a size was given, but none of its inputs has the shape of images; leave it out")
    size = ref.size_px
    resize = nn.functional.interpolate
    return tuple(resize(t.float(), size=size).to(t.dtype) if t.ndim == 4 else t for t in examples)


def _forward_names(ref: ModelRef, module: nn.Module, count: int) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        names = [argument.name for argument in module._c.forward.schema.arguments[1:]]  # noqa: SLF001
        return [*names[:count], *(f"input{index}" for index in range(len(names), count))]
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in places if p.default is p.empty]
    if len(required) > count:
        raise InputError(
            f"{ref.name}: forward takes {len(required)} inputs ({', '.join(required)}), got {count} example input(s); "
            "return (module, example_inputs) from the function"
        )
    names = [p.name for p in places[:count]]
    return [*names, *(f"input{index}" for index in range(len(names), count))]


def _distinct(module: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Names that no weight has: an ONNX graph keeps inputs and weights in one space of names."""
    taken = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return tuple(f"{clean}_in" if clean in taken else clean for clean in map(identifier, names))


def _preprocess_of(module: nn.Module, examples: Sequence[Tensor]) -> Preprocess | None:
    own = getattr(module, "preprocess", None)
    if isinstance(own, Preprocess):
        return own
    if len(examples) != 1 or examples[0].ndim != 4 or not examples[0].is_floating_point():
        return None
    _, channels, height, width = examples[0].shape
    if channels == 3:
        return Preprocess(height_px=height, width_px=width)
    if channels == 1:
        return Preprocess(height_px=height, width_px=width, mean=(0.0,), std=(1.0,), color="gray")
    return None


def _from_zoo(ref: ModelRef) -> Source:
    entry = MODELS[ref.name]
    trained = ref.weights is None and entry.weights is not None
    generator = torch.Generator().manual_seed(0)
    return Source(
        module=build(ref.name, ref.weights),
        example_inputs=(torch.rand(1, *entry.shape, generator=generator),),
        preprocess=entry.preprocess,
        asset=entry.data if trained else None,
        class_names=entry.classes or None if trained else None,
        detection=entry.detection,
        notes=(_RANDOM,) if entry.weights is None and ref.weights in (None, "random") else (),
    )
