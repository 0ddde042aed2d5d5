"""Whether two servers answer alike: the same inputs once through both, in V2 binary, outside of the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from redline.core.errors import DataError, WorkerError
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.loadtesting.bodies import renamed
from redline.loadtesting.results import AnswerAgreement
from redline.loadtesting.targets import Server
from redline.verification.accuracy import score, top1_of
from redline.verification.measures import errors_between


def agree(servers: Sequence[Server], samples: Samples) -> AnswerAgreement:
    """Ask every server the same and compare the last one's answers with the first one's.

    Raises:
        WorkerError: a server refuses an input.
    """
    answers = [_answers(server, samples) for server in servers]
    scores = [_scores(found) for found in answers]
    accuracy = None
    if samples.labels is not None:
        found = {
            server.target.name: score(one, samples.labels).value
            for server, one in zip(servers, scores, strict=True)
            if one is not None and one.shape[1] > int(samples.labels.max())
        }
        accuracy = found or None
    first, last = scores[0], scores[-1]
    several = len(servers) > 1
    same = several and first is not None and last is not None and first.shape == last.shape
    return AnswerAgreement(
        inputs=len(samples),
        top1=float(np.mean(top1_of(first) == top1_of(last))) if same else None,  # type: ignore[arg-type]
        relative_error=_relative_error(answers[0], answers[-1]) if several else None,
        accuracy=accuracy,
        source=samples.source,
    )


def _answers(server: Server, samples: Samples) -> dict[str, Array]:
    rows = server.signature.fixed_batch or 1
    collected: dict[str, list[Array]] = {}
    for start in range(0, len(samples), rows):
        inputs = renamed(samples.batch(start, rows), server.signature)
        for name, answer in server.client.infer(server.path, inputs).items():
            collected.setdefault(name, []).append(answer)
    try:
        return {name: np.concatenate([np.atleast_1d(one) for one in parts])[: len(samples)]
                for name, parts in collected.items()}  # fmt: skip
    except ValueError as error:
        raise WorkerError(f"{server.target.name} answers in another shape each time ({error})") from error


def _scores(answers: Mapping[str, Array]) -> Array | None:
    """The first output that looks like classes."""
    for answer in answers.values():
        if answer.dtype.kind == "f" and answer.ndim == 2 and answer.shape[1] > 1:
            return answer.astype(np.float64)
    return None


def _relative_error(first: Mapping[str, Array], last: Mapping[str, Array]) -> float | None:
    """Of the first output that both have in one shape; finite, or None."""
    for before, after in zip(first.values(), last.values(), strict=False):
        if before.shape != after.shape or before.dtype.kind not in "fiu":
            continue
        right, given = before.astype(np.float64), after.astype(np.float64)
        counted = np.isfinite(right) & np.isfinite(given)
        if not counted.any():
            return None
        try:
            value = errors_between(right, given, counted=counted).relative
        except DataError:
            return None
        return value if np.isfinite(value) else None
    return None
