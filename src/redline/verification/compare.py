"""Does a candidate answer as the reference does? Sessions or their answers in, an :class:`Agreement` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from redline.core.artifact import Precision
from redline.core.errors import DataError, SignatureError
from redline.core.samples import Samples
from redline.core.session import Session
from redline.core.tensor import Array, Signature
from redline.verification.accuracy import Accuracy, AccuracyChange, change, percent, top1_of
from redline.verification.agreement import Agreement, Gate, OutputAgreement
from redline.verification.judge import is_float, judge_output

__all__ = ["Agreement", "Gate", "OutputAgreement", "compare", "compare_outputs", "join_answers", "outputs_of"]


def compare(
    reference: Session,
    candidate: Session,
    samples: Samples,
    *,
    precision: Precision = "fp32",
    gate: Gate | None = None,
    batch_size: int = 8,
) -> Agreement:
    """Run both on the samples and judge the candidate.

    Args:
        reference: The session that is right.
        candidate: The session to judge.
        samples: Real inputs; zeros prove nothing.
        precision: What the candidate computes in (as read from it), which sets the tolerance.
        gate: What it has to reach.
        batch_size: Samples a call; a session of a fixed batch takes its own.

    Raises:
        SignatureError: the samples do not fit one of the sessions.
    """
    right, given = outputs_of(reference, samples, batch_size), outputs_of(candidate, samples, batch_size)
    return compare_outputs(right, given, labels=samples.labels, precision=precision, gate=gate)


def outputs_of(session: Session, samples: Samples, batch_size: int) -> dict[str, Array]:
    """A session's answers on all samples, first axis samples.

    The last batch is filled up with the first samples again, so that every call has the same shape. An output
    without a batch axis has one row for each call.

    Raises:
        SignatureError: the samples do not fit the session.
        DataError: an output whose shape changes from call to call beyond its first axis.
    """
    names = _input_names(session.signature, samples)
    rows = session.signature.fixed_batch or batch_size
    batches = (samples.batch(start, rows) for start in range(0, len(samples) if names else 1, rows))
    answers = (session({theirs: batch[ours] for theirs, ours in names.items()}) for batch in batches)
    return join_answers(answers, rows=rows if names else None, count=len(samples))


def join_answers(answers: Iterable[Mapping[str, Array]], *, rows: int | None, count: int) -> dict[str, Array]:
    """The answers of several calls as one array an output, first axis samples.

    Args:
        answers: Of each call.
        rows: Samples a call; None for a model without inputs.
        count: How many samples there are; what was filled up beyond them is cut off.

    Raises:
        DataError: an output whose shape changes from call to call beyond its first axis.
    """
    collected: dict[str, list[Array]] = {}
    batched: dict[str, bool] = {}
    for one in answers:
        for name, answer in one.items():
            array = np.asarray(answer)
            batched[name] = batched.get(name, True) and array.ndim > 0 and len(array) == rows
            collected.setdefault(name, []).append(array)
    return {name: _join(name, arrays, batched=batched[name], count=count) for name, arrays in collected.items()}


def compare_outputs(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    *,
    labels: Array | None = None,
    precision: Precision = "fp32",
    gate: Gate | None = None,
) -> Agreement:
    """Judge answers that were collected by :func:`outputs_of`.

    Nothing here raises because of a candidate's answers: other names, shapes, dtypes and NaN are reasons to fail.

    Raises:
        DataError: labels that are no class of the reference.
    """
    gate = gate or Gate()
    pairs = _pair(reference, candidate)
    top1_name = next((name for name, right in reference.items() if _looks_like_classes(right)), None)
    outputs = tuple(
        judge_output(
            name,
            reference[name],
            None if theirs is None else candidate[theirs],
            precision=precision,
            gate=gate,
            judged_by_top1=name == top1_name,
        )
        for name, theirs in pairs.names.items()
    )
    top1, accuracy = _top1(reference, candidate, pairs.names, top1_name, labels)
    reasons = [output.problem for output in outputs if output.problem]
    reasons += _gate_reasons(top1, accuracy, gate)
    if not reference:
        reasons.append("the reference has no outputs, so nothing can be compared")
    notes = [*pairs.notes, *(note for output in outputs for note in output.notes)]
    if labels is not None and top1_name is None:
        notes.append("labels were given, but no output looks like classes (floats, shape (samples, classes))")
    return Agreement(
        outputs=outputs,
        samples=max((len(right) for right in reference.values()), default=0),
        top1_output=top1_name if top1 else None,
        top1=top1,
        accuracy_change=accuracy,
        passed=not reasons,
        reason="; ".join(reasons) or None,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    names: dict[str, str | None]
    notes: list[str] = field(default_factory=list)


def _pair(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> _Pairs:
    """Which of the candidate's outputs answers for which of the reference's."""
    common = reference.keys() & candidate.keys()
    if not common and reference and len(reference) == len(candidate):
        names: dict[str, str | None] = dict(zip(reference, candidate, strict=True))
        words = ", ".join(f"{ours} with {theirs}" for ours, theirs in names.items())
        return _Pairs(names, [f"output names differ, compared by position: {words}"])
    extra = [name for name in candidate if name not in common]
    notes = [f"the candidate has further outputs, not compared: {', '.join(extra)}"] if extra else []
    return _Pairs({name: name if name in common else None for name in reference}, notes)


def _looks_like_classes(answers: Array) -> bool:
    return is_float(answers) and answers.ndim == 2 and answers.shape[1] >= 2


def _top1(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    names: Mapping[str, str | None],
    name: str | None,
    labels: Array | None,
) -> tuple[Accuracy | None, AccuracyChange | None]:
    theirs = names[name] if name is not None else None
    if name is None or theirs is None:
        return None, None
    right, given = reference[name], candidate[theirs]
    if right.shape != given.shape or not is_float(given):
        return None, None
    right, given = right.astype(np.float64), given.astype(np.float64)
    classes = top1_of(right)
    agree = int(np.count_nonzero((classes == top1_of(given)) & (classes >= 0)))
    return Accuracy(agree, len(classes)), None if labels is None else change(right, given, labels)


def _gate_reasons(top1: Accuracy | None, accuracy: AccuracyChange | None, gate: Gate) -> list[str]:
    reasons = []
    if top1 and top1.value < gate.min_agreement:
        reason = (
            f"top-1 agreement {percent(top1.value)} ({top1.correct} of {top1.total}), "
            f"expected at least {percent(gate.min_agreement)}"
        )
        if gate.min_agreement < 1 and top1.total * (1 - gate.min_agreement) < 1 - 1e-9:
            needed = int(np.ceil(1 / (1 - gate.min_agreement) - 1e-9))
            reason += f" (one disagreement in fewer than {needed} samples is already too many)"
        reasons.append(reason)
    # 1e-9: a drop of exactly 1 % must pass a gate of 1 %, whatever the last bit of the division says.
    if accuracy and accuracy.drop > gate.max_accuracy_drop + 1e-9:
        reasons.append(
            f"{accuracy.describe()}; a drop of {100 * accuracy.drop:.3g} points, "
            f"expected at most {100 * gate.max_accuracy_drop:.3g}"
        )
    return reasons


def _input_names(signature: Signature, samples: Samples) -> dict[str, str]:
    """The session's input names to the samples' own: by name, or by position where no name is shared."""
    theirs = [spec.name for spec in signature.inputs]
    if set(theirs) <= samples.inputs.keys():
        return {name: name for name in theirs}
    if len(theirs) == len(samples.inputs) and not set(theirs) & samples.inputs.keys():
        return dict(zip(theirs, samples.inputs, strict=True))
    raise SignatureError(f"{samples.source}: got inputs {sorted(samples.inputs)}, the model expects {sorted(theirs)}")


def _join(name: str, arrays: list[Array], *, batched: bool, count: int) -> Array:
    try:
        if batched:
            return np.concatenate(arrays)[:count]
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else np.concatenate(arrays)
    except ValueError as error:
        shapes = ", ".join(sorted({str(array.shape) for array in arrays}))
        raise DataError(f"output {name!r}: got shapes {shapes} from call to call, expected one shape") from error
