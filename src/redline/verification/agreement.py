"""What a candidate has to reach, and how far it got: values, with their JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from redline.core.errors import InputError
from redline.core.plain import to_plain
from redline.verification.accuracy import Accuracy, AccuracyChange, percent, wilson
from redline.verification.measures import ERROR_NAMES, Errors
from redline.verification.tolerance import Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a candidate has to reach to be recommended.

    Attributes:
        min_agreement: Least share of samples that get the reference's class, 0 to 1.
        max_accuracy_drop: By how much accuracy against labels may fall, 0 to 1.
        absolute: The user's own absolute tolerance instead of the precision's.
        relative: The same, relative.
        min_snr_db: Least centred SNR of a quantized model's outputs that are not classes (boxes, maps, regression):
            20 dB is an RMS error of a tenth of what the output varies by.
    """

    min_agreement: float = 0.99
    max_accuracy_drop: float = 0.01
    absolute: float | None = None
    relative: float | None = None
    min_snr_db: float = 20.0

    def __post_init__(self) -> None:
        for name in ("min_agreement", "max_accuracy_drop"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected 0 to 1 (0.99 is 99 %)")
        for name in ("absolute", "relative"):
            bound = getattr(self, name)
            if bound is not None and not (isfinite(bound) and bound >= 0):
                raise InputError(f"{name} tolerance is {bound}, expected a number of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAgreement:
    """One output of the candidate against the reference's.

    Attributes:
        name: The reference's name for it.
        errors: None where there was nothing to subtract (missing, another shape or kind).
        tolerance: What was allowed.
        within: Whether it was kept.
        problem: Why not, in words.
        notes: What a reader should know although it does not fail.
    """

    name: str
    errors: Errors | None
    tolerance: Tolerance
    within: bool
    problem: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in a result file; numbers that JSON does not have become null."""
        return {
            "name": self.name,
            **(self.errors.to_json() if self.errors else dict.fromkeys(ERROR_NAMES)),
            "tolerance": to_plain(self.tolerance),
            "within": self.within,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The measured agreement of a candidate with the reference, and whether it passes the gate.

    Attributes:
        outputs: One entry for each output of the reference.
        samples: How many samples were compared.
        top1_output: The output that was taken for class scores: the first of floats, shape (samples, 2 or more).
        top1: How many samples got the reference's class; None where no output looks like classes.
        accuracy_change: Against labels; None without them.
        passed: Whether every check passed.
        reason: Why not, in words with numbers.
        notes: What a reader should know although it does not fail.
    """

    outputs: tuple[OutputAgreement, ...]
    samples: int
    top1_output: str | None
    top1: Accuracy | None
    accuracy_change: AccuracyChange | None
    passed: bool
    reason: str | None
    notes: tuple[str, ...] = ()

    @property
    def top1_agreement(self) -> float | None:
        """Share of samples that got the reference's class."""
        return self.top1.value if self.top1 else None

    @property
    def accuracy(self) -> float | None:
        """The candidate's accuracy against labels."""
        return self.accuracy_change.candidate.value if self.accuracy_change else None

    @property
    def reference_accuracy(self) -> float | None:
        """The reference's accuracy on the same samples."""
        return self.accuracy_change.reference.value if self.accuracy_change else None

    @property
    def max_abs(self) -> float | None:
        """Largest absolute error over all outputs; None where none could be compared."""
        found = [output.errors.max_abs for output in self.outputs if output.errors]
        return max(found) if found else None

    @property
    def evidence(self) -> str | None:
        """What the number of samples can show about samples that were not tried (95 % Wilson interval)."""
        if not self.top1:
            return None
        low, high = wilson(self.top1.correct, self.top1.total)
        bound = (
            f"at least {percent(low)}" if self.top1.correct == self.top1.total else f"{percent(low)} to {percent(high)}"
        )
        return f"{self.top1.correct} of {self.top1.total} samples agree; for unseen ones {bound} (95 % confidence)"

    def to_json(self, variant: str) -> dict[str, Any]:
        """The ``agreement`` record of a result file."""
        paired = self.accuracy_change
        return {
            "kind": "agreement",
            "variant": variant,
            "outputs": [output.to_json() for output in self.outputs],
            "samples": self.samples,
            "top1_output": self.top1_output,
            "top1_agreement": self.top1_agreement,
            "accuracy": self.accuracy,
            "reference_accuracy": self.reference_accuracy,
            "broken": paired.broken if paired else None,
            "repaired": paired.repaired if paired else None,
            "passed": self.passed,
            "reason": self.reason,
            "evidence": self.evidence,
            "notes": list(self.notes),
        }
