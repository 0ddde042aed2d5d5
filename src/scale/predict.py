"""Predictions for the sections of a slide, by the names that users already have.

predictor = WSIPredictor(wsi_iterator=WSIIterator("slide.tiff"), model_configs=create_model_configs(),
postprocess_settings=get_postprocess_settings(), overlap_ratio=0.25)
predictions = predictor.predict_first_section()
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.models.spec import Postprocessing

if TYPE_CHECKING:
    from scale.domain import Prediction
    from scale.merging.settings import Method
    from scale.pipeline.batches import Failure
    from scale.pipeline.runners import Runner
    from scale.pipeline.timing import Timing
    from scale.regions.grid import Region
    from scale.wsi import WSIIterator

__all__ = ["Config", "IncompleteWarning", "Model", "WSIPredictor"]

_MOST_WORKERS = 4

Predictions = dict[str, list["Prediction"]]


class IncompleteWarning(UserWarning):
    """Some windows could not be done, and are missing in the predictions, or hold more than is kept of one."""


class Model(Protocol):
    """What looks at windows: one of :mod:`scale.aimodels`, or anything that predicts."""

    def predict(self, images_bgr: Sequence[Array], /) -> Sequence[Mapping[str, Sequence[Prediction]]]:
        """What is in each image, by class, in its own pixels."""
        ...


class Config(Protocol):
    """A model and the side of its windows: :class:`scale.model_config.ModelConfig`."""

    @property
    def model(self) -> Any:
        """What looks."""
        ...

    @property
    def window_size(self) -> int:
        """Side of its windows in pixels of level 0."""
        ...


class WSIPredictor:
    """Runs models over the sections of a slide.

    Models are opened when something is first predicted. One prediction runs at a time; others wait.

    Attributes:
        failures: Windows that are missing in the last predictions.
        timing: Where the time of the last predictions went.
    """

    def __init__(
        self,
        wsi_iterator: WSIIterator,
        model_configs: Sequence[Config],
        postprocess_settings: Mapping[str, Postprocessing],
        overlap_ratio: float = 0.5,
        parallel_subsections: bool = True,
        max_workers: int | None = None,
        enable_timing: bool = False,
        *,
        merge: Method = "drop-cut",
        tissue: bool = True,
        report: Callable[[str], object] | None = None,
    ) -> None:
        """Take note of what to do.

        Args:
            wsi_iterator: The slide with its sections.
            model_configs: What looks for what, in which windows.
            postprocess_settings: By class; a class that is not there has the defaults.
            overlap_ratio: Of neighbouring windows: below 1 a share of the window, from 1 on pixels.
            parallel_subsections: Whether the ``via_subsections`` calls take all pieces at once; the result is the same.
            max_workers: Threads that read windows; None takes at most 4.
            enable_timing: Report where the time went.
            merge: How the boxes of overlapping windows become one for each object; ``legacy`` is suppression between
                all boxes and union by coverage, as in earlier programs with this interface.
            tissue: Leave windows out in which there is no tissue.
            report: Takes the lines of the timing; else they go to stderr.
        """
        if not model_configs:
            raise InputError("got no model_configs, expected at least one")
        if max_workers is not None and max_workers < 1:
            raise InputError(f"got max_workers {max_workers}, expected at least 1, or None")
        self.wsi_iterator = wsi_iterator
        self.model_configs = list(model_configs)
        self.postprocess_settings = dict(postprocess_settings)
        self.overlap_ratio = overlap_ratio
        self.parallel_subsections = parallel_subsections
        self.max_workers = max_workers
        self.enable_timing = enable_timing
        self.merge: Method = merge
        self.tissue = tissue
        self.failures: tuple[Failure, ...] = ()
        self.timing: Timing | None = None
        self._report = report or _to_stderr
        self._runners: tuple[Runner, ...] | None = None
        self._lock = threading.Lock()

    def predict_first_section(self) -> Predictions:
        """What is in the first section, by class, in level-0 pixels."""
        return self.predict_section(0)

    def predict_section(self, index: int) -> Predictions:
        """What is in a section, counted from 0."""
        return self._predict([self.wsi_iterator.section(index)], f"predict_section({index})")

    def predict_subsection(self, section: int, subsection: int) -> Predictions:
        """What is in one piece of tissue of a section, both counted from 0."""
        region = self.wsi_iterator.subsection(section, subsection)
        return self._predict([region], f"predict_subsection({section}, {subsection})")

    def predict_first_section_via_subsections(self) -> Predictions:
        """What is in the pieces of tissue of the first section; what lies between them is not looked at."""
        return self.predict_section_via_subsections(0)

    def predict_section_via_subsections(self, index: int) -> Predictions:
        """What is in the pieces of tissue of a section; what lies between them is not looked at.

        Where the boxes around two pieces overlap, what was found in both is counted once.
        """
        regions = list(self.wsi_iterator.subsections(index))
        return self._predict(regions, f"predict_section_via_subsections({index})")

    def _predict(self, regions: Sequence[Region], name: str) -> Predictions:
        from scale.pipeline.finish import full_text
        from scale.pipeline.in_memory import Search, search

        with self._lock:
            if self._runners is None:
                self._runners = self._open()
            found = search(
                self.wsi_iterator.slide,
                regions,
                self._runners,
                Search(
                    overlap=self.overlap_ratio,
                    tissue=self.tissue,
                    method=self.merge,
                    postprocess=self.postprocess_settings,
                    readers=self._workers(len(regions)),
                    together=self.parallel_subsections,
                ),
            )
            self.failures, self.timing = found.failures, found.timing
        if self.enable_timing:
            self._report(f"[TIMER] {name}: {found.timing.wall_s:.3f} s")
            for stage, seconds, what in found.timing.lines():
                self._report(f"[TIMER]   {stage}: {seconds:.3f} s{f' ({what})' if what else ''}")
        if found.failures:
            first = found.failures[0]
            text = f"{len(found.failures)} windows are missing in the predictions of {name}; the first, at "
            text += f"({first.x0}, {first.y0}): {first.reason}"
            warnings.warn(text, IncompleteWarning, stacklevel=3)
        for model, count in found.full_windows.items():
            text = full_text(model, count, "max_detections in the TOML file of the models")
            warnings.warn(text, IncompleteWarning, stacklevel=3)
        return found.predictions

    def _workers(self, regions: int) -> int:
        if self.max_workers is not None:
            return self.max_workers
        return max(2, min(regions, _MOST_WORKERS))

    def _open(self) -> tuple[Runner, ...]:
        """A runner for each model, with names that tell models of one file apart."""
        from scale.pipeline.custom import runner_for

        names: list[str] = []
        runners = []
        for config in self.model_configs:
            base = _name_of(config.model)
            name = base if base not in names else f"{base} ({len(names)})"
            names.append(name)
            runners.append(runner_for(config.model, name, config.window_size))
        return tuple(runners)


def _name_of(model: Any) -> str:
    spec = getattr(model, "spec", None)
    return str(spec.name) if spec is not None else type(model).__name__


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
