"""Leave out of quantization the fewest layers that make a gate pass."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from redline.core.artifact import OnnxModel
from redline.core.errors import QuantizeError
from redline.core.samples import Samples
from redline.transforms.calibrate import Progress, Ranges, calibrate
from redline.transforms.layer_error import LayerError, errors_of
from redline.transforms.quantize import StaticOptions, insert_qdq, save_static
from redline.transforms.quantize_graph import layers_in, nodes_to_keep, prepare
from redline.transforms.quantize_presets import PRESETS

# Above this many kept layers, trying each of them again costs more than the layers are worth.
_MOST_TO_RETRY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate says of a model.

    Attributes:
        passed: Whether the model may be used.
        score: A number that is larger the better the model is; picks the best of those that failed.
        reason: In words, with the numbers.
    """

    passed: bool
    score: float
    reason: str


Gate = Callable[[OnnxModel], GateResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One model that was given to the gate: the layers left in float, and the verdict."""

    kept: tuple[str, ...]
    result: GateResult


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoQuantized:
    """The model that passed, what stayed float in it, every try in order, and the layers' errors if needed."""

    model: OnnxModel
    kept: tuple[str, ...]
    tried: tuple[Try, ...]
    errors: tuple[LayerError, ...]


def quantize_auto(
    model: OnnxModel,
    out: Path,
    samples: Samples,
    options: StaticOptions,
    gate: Gate,
    *,
    progress: Progress | None = None,
) -> AutoQuantized:
    """Quantize all layers; if the gate refuses that, leave the worst in float, as few as it takes.

    Layers are ordered by the error that each makes alone. Counts of 0, 1, 2, 4, … are tried up to half of the layers,
    then the smallest count that passes is found by bisection, then each of the layers (of at most 8) is tried
    without. Calibrates once. The gate must not judge on ``samples``.

    Raises:
        QuantizeError: the gate still refuses with half of the layers in float; says how near the best came.
    """
    search = _Search(model, samples, options, gate, progress)
    kept: tuple[str, ...] | None = ()
    if not search.passes(()):
        kept = search.smallest()
    if kept is None:
        best = max(search.tried, key=lambda item: item.result.score)
        raise QuantizeError(
            f"{model.path.name}: the gate fails even with {len(search.tried[-1].kept)} of {search.count} layers in "
            f"float; the best was {best.result.reason} with {len(best.kept)} in float; "
            "try another --method, more --samples, or --mode fp16"
        )
    written = search.write(kept, out)
    return AutoQuantized(model=written, kept=kept, tried=tuple(search.tried), errors=search.errors)


class _Search:
    """The state of one search: what is calibrated once, what was tried."""

    def __init__(
        self, model: OnnxModel, samples: Samples, options: StaticOptions, gate: Gate, progress: Progress | None
    ) -> None:
        self.tried: list[Try] = []
        self.errors: tuple[LayerError, ...] = ()
        self._model, self._samples, self._options, self._gate = model, samples, options, gate
        self._progress = progress
        self._proto: ModelProto = prepare(model)
        self._always = options.keep_float
        self._ranges: Ranges = calibrate(
            self._proto, model, samples, method=options.method, batch=options.batch, progress=progress
        )
        self.count = len(layers_in(self._proto))

    def smallest(self) -> tuple[str, ...] | None:
        """The fewest of the worst layers that make the gate pass, once none at all did not."""
        preset = PRESETS[self._options.target]
        self.errors = errors_of(self._proto, self._model, self._samples, self._ranges, preset, progress=self._progress)
        order = tuple(error.node for error in self.errors if error.node not in self._always)
        most = max(1, len(order) // 2)
        failing, passing = 0, 1
        while not self.passes(order[:passing]):
            if passing == most:
                return None
            failing, passing = passing, min(2 * passing, most)
        while passing - failing > 1:
            middle = (failing + passing) // 2
            if self.passes(order[:middle]):
                passing = middle
            else:
                failing = middle
        return self._without_needless(order[:passing])

    def passes(self, kept: tuple[str, ...]) -> bool:
        """Give the model with those layers in float to the gate."""
        if len(kept) >= self.count:
            return False
        with tempfile.TemporaryDirectory(prefix="redline-") as folder:
            result = self._gate(self.write(kept, Path(folder) / self._model.path.name))
        self.tried.append(Try(kept=kept, result=result))
        return result.passed

    def write(self, kept: tuple[str, ...], out: Path) -> OnnxModel:
        """The model with those layers, and those that the user named, in float."""
        names = (*self._always, *kept)
        exclude = nodes_to_keep(self._proto, names)
        quantized = insert_qdq(self._proto, self._ranges, PRESETS[self._options.target], exclude=exclude)
        return save_static(quantized, out, self._model, self._ranges, replace(self._options, keep_float=names))

    def _without_needless(self, kept: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 < len(kept) <= _MOST_TO_RETRY:
            return kept
        # The last of them is needed: the search failed with all before it.
        for name in kept[:-1]:
            fewer = tuple(other for other in kept if other != name)
            if self.passes(fewer):
                kept = fewer
        return kept
