"""Which ways there are to run a model, as tables that can be read: what each needs and how it is opened."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from redline.core.artifact import Argument
from redline.core.errors import InputError

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStep:
    """One model file that is made from another.

    Attributes:
        name: Its key in this table.
        suffix: Of the file's name, after the model's.
        parent: The file that it is made from; None for what is made from the PyTorch model.
        title: What the progress display says.
        function: The step in :mod:`redline.commands.steps` that makes it.
        calibrated: Whether the step takes samples.
        timeout_s: After which the step is stopped and its variants fail with that reason.
    """

    name: str
    suffix: str
    parent: str | None
    title: str
    function: str
    calibrated: bool = False
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run the model.

    Attributes:
        name: Its key among those of its device, also in the results.
        title: For people.
        backend: What a user asks for it by, together with the precision.
        runtime: ``torch`` or a name from the table of backends.
        requested: The precision asked for, or ``default`` where the runtime chooses.
        kind: The precision's word in a grid, where one precision has several kinds: ``int8-dynamic``.
        device: Where it runs.
        file: The file step whose file it runs; None for PyTorch's own module.
        compiler: The step in :mod:`redline.commands.steps` that makes an engine of it; None is ``compile_engine`` where
            there is a file, and nothing where there is none.
        options: Of the backend, or of the torch session (``mode``, ``dtype``).
        note: What a reader should know beforehand.
        control: The baseline entered a second time, to show what a difference of nothing looks like in this run.
        fixed: Whether it is compiled for the one batch that it is called with.
    """

    name: str
    title: str
    backend: str
    runtime: str
    requested: str
    kind: str = ""
    device: Device = "cpu"
    file: str | None = None
    compiler: str | None = None
    options: Mapping[str, Argument] = field(default_factory=dict)
    note: str | None = None
    control: bool = False
    fixed: bool = False

    @property
    def precision_word(self) -> str:
        """What a grid asks for it by."""
        return self.kind or self.requested


FILES: tuple[FileStep, ...] = (
    FileStep(name="exported", suffix=".onnx", parent=None, title="export to ONNX", function="export"),
    FileStep(name="optimized", suffix="_opt.onnx", parent="exported", title="optimize the graph", function="optimize"),
    FileStep(name="fp16", suffix="_fp16.onnx", parent="optimized", title="convert to FP16", function="fp16"),
    FileStep(
        name="int8_dynamic",
        suffix="_int8_dynamic.onnx",
        parent="optimized",
        title="quantize, dynamic INT8",
        function="int8_dynamic",
    ),
    FileStep(
        name="int8_static",
        suffix="_int8_static.onnx",
        parent="optimized",
        title="quantize, static INT8",
        function="int8_static",
        calibrated=True,
    ),
    FileStep(
        name="int8_nncf",
        suffix="_int8_nncf.onnx",
        parent="optimized",
        title="quantize, NNCF INT8",
        function="int8_nncf",
        calibrated=True,
    ),
)
AUTO_FILE = FileStep(
    name="int8_auto",
    suffix="_int8_auto.onnx",
    parent="optimized",
    title="find the layers that must stay in float",
    function="int8_auto",
)

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="torch-eager-fp32",
        title="PyTorch eager",
        backend="torch",
        runtime="torch",
        requested="fp32",
        options={"mode": "eager", "dtype": "fp32"},
    ),
    Variant(
        name="torch-eager-bf16",
        title="PyTorch eager, bf16 channels-last",
        backend="torch",
        runtime="torch",
        requested="bf16",
        options={"mode": "eager", "dtype": "bf16"},
    ),
    Variant(
        name="torch-compile-fp32",
        title="torch.compile",
        backend="torch-compile",
        runtime="torch",
        requested="fp32",
        options={"mode": "compile", "dtype": "fp32"},
    ),
    Variant(
        name="torchscript-fp32",
        title="TorchScript",
        backend="torchscript",
        runtime="torch",
        requested="fp32",
        options={"mode": "torchscript", "dtype": "fp32"},
    ),
    Variant(
        name="onnxruntime-fp32",
        title="ONNX Runtime FP32",
        backend="onnxruntime",
        runtime="onnxruntime",
        requested="fp32",
        file="optimized",
    ),
    Variant(
        name="onnxruntime-fp16",
        title="ONNX Runtime FP16 file",
        backend="onnxruntime",
        runtime="onnxruntime",
        requested="fp16",
        file="fp16",
        note="half the file; a CPU without FP16 arithmetic computes in FP32 between casts",
    ),
    Variant(
        name="onnxruntime-int8-dynamic",
        title="ONNX Runtime INT8 dynamic",
        backend="onnxruntime",
        runtime="onnxruntime",
        requested="int8",
        kind="int8-dynamic",
        file="int8_dynamic",
    ),
    Variant(
        name="onnxruntime-int8-static",
        title="ONNX Runtime INT8 static",
        backend="onnxruntime",
        runtime="onnxruntime",
        requested="int8",
        file="int8_static",
    ),
    Variant(
        name="openvino-fp32",
        title="OpenVINO FP32",
        backend="openvino",
        runtime="openvino",
        requested="fp32",
        file="optimized",
        options={"precision": "f32"},
    ),
    Variant(
        name="openvino-default",
        title="OpenVINO as it comes",
        backend="openvino",
        runtime="openvino",
        requested="default",
        file="optimized",
        options={"precision": "default"},
        note="the runtime chooses the precision; the table says which it took",
    ),
    Variant(
        name="openvino-int8-static",
        title="OpenVINO INT8, static Q/DQ",
        backend="openvino",
        runtime="openvino",
        requested="int8",
        file="int8_static",
    ),
    Variant(
        name="openvino-int8-nncf",
        title="OpenVINO INT8, NNCF",
        backend="openvino",
        runtime="openvino",
        requested="int8",
        kind="int8-nncf",
        file="int8_nncf",
    ),
    Variant(
        name="openvino-fp32-fixed",
        title="OpenVINO FP32, fixed shape",
        backend="openvino",
        runtime="openvino",
        requested="fp32",
        kind="fp32-fixed",
        file="optimized",
        options={"precision": "f32"},
        fixed=True,
    ),
    Variant(
        name="openvino-int8-static-fixed",
        title="OpenVINO INT8, static Q/DQ, fixed shape",
        backend="openvino",
        runtime="openvino",
        requested="int8",
        kind="int8-fixed",
        file="int8_static",
        fixed=True,
    ),
    Variant(
        name="openvino-int8-nncf-fixed",
        title="OpenVINO INT8, NNCF, fixed shape",
        backend="openvino",
        runtime="openvino",
        requested="int8",
        kind="int8-nncf-fixed",
        file="int8_nncf",
        fixed=True,
    ),
    Variant(
        name="torch-eager-fp32",
        title="PyTorch eager",
        backend="torch",
        runtime="torch",
        requested="fp32",
        device="cuda",
        options={"mode": "eager", "dtype": "fp32", "device": "cuda"},
    ),
    Variant(
        name="torch-eager-tf32",
        title="PyTorch eager, TF32",
        backend="torch",
        runtime="torch",
        requested="tf32",
        device="cuda",
        options={"mode": "eager", "dtype": "tf32", "device": "cuda"},
    ),
    Variant(
        name="torch-eager-fp16",
        title="PyTorch eager, FP16",
        backend="torch",
        runtime="torch",
        requested="fp16",
        device="cuda",
        options={"mode": "eager", "dtype": "fp16", "device": "cuda"},
    ),
    Variant(
        name="torch-graph-fp16",
        title="PyTorch FP16, channels-last, CUDA graph",
        backend="torch-graph",
        runtime="torch",
        requested="fp16",
        device="cuda",
        options={"mode": "eager", "dtype": "fp16", "layout": "channels_last", "cuda_graph": True, "device": "cuda"},
    ),
    Variant(
        name="torch-compile-fp32",
        title="torch.compile",
        backend="torch-compile",
        runtime="torch",
        requested="fp32",
        device="cuda",
        options={"mode": "compile", "dtype": "fp32", "device": "cuda"},
    ),
    Variant(
        name="torch-compile-fp16",
        title="torch.compile, FP16 channels-last",
        backend="torch-compile",
        runtime="torch",
        requested="fp16",
        device="cuda",
        options={"mode": "compile", "dtype": "fp16", "device": "cuda", "layout": "channels_last"},
    ),
    Variant(
        name="onnxruntime-fp32",
        title="ONNX Runtime CUDA, FP32",
        backend="onnxruntime",
        runtime="onnxruntime-cuda",
        requested="fp32",
        device="cuda",
        file="optimized",
        options={"tf32": False},
    ),
    Variant(
        name="onnxruntime-tf32",
        title="ONNX Runtime CUDA, TF32",
        backend="onnxruntime",
        runtime="onnxruntime-cuda",
        requested="tf32",
        device="cuda",
        file="optimized",
        options={"tf32": True},
    ),
    Variant(
        name="onnxruntime-fp16",
        title="ONNX Runtime CUDA, FP16 file",
        backend="onnxruntime",
        runtime="onnxruntime-cuda",
        requested="fp16",
        device="cuda",
        file="fp16",
    ),
    Variant(
        name="tensorrt-fp32",
        title="TensorRT FP32",
        backend="tensorrt",
        runtime="tensorrt",
        requested="fp32",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "fp32"},
    ),
    Variant(
        name="tensorrt-tf32",
        title="TensorRT TF32",
        backend="tensorrt",
        runtime="tensorrt",
        requested="tf32",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "tf32"},
    ),
    Variant(
        name="tensorrt-fp16",
        title="TensorRT FP16",
        backend="tensorrt",
        runtime="tensorrt",
        requested="fp16",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "fp16"},
    ),
    Variant(
        name="tensorrt-int8",
        title="TensorRT INT8",
        backend="tensorrt",
        runtime="tensorrt",
        requested="int8",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "int8"},
    ),
    Variant(
        name="tensorrt-rtx-fp32",
        title="TensorRT-RTX FP32",
        backend="tensorrt-rtx",
        runtime="tensorrt-rtx",
        requested="fp32",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "fp32"},
    ),
    Variant(
        name="tensorrt-rtx-fp16",
        title="TensorRT-RTX FP16",
        backend="tensorrt-rtx",
        runtime="tensorrt-rtx",
        requested="fp16",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "fp16"},
    ),
    Variant(
        name="tensorrt-rtx-int8",
        title="TensorRT-RTX INT8",
        backend="tensorrt-rtx",
        runtime="tensorrt-rtx",
        requested="int8",
        device="cuda",
        file="optimized",
        compiler="compile_tensorrt",
        options={"precision": "int8"},
    ),
    Variant(
        name="torch-tensorrt-fp32",
        title="Torch-TensorRT FP32",
        backend="torch-tensorrt",
        runtime="torch-tensorrt",
        requested="fp32",
        device="cuda",
        compiler="compile_torch_tensorrt",
        options={"precision": "fp32"},
    ),
    Variant(
        name="torch-tensorrt-fp16",
        title="Torch-TensorRT FP16",
        backend="torch-tensorrt",
        runtime="torch-tensorrt",
        requested="fp16",
        device="cuda",
        compiler="compile_torch_tensorrt",
        options={"precision": "fp16"},
    ),
)
#: Tried only where static INT8 was measured to change too many answers.
AUTO: tuple[Variant, ...] = (
    Variant(
        name="onnxruntime-int8-auto",
        title="ONNX Runtime INT8, sensitive layers in float",
        backend="onnxruntime",
        runtime="onnxruntime",
        requested="int8",
        kind="int8-auto",
        file="int8_auto",
    ),
    Variant(
        name="openvino-int8-auto",
        title="OpenVINO INT8, sensitive layers in float",
        backend="openvino",
        runtime="openvino",
        requested="int8",
        kind="int8-auto",
        file="int8_auto",
    ),
)


def files_of(variants: tuple[Variant, ...], *, have_torch: bool) -> tuple[FileStep, ...]:
    """The file steps that those variants need, parents first; for an ONNX model there is nothing to export."""
    by_name = {step.name: step for step in (*FILES, AUTO_FILE)}
    needed: set[str] = set()
    for variant in variants:
        name = variant.file
        while name is not None:
            needed.add(name)
            name = by_name[name].parent
    return tuple(s for s in by_name.values() if s.name in needed and (have_torch or s.name != "exported"))


def choose_variants(names: tuple[str, ...], device: Device = "cpu") -> tuple[Variant, ...]:
    """The variants of those names on a device, all of that device for an empty tuple.

    Raises:
        InputError: an unknown name.
    """
    known = {variant.name: variant for variant in VARIANTS if variant.device == device}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            raise InputError(f"got variant {name!r}; {hint}")
    return tuple(v for v in known.values() if not names or v.name in names)
