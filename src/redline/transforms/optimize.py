"""Run a chain of graph passes, each contained in a process of its own; keep only what still answers the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from redline.core.artifact import OnnxModel, Step
from redline.core.errors import PassError, RedlineError
from redline.core.tensor import Signature
from redline.formats.onnx_file import all_nodes, describe, load_proto, save_proto, versions
from redline.transforms.graphs import same_graph
from redline.transforms.passes import PassInfo, choose_passes

Check = Callable[[OnnxModel, OnnxModel], None]
WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "redline.transforms.pass_worker")
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOutcome:
    """What became of one pass.

    Attributes:
        status: ``changed``; ``nothing to do`` (the graph is what it was); ``failed`` (crashed, hung, raised, or left
            no valid model); ``reverted`` (its model answers differently, or has another signature or precision).
        reason: Why it failed or was reverted, else None.
    """

    name: str
    status: Literal["changed", "nothing to do", "failed", "reverted"]
    nodes_before: int
    nodes_after: int
    reason: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimized:
    """The optimized model and what each pass did to get there."""

    model: OnnxModel
    outcomes: tuple[PassOutcome, ...]


@dataclass(frozen=True, slots=True)
class _Stage:
    """A model file with its graph in memory."""

    model: OnnxModel
    proto: ModelProto

    @property
    def nodes(self) -> int:
        return sum(1 for _ in all_nodes(self.proto.graph.node))


class _DroppedError(Exception):
    """A pass's result is not to be kept."""

    def __init__(self, status: Literal["failed", "reverted"], reason: str) -> None:
        super().__init__(reason)
        self.status: Literal["failed", "reverted"] = status


def optimize(
    model: OnnxModel,
    out: Path,
    *,
    check: Check,
    passes: Sequence[str] | None = None,
    timeout_s: float = TIMEOUT_S,
    worker: Sequence[str] = WORKER,
) -> Optimized:
    """Apply passes one after the other and write the result.

    A pass that crashes, hangs, raises, breaks the model or changes its answers is dropped by name and the chain goes
    on from the last good file; nothing is written when every pass was dropped.

    Args:
        model: The file to start from; it is left as it is.
        out: Where the optimized file goes.
        check: Called with (``model``, a pass's result) after every change; raises where the answers differ. The
            comparison is with the original and not with the pass before, so that small errors can't add up.
        passes: Names from :data:`~redline.transforms.passes.PASSES`, in order; None for the default ones.
        timeout_s: How long one pass may take.
        worker: The command that runs a pass; gets the paths in and out and the pass's name.

    Raises:
        InputError: an unknown pass.
        MissingDependencyError: a pass's package is not installed.
        PassError: every pass failed or was reverted.
    """
    chosen = choose_passes(passes)
    outcomes: list[PassOutcome] = []
    with tempfile.TemporaryDirectory(prefix="redline-passes-") as folder:
        stage = _Stage(model, load_proto(model.path))
        for number, info in enumerate(chosen):
            target = Path(folder) / f"{number}.onnx"
            stage, outcome = _apply(info, stage, target, _Rules(model, check, timeout_s, tuple(worker)))
            outcomes.append(outcome)
        if all(outcome.reason for outcome in outcomes):
            told = "; ".join(f"{outcome.name} {outcome.status}: {outcome.reason}" for outcome in outcomes)
            raise PassError(f"no pass could be used, nothing was written: {told}")
        _forget_shapes_of_weights(stage.proto)
        written = save_proto(stage.proto, out, step=_step(model, chosen, outcomes), parent=model)
    return Optimized(model=written, outcomes=tuple(outcomes))


@dataclass(frozen=True, slots=True)
class _Rules:
    """What every pass of one chain is held to."""

    original: OnnxModel
    check: Check
    timeout_s: float
    worker: tuple[str, ...]


def _apply(info: PassInfo, stage: _Stage, target: Path, rules: _Rules) -> tuple[_Stage, PassOutcome]:
    """One pass: the stage to go on from and what happened."""
    started = time.perf_counter()
    after, status, reason = stage, "nothing to do", None
    try:
        candidate = _run(info, stage, target, rules)
        if not same_graph(stage.proto, candidate.proto):
            _judge(stage, candidate, rules)
            after, status = candidate, "changed"
    except _DroppedError as error:
        status, reason = error.status, str(error)
    outcome = PassOutcome(
        name=info.name,
        status=status,  # type: ignore[arg-type]
        nodes_before=stage.nodes,
        nodes_after=after.nodes,
        reason=reason,
        seconds=time.perf_counter() - started,
    )
    return after, outcome


def _run(info: PassInfo, stage: _Stage, target: Path, rules: _Rules) -> _Stage:
    """Run the worker and read what it wrote."""
    complaint = target.with_suffix(".stderr")
    command = [*rules.worker, str(stage.model.path.resolve()), str(target), info.name]
    with complaint.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=rules.timeout_s)
        except subprocess.TimeoutExpired as error:
            raise _DroppedError("failed", f"still running after {rules.timeout_s:g} s, stopped") from error
        finally:
            _end(process)
    if code:
        raise _DroppedError("failed", _why(code, complaint.read_text(errors="replace")))
    try:
        proto = load_proto(target)
        return _Stage(describe(target, proto), proto)
    except RedlineError as error:
        raise _DroppedError("failed", f"left no valid model: {error}") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker with whatever it started; it leads a session of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _why(code: int, complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if code > 0:
        return last or f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"crashed ({name})" + (f": {last}" if last else "")


def _judge(stage: _Stage, candidate: _Stage, rules: _Rules) -> None:
    """Raise unless the candidate has the same signature, precision and answers."""
    expected, got = rules.original.signature, candidate.model.signature
    if got != expected:
        raise _DroppedError("reverted", f"the signature changed: {_first_difference(expected, got)}")
    before, after = dict(stage.model.layers.counts), dict(candidate.model.layers.counts)
    lost = [name for name, count in before.items() if name != "fp32" and after.get(name, 0) < count]
    if lost and after.get("fp32", 0) > before.get("fp32", 0):
        raise _DroppedError(
            "reverted",
            f"layers went from {stage.model.layers.describe()} to {candidate.model.layers.describe()}",
        )
    try:
        rules.check(rules.original, candidate.model)
    except Exception as error:
        raise _DroppedError("reverted", f"{' '.join(str(error).split()) or type(error).__name__}") from error


def _first_difference(expected: Signature, got: Signature) -> str:
    for kind, ours, theirs in (("input", expected.inputs, got.inputs), ("output", expected.outputs, got.outputs)):
        if len(ours) != len(theirs):
            return f"got {len(theirs)} {kind}s, expected {len(ours)}"
        for one, other in zip(ours, theirs, strict=True):
            if one != other:
                return (
                    f"got {kind} {other.name!r} {other.dtype} {other.shape}, "
                    f"expected {one.name!r} {one.dtype} {one.shape}"
                )
    return "the order of tensors"  # pragma: no cover


def _forget_shapes_of_weights(proto: ModelProto) -> None:
    """Drop inferred shapes of initializers, which have their own.

    PyTorch's dynamo exporter writes them; ONNX Runtime's quantizer transposes a weight, keeps its name, and then
    fails on the stale shape.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.value_info if value.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)


def _step(model: OnnxModel, chosen: Sequence[PassInfo], outcomes: Sequence[PassOutcome]) -> Step:
    """Provenance: the passes that were kept, those that were not, with the versions of their tools."""
    named = {status: ",".join(o.name for o in outcomes if o.status == status) for status in _STATUSES}
    return Step(
        step="optimize",
        arguments={status: names for status, names in named.items() if names},
        parent_sha256=model.sha256,
        versions=versions("onnx", *sorted({info.tool for info in chosen} - {"redline"})),
    )


_STATUSES = ("changed", "nothing to do", "failed", "reverted")
