"""Do candidates answer as a reference does? Models, files and engines in, a verdict on each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.core.artifact import Precision
from redline.core.errors import BuildError, EngineMismatchError, InputError, RedlineError
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.sources import load_asset, load_samples
from redline.data.synthetic import synthetic_samples
from redline.opening.opening import Opened, is_torch, open_any
from redline.verification.compare import Agreement, Gate, compare_outputs, outputs_of
from redline.verification.dependence import Dependence, dependence
from redline.verification.reference import require_fp32

__all__ = ["Verdict", "Verification", "verify"]

_BATCH_SIZES = (1, 8)
_SYNTHETIC = 32
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found about one candidate.

    Attributes:
        candidate: As the user named it.
        precision: The coarsest of its layers; None where it could not be opened.
        layers: The precision of its layers, in words.
        agreements: By batch size.
        failed: Why there are no agreements.
        notes: What the user should know.
    """

    candidate: str
    precision: Precision | None = None
    layers: str | None = None
    agreements: tuple[tuple[int, Agreement], ...] = ()
    failed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it passed at every batch size."""
        return self.failed is None and all(agreement.passed for _, agreement in self.agreements)

    @property
    def reason(self) -> str | None:
        """Why it did not, in words with numbers."""
        reasons = [f"batch {batch}: {agreement.reason}" for batch, agreement in self.agreements if agreement.reason]
        return self.failed or "; ".join(reasons) or None

    def to_json(self) -> dict[str, Any]:
        """As part of the document that ``redline verify --json`` prints."""
        return {
            "candidate": self.candidate,
            "precision": self.precision,
            "layers": self.layers,
            "passed": self.passed,
            "reason": self.reason,
            "batches": [{"batch": batch, **agreement.to_json(self.candidate)} for batch, agreement in self.agreements],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Every candidate's verdict, and on what it rests."""

    reference: str
    samples: Samples
    dependence: Dependence
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every candidate passed."""
        return all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "reference": self.reference,
            "passed": self.passed,
            "data": {
                "source": self.samples.source,
                "samples": len(self.samples),
                "labelled": self.samples.labels is not None,
                "skipped": [{"name": one.name, "reason": one.reason} for one in self.samples.skipped],
                **self.dependence.to_json(),
            },
            "warnings": list(self.warnings),
            "candidates": [verdict.to_json() for verdict in self.verdicts],
        }


def verify(
    reference: str | Path,
    candidates: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    labels: str | Path | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    min_agreement: float = 0.99,
    max_accuracy_drop: float = 0.01,
    samples: int = 200,
    weights: str | Path | None = None,
) -> Verification:
    """Run reference and candidates on the same samples, at batch 1 and 8, and judge each candidate.

    Args:
        reference: A PyTorch model, ONNX file, engine, or folder of a tune. An ONNX file runs as it is, without the
            runtime's graph optimizations.
        candidates: The same kinds.
        data: Real samples: a folder of images or an ``.npz``. Without, the reference's own data where Redline ships
            some, else random numbers, with a warning.
        labels: A CSV file of labels for a folder of images.
        atol: Absolute tolerance instead of the precision's own.
        rtol: Relative tolerance instead of the precision's own.
        min_agreement: Least share of samples with the reference's top-1 class.
        max_accuracy_drop: By how much accuracy against labels may fall.
        samples: The most samples to take.
        weights: A checkpoint for every PyTorch model among them.

    Raises:
        InputError: something named is not there or not usable. A candidate that only answers wrongly, or that its
            runtime refuses, is a verdict.
    """
    gate = Gate(min_agreement=min_agreement, max_accuracy_drop=max_accuracy_drop, absolute=atol, relative=rtol)
    if not candidates:
        raise InputError("got no candidate, expected at least one beside the reference")
    if labels is not None and data is None:
        raise InputError(f"got labels in {labels} without data; say what they label with --data")
    right = open_any(reference, weights=_weights_for(reference, weights), as_it_is=True)
    try:
        if is_torch(reference):
            told = {name: getattr(right.session, f"precision_{name}", None) for name in ("evidence", "doubt")}
            require_fp32(right.name, right.layers, **told)
        chosen, warnings = _samples(right, data=data, labels=labels, limit=samples)
        answers = outputs_of(right.session, chosen, _BATCH_SIZES[-1])
    finally:
        right.session.close()
    found = dependence(answers, chosen)
    verdicts = tuple(_judge(name, answers, chosen, gate=gate, weights=weights) for name in candidates)
    return Verification(
        reference=right.name,
        samples=chosen,
        dependence=found,
        verdicts=verdicts,
        warnings=(*right.notes, *warnings, *([found.warning] if found.warning else [])),
    )


def _weights_for(target: str | Path, weights: str | Path | None) -> str | Path | None:
    """A checkpoint belongs to the PyTorch models only; files bring their weights along."""
    return weights if is_torch(target) and not Path(target).is_file() else None


def _samples(
    right: Opened, *, data: str | Path | None, labels: str | Path | None, limit: int
) -> tuple[Samples, list[str]]:
    signature = right.session.signature
    if limit < 1:
        raise InputError(f"samples is {limit}, expected at least 1")
    if data is not None:
        loaded = load_samples(
            Path(data),
            signature,
            right.preprocess,
            labels=Path(labels) if labels is not None else None,
            classes=right.class_names,
            limit=limit,
        )
        arrays = Path(data).suffix in (".npz", ".npy")
        return loaded, [right.assumption] if right.assumption and not arrays else []
    if right.asset is not None and right.preprocess is not None:
        shipped = load_asset(right.asset, right.preprocess, input_name=signature.inputs[0].name)[1]
        step = max(1, len(shipped) // limit)
        return shipped.take(range(0, len(shipped), step)[:limit]), []
    warning = "verified on random numbers, which show gross errors only; give real samples with --data"
    return synthetic_samples(signature, min(limit, _SYNTHETIC), seed=_SEED), [warning]


def _judge(
    target: str | Path, answers: dict[str, Array], samples: Samples, *, gate: Gate, weights: str | Path | None
) -> Verdict:
    name = str(target)
    try:
        opened = open_any(target, weights=_weights_for(target, weights))
    except (BuildError, EngineMismatchError) as error:
        return Verdict(candidate=name, failed=str(error))
    words = opened.layers.describe()
    try:
        given = _answers(opened, samples)
    except RedlineError as error:
        return Verdict(candidate=name, precision=opened.precision, layers=words, failed=str(error))
    except Exception as error:  # noqa: BLE001 (a runtime may raise anything; the other candidates are still judged)
        told = " ".join(str(error).split()) or type(error).__name__
        return Verdict(candidate=name, precision=opened.precision, layers=words, failed=f"it does not run: {told}")
    finally:
        opened.session.close()
    agreements = tuple(
        (batch, compare_outputs(answers, outputs, labels=samples.labels, precision=opened.precision, gate=gate))
        for batch, outputs in given
    )
    notes = dict.fromkeys(note for _, agreement in agreements for note in agreement.notes)
    return Verdict(candidate=name, precision=opened.precision, layers=words, agreements=agreements, notes=tuple(notes))


def _answers(opened: Opened, samples: Samples) -> list[tuple[int, dict[str, Array]]]:
    fixed = opened.session.signature.fixed_batch
    sizes = _BATCH_SIZES if fixed is None else (fixed,)
    return [(size, outputs_of(opened.session, samples, size)) for size in sizes]
