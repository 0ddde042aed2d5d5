"""Which variants a CPU can run, as a table that can be read: what each needs and how it is opened."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from redline.core.artifact import Argument
from redline.core.errors import InputError

Objective = Literal["latency", "throughput", "memory", "size"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput", "memory", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStep:
    """One model file that tune makes from another.

    Attributes:
        name: Its key in this table.
        suffix: Of the file's name, after the model's.
        parent: The file that it is made from; None for what is made from the PyTorch model.
        title: What the progress display says.
        timeout_s: After which the step is stopped and its variants fail with that reason.
    """

    name: str
    suffix: str
    parent: str | None
    title: str
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run the model.

    Attributes:
        name: Its key, also in the results.
        title: For people.
        runtime: ``torch`` or a name from the table of backends.
        requested: The precision asked for, or ``default`` where the runtime chooses.
        file: The file step whose file it runs; None for PyTorch's own module.
        options: Of the backend, or of the torch session (``mode``, ``dtype``).
        note: What a reader should know beforehand.
        control: The baseline entered a second time, to show what a difference of nothing looks like in this run.
    """

    name: str
    title: str
    runtime: str
    requested: str
    file: str | None = None
    options: Mapping[str, Argument] = field(default_factory=dict)
    note: str | None = None
    control: bool = False


FILES: tuple[FileStep, ...] = (
    FileStep(name="exported", suffix=".onnx", parent=None, title="export to ONNX"),
    FileStep(name="optimized", suffix="_opt.onnx", parent="exported", title="optimize the graph"),
    FileStep(name="fp16", suffix="_fp16.onnx", parent="optimized", title="convert to FP16"),
    FileStep(name="int8_dynamic", suffix="_int8_dynamic.onnx", parent="optimized", title="quantize, dynamic INT8"),
    FileStep(name="int8_static", suffix="_int8_static.onnx", parent="optimized", title="quantize, static INT8"),
    FileStep(name="int8_nncf", suffix="_int8_nncf.onnx", parent="optimized", title="quantize, NNCF INT8"),
)

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="torch-eager-fp32",
        title="PyTorch eager",
        runtime="torch",
        requested="fp32",
        options={"mode": "eager", "dtype": "fp32"},
    ),
    Variant(
        name="torch-eager-bf16",
        title="PyTorch eager, bf16 channels-last",
        runtime="torch",
        requested="bf16",
        options={"mode": "eager", "dtype": "bf16"},
    ),
    Variant(
        name="torch-compile-fp32",
        title="torch.compile",
        runtime="torch",
        requested="fp32",
        options={"mode": "compile", "dtype": "fp32"},
    ),
    Variant(
        name="torchscript-fp32",
        title="TorchScript",
        runtime="torch",
        requested="fp32",
        options={"mode": "torchscript", "dtype": "fp32"},
    ),
    Variant(
        name="onnxruntime-fp32",
        title="ONNX Runtime FP32",
        runtime="onnxruntime",
        requested="fp32",
        file="optimized",
    ),
    Variant(
        name="onnxruntime-fp16",
        title="ONNX Runtime FP16 file",
        runtime="onnxruntime",
        requested="fp16",
        file="fp16",
        note="half the file; a CPU without FP16 arithmetic computes in FP32 between casts",
    ),
    Variant(
        name="onnxruntime-int8-dynamic",
        title="ONNX Runtime INT8 dynamic",
        runtime="onnxruntime",
        requested="int8",
        file="int8_dynamic",
    ),
    Variant(
        name="onnxruntime-int8-static",
        title="ONNX Runtime INT8 static",
        runtime="onnxruntime",
        requested="int8",
        file="int8_static",
    ),
    Variant(
        name="openvino-fp32",
        title="OpenVINO FP32",
        runtime="openvino",
        requested="fp32",
        file="optimized",
        options={"precision": "f32"},
    ),
    Variant(
        name="openvino-default",
        title="OpenVINO as it comes",
        runtime="openvino",
        requested="default",
        file="optimized",
        options={"precision": "default"},
        note="the runtime chooses the precision; the table says which it took",
    ),
    Variant(
        name="openvino-int8-static",
        title="OpenVINO INT8, static Q/DQ",
        runtime="openvino",
        requested="int8",
        file="int8_static",
    ),
    Variant(
        name="openvino-int8-nncf",
        title="OpenVINO INT8, NNCF",
        runtime="openvino",
        requested="int8",
        file="int8_nncf",
    ),
)
AUTO_FILE = FileStep(
    name="int8_auto", suffix="_int8_auto.onnx", parent="optimized", title="find the layers that must stay in float"
)
#: Tried only where static INT8 was measured to change too many answers.
AUTO: tuple[Variant, ...] = (
    Variant(
        name="onnxruntime-int8-auto",
        title="ONNX Runtime INT8, sensitive layers in float",
        runtime="onnxruntime",
        requested="int8",
        file="int8_auto",
    ),
    Variant(
        name="openvino-int8-auto",
        title="OpenVINO INT8, sensitive layers in float",
        runtime="openvino",
        requested="int8",
        file="int8_auto",
    ),
)
BASELINE, BASELINE_WITHOUT_TORCH = "torch-eager-fp32", "onnxruntime-fp32"


def files_of(variants: tuple[Variant, ...], *, have_torch: bool) -> tuple[FileStep, ...]:
    """The file steps that those variants need, parents first; for an ONNX model there is nothing to export."""
    by_name = {step.name: step for step in FILES}
    needed: set[str] = set()
    for variant in variants:
        name = variant.file
        while name is not None:
            needed.add(name)
            name = by_name[name].parent
    return tuple(step for step in FILES if step.name in needed and (have_torch or step.name != "exported"))


def with_control(variants: tuple[Variant, ...], baseline: str) -> tuple[Variant, ...]:
    """The variants and, after the baseline, the baseline once more."""
    found: list[Variant] = []
    for variant in variants:
        found.append(variant)
        if variant.name == baseline:
            found.append(replace(variant, name=f"{baseline}-control", title=f"{variant.title}, again", control=True))
    return tuple(found)


def choose_variants(names: tuple[str, ...]) -> tuple[Variant, ...]:
    """The variants of those names, all of them for an empty tuple.

    Raises:
        InputError: an unknown name.
    """
    known = {variant.name: variant for variant in VARIANTS}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            raise InputError(f"got variant {name!r}; {hint}")
    return tuple(v for v in VARIANTS if not names or v.name in names)
