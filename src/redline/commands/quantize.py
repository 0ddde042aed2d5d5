"""Quantize an ONNX file: INT8 with or without calibration, or half precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from redline.core.artifact import OnnxModel
from redline.core.errors import InputError
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.sources import load_samples
from redline.formats.onnx_file import read_onnx
from redline.opening.sessions import open_onnx
from redline.transforms.calibrate import METHODS, Method, Progress
from redline.transforms.half import to_half
from redline.transforms.layer_error import LayerError, layer_errors, suggest
from redline.transforms.quantize import StaticOptions, quantize_dynamic, quantize_static
from redline.transforms.quantize_auto import Gate as AutoGate
from redline.transforms.quantize_auto import GateResult, Try, quantize_auto
from redline.transforms.quantize_presets import Target, preset_for
from redline.verification.compare import Agreement, Gate, compare_outputs, outputs_of

Mode = Literal["static", "dynamic", "fp16"]
MODES: tuple[str, ...] = get_args(Mode)
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """What may be said beyond the mode.

    Attributes:
        target: The runtime that the file is for.
        method: How static quantization chooses ranges.
        samples: The most samples to calibrate on.
        labels: A CSV of labels for the samples, for the gate of ``auto``.
        keep: Nodes to leave in floating point.
        auto: Leave the fewest layers in floating point that make ``gate`` pass. Half of the samples at least are
            held back from calibration to judge on.
        report: Measure the error of every layer.
        gate: What ``auto`` has to reach.
    """

    target: Target = "onnxruntime"
    method: Method = "minmax"
    samples: int = 128
    labels: Path | None = None
    keep: tuple[str, ...] = ()
    auto: bool = False
    report: bool = False
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        preset_for(self.target)
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, expected one of {', '.join(METHODS)}")
        if self.samples < 1:
            raise InputError(f"samples is {self.samples}, expected at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """What was made of what.

    Attributes:
        source: The model that was given.
        model: The model that was written; its layers are read from the file.
        samples: How many samples were calibrated on; 0 where none were needed.
        skipped: How many files of the data could not be used.
        errors: Each layer's error, worst first; empty unless a report or ``auto`` needed it.
        suggested: Layers that the errors say to leave in floating point.
        kept: Layers that were left in floating point.
        tried: What ``auto`` tried.
        expectation: Where the file is known to be slow.
    """

    source: OnnxModel
    model: OnnxModel
    samples: int = 0
    skipped: int = 0
    errors: tuple[LayerError, ...] = ()
    suggested: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    tried: tuple[Try, ...] = ()
    expectation: str | None = None


def quantize(
    model: str | Path,
    out: str | Path,
    *,
    mode: Mode = "static",
    data: str | Path | None = None,
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Make a smaller, usually faster model of a float32 one.

    Args:
        model: The ONNX file; it is left as it is.
        out: Where the quantized file goes.
        mode: ``static`` (INT8 with ranges observed on ``data``), ``dynamic`` (INT8, ranges found in every call) or
            ``fp16``.
        data: Real samples, a folder of images or ``.npz``; needed for ``static``.
        options: Target, calibration method, layers to leave alone.
        progress: Called with (steps done, steps in all).

    Raises:
        InputError: a file or option that is not usable, or samples that are missing or do not fit.
        QuantizeError: the model cannot be quantized, or no choice of layers passes the gate of ``auto``.
    """
    options = options or QuantizeOptions()
    source_path, target_path = Path(model), Path(out)
    if mode not in MODES:
        raise InputError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    if source_path.resolve() == target_path.resolve():
        raise InputError(f"got {out} as input and output, expected another output file; the model is left as it is")
    if mode != "static" and (options.auto or options.report or options.keep):
        raise InputError(f"mode is {mode!r}, but --auto, --report and --keep need --mode static")
    source = read_onnx(source_path)
    if mode == "fp16":
        return Quantized(source=source, model=to_half(source, target_path))
    if mode == "dynamic":
        return Quantized(source=source, model=quantize_dynamic(source, target_path, target=options.target))
    if data is None:
        raise InputError("static quantization needs --data: a folder of images like those in production, or an .npz")
    return _static(source, target_path, Path(data), options, progress)


def agreement_gate(reference: OnnxModel, samples: Samples, gate: Gate) -> AutoGate:
    """A gate that compares a candidate's answers with the float model's in ONNX Runtime, and with labels if any."""
    answers = _answers(reference, samples)

    def judge(candidate: OnnxModel) -> GateResult:
        given = _answers(candidate, samples)
        agreement = compare_outputs(answers, given, labels=samples.labels, precision="int8", gate=gate)
        return GateResult(passed=agreement.passed, score=_score(agreement), reason=_in_words(agreement))

    return judge


def _static(source: OnnxModel, out: Path, data: Path, options: QuantizeOptions, progress: Progress | None) -> Quantized:
    wanted = 2 * options.samples if options.auto else options.samples
    loaded = load_samples(
        data,
        source.signature,
        source.usage.preprocess,
        labels=options.labels,
        classes=source.usage.class_names or None,
        limit=wanted,
    )
    chosen = StaticOptions(target=options.target, method=options.method, keep_float=options.keep)
    errors: tuple[LayerError, ...] = ()
    tried: tuple[Try, ...] = ()
    kept = options.keep
    if options.auto:
        calibration, judged = loaded.split(options.samples, seed=_SEED)
        gate = agreement_gate(source, judged, options.gate)
        result = quantize_auto(source, out, calibration, chosen, gate, progress=progress)
        made, tried, errors, kept = result.model, result.tried, result.errors, (*options.keep, *result.kept)
    else:
        calibration = loaded
        made = quantize_static(source, out, calibration, chosen, progress=progress)
    if options.report and not errors:
        errors = layer_errors(source, calibration, chosen, progress=progress)
    return Quantized(
        source=source,
        model=made,
        samples=len(calibration),
        skipped=len(loaded.skipped),
        errors=errors,
        suggested=suggest(errors),
        kept=kept,
        tried=tried,
        expectation=preset_for(options.target).elsewhere,
    )


def _answers(model: OnnxModel, samples: Samples) -> dict[str, Array]:
    session = open_onnx(model)
    try:
        return outputs_of(session, samples, 1)
    finally:
        session.close()


def _score(agreement: Agreement) -> float:
    """Larger is better: top-1 agreement where there are classes, else the worst output's SNR."""
    if agreement.top1_agreement is not None:
        drop = agreement.accuracy_change.drop if agreement.accuracy_change else 0.0
        return agreement.top1_agreement - max(drop, 0.0)
    return min((output.errors.signal_snr_db for output in agreement.outputs if output.errors), default=float("-inf"))


def _in_words(agreement: Agreement) -> str:
    return agreement.reason or agreement.evidence or "all outputs within tolerance"
