"""The folder of the recommended variant: its file or engine, and a manifest that says what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redline.core.artifact import Argument, Engine
from redline.core.errors import InputError
from redline.core.files import sha256_of, whole_folder
from redline.core.plain import to_plain
from redline.core.preprocess import Preprocess
from redline.core.tensor import TensorSpec
from redline.findings.claims import Claim, claim_of
from redline.study.records import Model, ModelFile, VariantFound
from redline.study.rows import Study

MANIFEST = "manifest.json"
_MEASURED = (
    "batch", "time_s", "p90_s", "throughput_per_s", "host_bytes", "size_bytes", "top1_agreement", "accuracy",
    "accuracy_drop", "max_abs",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchUse:
    """How PyTorch loads and runs the recommended variant."""

    ref: ModelFile | None
    weights_file: str | None
    options: Mapping[str, Argument]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ``best/`` says of itself; each file in it with its digest.

    Attributes:
        precision: What ran, as it was measured.
        engine: The engine's file; None where the runtime reads the model.
        model: The ONNX file.
        torch: Where PyTorch runs it.
        measured: Its figures, and what may be said of its speed.
    """

    format: int = 1
    variant: str
    title: str
    backend: str
    precision: str
    layers: str
    engine: str | None
    model: str | None
    torch: TorchUse | None
    sha256: Mapping[str, str]
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None
    measured: Mapping[str, int | float | Claim | None]
    recommendation: tuple[str, ...]
    run_id: str
    command: str


def check_best(folder: Path, *, begun: bool) -> None:
    """Refuse to replace a folder ``best`` that no tune wrote.

    Raises:
        InputError: there is one.
    """
    best = folder / "best"
    if not begun and best.exists() and not (best / MANIFEST).is_file():
        raise InputError(f"{best} is not of a tune and would be replaced; take another folder")


def write_best(study: Study, variants: Sequence[VariantFound], folder: Path) -> Path | None:
    """Write ``best/`` whole or not at all; None where nothing is recommended.

    Args:
        study: A tune that was concluded.
        variants: What its variants are.
        folder: The tune's.
    """
    row = next((row for row in study.rows if row.recommended), None)
    best = folder / "best"
    if row is None or study.conclusion is None:
        shutil.rmtree(best, ignore_errors=True)
        return None
    found = next(v for v in reversed(variants) if (v.variant, v.batch) == (row.variant, row.batch))
    model = study.run.models[0]
    with whole_folder(best) as scratch:
        engine, onnx_file, torch = _copy(found, model, folder, scratch)
        manifest = Manifest(
            variant=row.variant,
            title=row.title,
            backend=row.runtime,
            precision=row.precision,
            layers=row.layers_text,
            engine=engine,
            model=onnx_file,
            torch=torch,
            sha256={path.name: sha256_of(path) for path in sorted(scratch.iterdir())},
            threads=study.run.settings.threads,
            inputs=model.signature.inputs,
            outputs=model.signature.outputs,
            preprocess=model.preprocess,
            class_names=model.class_names or None,
            measured={name: getattr(row, name) for name in _MEASURED} | {"speedup": claim_of(row)},
            recommendation=study.conclusion.sentences,
            run_id=study.run.run_id,
            command=study.run.command,
        )
        plain = to_plain(manifest)
        if isinstance(plain, dict) and isinstance(plain["torch"], dict):
            options = plain["torch"].pop("options")  # they lie beside the reference, as they are passed on
            plain["torch"] |= options if isinstance(options, dict) else {}
        (scratch / MANIFEST).write_text(json.dumps(plain, indent=2) + "\n")
    return best


def _copy(
    found: VariantFound, model: Model, folder: Path, scratch: Path
) -> tuple[str | None, str | None, TorchUse | None]:
    """The names of the engine and of the ONNX file, or how PyTorch runs it."""
    if found.runtime == "torch":
        weights = "weights.safetensors" if model.weights_file else None
        if model.weights_file and weights:
            shutil.copy2(folder / model.weights_file, scratch / weights)
        return None, None, TorchUse(ref=model.ref, weights_file=weights, options=found.options)
    made = folder / "artifacts" / (found.artifact or "")
    shutil.copy2(made if made.is_file() else Path(model.name), scratch / "model.onnx")
    sidecar = _engine_of(found, folder)
    if sidecar is None:
        return None, "model.onnx", None
    engine = Engine.read(sidecar)
    shutil.copy2(engine.path, scratch / engine.path.name)
    shutil.copy2(sidecar, scratch / sidecar.name)
    return engine.path.name, "model.onnx", None


def _engine_of(found: VariantFound, folder: Path) -> Path | None:
    engines = [*(folder / "engines").glob(f"{found.variant}/batch{found.batch}/*.engine.json")]
    engines += (folder / "engines").glob(f"{found.variant}/*.engine.json")
    return next(iter(sorted(engines)), None)
