"""A model's ``config.pbtxt`` for Triton: what it takes, how requests are batched, how many instances run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from redline.core.errors import InputError
from redline.core.tensor import Dim, Signature, TensorSpec
from redline.deployment.texts import TEMPLATES

Backend = Literal["onnxruntime", "tensorrt", "python"]
Kind = Literal["cpu", "gpu"]
LABELS_FILE = "labels.txt"
#: Triton's own names of the files that each backend opens.
MODEL_FILES: Mapping[Backend, str] = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}
# https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto, enum DataType
_DATA_TYPES = {
    "bool": "TYPE_BOOL",
    **{f"{kind}{bits}": f"TYPE_{kind.upper()}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"TYPE_FP{bits}" for bits in (16, 32, 64)},
    "bfloat16": "TYPE_BF16",
    "object": "TYPE_STRING",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """How Triton runs a model.

    Attributes:
        max_batch: The most rows that run at once, where the model takes any number of them.
        max_delay_s: How long a batch may wait to fill.
        preferred: Batch sizes that are worth waiting for: those that a TensorRT profile is fastest at.
        instances: How many run side by side, on each GPU where the kind is gpu.
        kind: What they run on.
        threads: Of one instance within an operator, on a CPU.
        profiles: Optimization profiles of a TensorRT plan.
        queue: Requests that may wait; the next is refused with status 503.
        deadline_s: How long one may wait.
    """

    max_batch: int = 32
    max_delay_s: float = 0.0
    preferred: tuple[int, ...] = ()
    instances: int = 1
    kind: Kind = "cpu"
    threads: int = 1
    profiles: int = 1
    queue: int = 256
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in (("max_batch", self.max_batch), ("instances", self.instances), ("threads", self.threads)):
            if value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")
        if self.max_delay_s < 0:
            raise InputError(f"the largest delay is {self.max_delay_s} s, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """What Triton has to know of one model.

    Attributes:
        name: Under which it is asked for.
        backend: Which of Triton's backends runs it.
        class_names: In the order of their indices; none where nobody said.
        usual: Whole shapes for the warm-up, by input, where sizes are dynamic beyond the batch.
    """

    name: str
    backend: Backend
    signature: Signature
    scheduling: Scheduling = field(default_factory=Scheduling)
    class_names: tuple[str, ...] = ()
    usual: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def max_batch(self) -> int:
        """``max_batch_size``: 0 where rows of several requests cannot be joined."""
        return self.scheduling.max_batch if joins(self.signature) else 0

    @property
    def labelled(self) -> str | None:
        """The output whose last size is the number of classes."""
        for spec in self.signature.outputs:
            if self.class_names and spec.shape and spec.shape[-1] == len(self.class_names):
                return spec.name
        return None


def joins(signature: Signature) -> bool:
    """Whether rows of several requests can be joined: every tensor begins with one and the same dynamic size.

    >>> x, y = TensorSpec("x", ("batch", 3), "float32"), TensorSpec("y", ("batch",), "float32")
    >>> joins(Signature((x,), (y,))), joins(Signature((x,), (TensorSpec("found", ("boxes", 6), "float32"),)))
    (True, False)
    """
    firsts = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    return len(firsts) == 1 and isinstance(next(iter(firsts)), str) and bool(signature.inputs)


def why_not_joined(signature: Signature) -> str | None:
    """Why requests of this model are not batched, in words; None where they are."""
    if joins(signature):
        return None
    told = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in (*signature.inputs, *signature.outputs))
    return f"requests are not batched: not every tensor begins with the same dynamic size ({told})"


def config_pbtxt(model: TritonModel, *, comment: str = "") -> str:
    """The text of ``config.pbtxt``.

    Raises:
        InputError: Triton has no such data type, or a tensor has a size of 0.
    """
    return _text("config", model, comment=comment)


def _text(name: str, model: TritonModel, *, comment: str = "") -> str:
    return TEMPLATES.get_template(f"{name}.pbtxt.j2").render(
        model=model,
        comment=comment,
        shapes=warm_up_shapes(model),
        dims=_dims,
        data_type=data_type,
        microseconds=lambda seconds: round(seconds * 1e6),
    )


def same_interface(existing: str, model: TritonModel) -> bool:
    """Whether a ``config.pbtxt`` that is there already says the same of names, types, sizes and backend."""
    return _plain(_text("interface", model)) in _plain(existing)


def _plain(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return "".join("".join(line.split()) for line in lines)


def data_type(spec: TensorSpec) -> str:
    """Triton's name of a tensor's type.

    Raises:
        InputError: it has none.
    """
    name = "object" if spec.numpy_dtype.kind in "OUS" else spec.numpy_dtype.name
    if name not in _DATA_TYPES:
        raise InputError(f"{spec.name} is {spec.dtype}, expected one of {', '.join(_DATA_TYPES)}: Triton has no other")
    return _DATA_TYPES[name]


def _dims(model: TritonModel, spec: TensorSpec) -> list[int]:
    shape = spec.shape[1:] if model.max_batch else spec.shape
    if 0 in shape:
        raise InputError(
            f"{spec.name} has shape {tuple(shape)}, expected sizes of at least 1: Triton takes no empty tensor"
        )
    return [size if isinstance(size, int) else -1 for size in shape]


def warm_up_shapes(model: TritonModel) -> dict[str, list[int]] | None:
    """The shape of each input in the warm-up, without the batch where there is one; None where it is not known.

    The warm-up sends zeros through every instance before it is ready.
    """
    shapes: dict[str, list[int]] = {}
    for spec in model.signature.inputs:
        sizes: Sequence[Dim] = model.usual.get(spec.name, spec.shape)
        if len(sizes) != len(spec.shape):
            raise InputError(f"{spec.name}: got shape {tuple(sizes)} to warm up with, expected {spec.shape}")
        sizes = sizes[1:] if model.max_batch else sizes
        whole = [size for size in sizes if isinstance(size, int)]
        if len(whole) != len(sizes):
            return None
        shapes[spec.name] = whole
    return shapes


def labels_text(names: Sequence[str]) -> str:
    """One name a line, in the order of the indices."""
    return "".join(" ".join(name.split()) + "\n" for name in names)
