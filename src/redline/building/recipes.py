"""Which engines to build of a model, and the file that each is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from redline.core.artifact import Argument, OnnxModel
from redline.core.errors import InputError
from redline.core.samples import Samples
from redline.core.session import Backend
from redline.data.sources import load_samples
from redline.data.synthetic import synthetic_samples
from redline.transforms.half import sensitive_nodes, to_half
from redline.transforms.quantize import StaticOptions, quantize_static

_SEED = 0
_SYNTHETIC = 32
_FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One engine to build.

    Attributes:
        name: Such as ``fp16`` or ``int8_strong``; the plan is named after it.
        precision: What was asked for.
        typing: ``weak`` or ``strong``.
        calibrator: For INT8: ``entropy``, ``minmax`` or ``qdq``.
        refused: Why this TensorRT cannot do that.
    """

    name: str
    precision: str
    typing: str
    calibrator: str | None = None
    refused: str | None = None

    @property
    def converts(self) -> bool:
        """Whether the file is converted before, instead of leaving it to the builder."""
        return self.calibrator == "qdq" or (self.typing == "strong" and self.precision in ("fp16", "bf16"))

    def backend_options(self) -> dict[str, Argument]:
        """What the backend has to know of it."""
        options: dict[str, Argument] = {"typing": self.typing, "precision": self.precision}
        if self.calibrator in ("entropy", "minmax"):
            options["calibrator"] = self.calibrator
        return options


@runtime_checkable
class HasTypings(Protocol):
    """A backend whose builder knows weak or strong typing, or both."""

    @property
    def typings(self) -> tuple[str, ...]:
        """``weak``, ``strong`` or both; what ``auto`` takes first."""
        ...


def recipes_for(backend: Backend, precisions: tuple[str, ...], *, typing: str, calibrator: str) -> list[Recipe]:
    """What to build: each precision in each typing that was asked for.

    What this TensorRT cannot do is a recipe too, with the reason.
    """
    known = backend.typings if isinstance(backend, HasTypings) else ("strong",)
    wanted = {"auto": known[:1], "both": ("weak", "strong")}.get(typing, (typing,))
    recipes = []
    for precision in dict.fromkeys(precisions):
        for one in wanted:
            suffix = f"_{one}" if typing == "both" else ""
            recipes.append(_recipe(f"{precision}{suffix}", precision, one, calibrator, known))
    return recipes


def _recipe(name: str, precision: str, typing: str, calibrator: str, known: tuple[str, ...]) -> Recipe:
    chosen = None
    if precision == "int8":
        chosen = ("entropy" if typing == "weak" else "qdq") if calibrator == "auto" else calibrator
    # A Q/DQ file says itself what is INT8: it builds with weak typing too, where there is no strong one.
    if typing == "strong" and chosen == "qdq" and "strong" not in known:
        typing = "weak"
    refused = None
    if typing not in known:
        there = " and ".join(known)
        refused = f"this TensorRT has no {typing} typing, only {there}; use --typing {known[0]}"
    elif typing == "strong" and chosen in ("entropy", "minmax"):
        refused = f"calibrators ended with weak typing, got calibrator {chosen}; use --calibrator qdq"
    return Recipe(name=name, precision=precision, typing=typing, calibrator=chosen, refused=refused)


def find_samples(
    model: OnnxModel, data: Path | None, labels: Path | None, limit: int, *, calibrate: bool
) -> tuple[Samples, Samples, list[str]]:
    """Samples to calibrate on, others to verify on, and what the user should know about them.

    Raises:
        InputError: INT8 needs real samples and there are none.
    """
    if data is None:
        if calibrate:
            raise InputError("INT8 needs --data: a folder of images like those in production, or an .npz")
        warning = "no --data was given: agreement is on random numbers, which show gross errors only"
        random = synthetic_samples(model.signature, min(limit, _SYNTHETIC), seed=_SEED)
        return random, random, [warning]
    found = load_samples(
        data,
        model.signature,
        model.usage.preprocess,
        labels=labels,
        classes=model.usage.class_names or None,
        limit=2 * limit if calibrate else limit,
    )
    if not calibrate:
        return found, found, []
    if len(found) < _FEW:
        return found, found, [f"only {len(found)} samples: INT8 is verified on what it was calibrated on"]
    calibration, verification = found.split(min(limit, len(found) - max(_FEW // 2, len(found) // 4)), seed=_SEED)
    return calibration, verification, []


def prepare_file(source: OnnxModel, recipe: Recipe, folder: Path, samples: Samples | None) -> OnnxModel:
    """The file to build from: the source, or one converted beforehand and kept beside the plan.

    Raises:
        InputError: INT8 without samples, or a conversion that Redline does not make.
    """
    if not recipe.converts:
        return source
    path = folder / f"{source.path.stem}_{recipe.name}.onnx"
    if recipe.precision == "int8":
        if samples is None:
            raise InputError("INT8 needs samples to calibrate on, got none")
        return quantize_static(source, path, samples, StaticOptions(target="tensorrt"))
    if recipe.precision == "bf16":
        raise InputError("bf16 with strong typing needs a bf16 graph, which Redline does not make; use fp16")
    return to_half(source, path, keep_nodes=sensitive_nodes(source))
