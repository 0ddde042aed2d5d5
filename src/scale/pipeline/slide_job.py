"""All that is done on one slide: open, plan, run what is missing, merge, write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

import redline
from redline.core.errors import ArtifactError, DataError, InputError
from redline.core.files import write_whole
from redline.core.plain import JsonObject, from_text, to_plain
from scale.outputs import FORMATS, SlideInfo, open_writer
from scale.pipeline.arrivals import Arrivals
from scale.pipeline.batches import Failure, StripResult
from scale.pipeline.finish import ClassTable, finished, full_windows
from scale.pipeline.models import Pace, estimate_s
from scale.pipeline.options import DetectOptions, Written
from scale.pipeline.plan import Plan, Strip, plan_of
from scale.pipeline.reports import Listener, Planned, SlideReport, Status
from scale.pipeline.run import OnWindows
from scale.pipeline.runners import Described
from scale.pipeline.shards import Shards, held
from scale.pipeline.timing import StageClock
from scale.regions.grid import Region
from scale.regions.picture import whole_slide
from scale.slides.base import Slide
from scale.slides.cache import TileCache
from scale.slides.opening import open_slide

RESULT = "result.json"
TIMING = "timing.json"


class Search(Protocol):
    """How strips become results, here or elsewhere."""

    def __call__(
        self, slide: Slide, plan: Plan, strips: Sequence[Strip], /, *, clock: StageClock, on_windows: OnWindows
    ) -> Generator[StripResult, None, None]:
        """As :func:`scale.pipeline.run.run_strips` does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What all slides of a run share."""

    runners: tuple[Described, ...]
    paces: tuple[Pace, ...]
    options: DetectOptions
    listener: Listener
    search: Search


def detect_slide(path: Path, folder: Path, bench: Bench) -> SlideReport:
    """Search one slide and write what was found into its folder.

    Raises:
        RedlineError: the slide cannot be read, its folder holds another run, or a model refuses everything.
        OSError: a file cannot be read or written.
    """
    with ExitStack() as stack:
        clock = StageClock()
        cache = TileCache()
        slide = stack.enter_context(open_slide(path, reader=bench.options.reader, cache=cache))
        stack.enter_context(held(folder))
        plan, notes = plan_slide(slide, bench.runners, bench.options)
        cache.capacity = plan.cache_bytes
        shards = Shards(folder, asked(slide, plan, bench.runners, bench.options), slide_path=path)
        shards.begin(resume=bench.options.resume, fresh=bench.options.fresh)
        if bench.options.fresh:
            _remove_files(folder)
        earlier = _earlier(folder)
        notes = (*notes, *_left_over(earlier, shards, bench.options))
        job = _Job(slide=slide, plan=plan, shards=shards, bench=bench, clock=clock, notes=notes)
        kept = _kept(earlier, job)
        if kept is not None:
            return kept
        before = cache.stats()
        outcome = job.run()
        after = cache.stats()
        clock.add("decode", after.decode_s - before.decode_s, count=after.misses - before.misses)
        return job.report(outcome)


def _remove_files(folder: Path) -> None:
    """What an earlier run wrote."""
    for name in (RESULT, TIMING, *(known.file_name for known in FORMATS.values())):
        (folder / name).unlink(missing_ok=True)


def plan_slide(slide: Slide, runners: Sequence[Described], options: DetectOptions) -> tuple[Plan, tuple[str, ...]]:
    """The plan of an open slide, with what its user should know."""
    shapes = [runner.shape for runner in runners]
    plan = plan_of(slide, _regions(slide, options), shapes, options.plan, tissue=options.tissue)
    notes = [] if plan.windows else ["there is no tissue on it; --no-tissue searches all of it"]
    if slide.mpp is None and options.plan.mpp is None:
        notes.append("the slide does not say its micrometres per pixel: sizes are known in pixels only")
    return plan, tuple(notes)


def slide_identity(slide: Slide) -> JsonObject:
    """What tells a slide from others and from its own earlier state, wherever it lies, as JSON values."""
    level = slide.levels[0]
    return {
        "width_px": level.width_px,
        "height_px": level.height_px,
        "mpp": slide.mpp,
        "reader": slide.reader,
        **slide.fingerprint(),
    }


def asked(slide: Slide, plan: Plan, runners: Sequence[Described], options: DetectOptions) -> JsonObject:
    """All that the content of a slide's strips depends on, as JSON values."""
    return {
        "slide": slide_identity(slide),
        "models": {runner.info.name: {**runner.info.identity, "batch": runner.shape.batch} for runner in runners},
        "settings": options.asked(),
        "plan": plan.to_json(),
        "versions": {"redline": redline.__version__, "numpy": np.__version__},
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Outcome:
    """What was done: windows seen by model, those missing, detections by class, and full windows by model."""

    seen: Mapping[str, int]
    failures: tuple[Failure, ...]
    counts: dict[str, int]
    full: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    slide: Slide
    plan: Plan
    shards: Shards
    bench: Bench
    clock: StageClock
    notes: tuple[str, ...]

    def run(self) -> _Outcome:
        """Do the strips that are not there, and beside that merge and write those that are."""
        plan, bench = self.plan, self.bench
        there = self.shards.finished(len(plan.strips)) if bench.options.resume else set()
        left = [strip for strip in plan.strips if strip.index not in there]
        seen = plan.inferences_of(left)
        bench.listener.planned(
            Planned(
                slide=self.slide.path,
                windows=plan.windows,
                inferences=plan.inferences,
                done=plan.inferences - sum(seen.values()),
                estimate_s=estimate_s(plan, left, bench.paces),
                regions=len(plan.regions),
                notes=(*plan.notes, *self.notes),
            )
        )
        arrivals = Arrivals(there)
        results = bench.search(self.slide, plan, left, clock=self.clock, on_windows=bench.listener.windows)
        with ThreadPoolExecutor(1, thread_name_prefix="scale merge") as beside:
            writing = beside.submit(self._write_files, arrivals)
            try:
                failures = self._search(results, arrivals)
                counts, full = writing.result()
            except BaseException:
                arrivals.stop()
                raise
        return _Outcome(seen=seen, failures=failures, counts=counts, full=full)

    def _search(self, results: Generator[StripResult, None, None], arrivals: Arrivals) -> tuple[Failure, ...]:
        """Keep strips as they come: which windows are missing."""
        failures: list[tuple[int, tuple[Failure, ...]]] = []
        with closing(results):
            for result in results:
                with self.clock.stage("write"):
                    self.shards.save(result)
                arrivals.add(result.strip)
                failures.append((result.strip, result.failures))
        return tuple(failure for _, some in sorted(failures, key=lambda pair: pair[0]) for failure in some)

    def report(self, outcome: _Outcome) -> SlideReport:
        """Say what was done, here and in the folder."""
        timing = self.clock.report(outcome.seen)
        folder = self.shards.folder
        told = {**asdict(timing), "inferences_of_earlier_runs": self.plan.inferences - timing.windows}
        write_whole(folder / TIMING, json.dumps(told, indent=1) + "\n")
        counts, full, failures = outcome.counts, outcome.full, outcome.failures
        if failures:
            (folder / RESULT).unlink(missing_ok=True)
        else:
            result = _Result(key=self.shards.key, written=self.bench.options.written(), counts=counts, full=full)
            write_whole(folder / RESULT, json.dumps(to_plain(result), indent=1) + "\n")
        return replace(
            self.told("incomplete" if failures else "done", counts, full),
            failures=failures,
            timing=timing,
            notes=(*self.plan.notes, *self.notes),
        )

    def told(self, status: Status, counts: Mapping[str, int], full: Mapping[str, int]) -> SlideReport:
        """What is said of the slide whatever became of it."""
        return SlideReport(
            slide=self.slide.path,
            status=status,
            folder=self.shards.folder,
            windows=self.plan.windows,
            inferences=self.plan.inferences,
            counts=counts,
            files={name: FORMATS[name].file_name for name in self.bench.options.formats},
            full_windows=full,
            notes=self.notes,
        )

    def _write_files(self, arrivals: Arrivals) -> tuple[dict[str, int], dict[str, int]]:
        """Merge and write every file; gives detections by class, and windows that are full by model."""
        options, infos = self.bench.options, [runner.info for runner in self.bench.runners]
        table, level = ClassTable.of(infos), self.slide.levels[0]
        info = SlideInfo(
            name=self.slide.path.name,
            width_px=level.width_px,
            height_px=level.height_px,
            mpp=self.slide.mpp,
            class_names=table.names,
            models=table.models,
        )
        full: Counter[str] = Counter()

        def load(strip: int) -> StripResult:  # each strip once
            arrivals.wait(strip)
            result = self.shards.load(strip)
            full.update(full_windows(self.plan, infos, result))
            return result

        counts: Counter[str] = Counter(dict.fromkeys(table.names, 0))
        with ExitStack() as stack:
            writers = [
                stack.enter_context(open_writer(name, self.shards.folder / FORMATS[name].file_name, info))
                for name in options.formats
            ]
            for piece in finished(self.plan, infos, load, options.merge(), clock=self.clock):
                numbers, found = np.unique(piece.detections.classes, return_counts=True)
                counts.update({table.names[n]: int(count) for n, count in zip(numbers, found, strict=True)})
                with self.clock.stage("write"):
                    for writer in writers:
                        writer.add(piece.detections)
        return dict(counts), dict(full)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What is kept of a slide that is done: of which run, what was written, detections by class, full windows."""

    key: str
    written: Written
    counts: Mapping[str, int]
    full: Mapping[str, int]


def _earlier(folder: Path) -> _Result | None:
    """What an earlier run left."""
    try:
        return from_text(_Result, (folder / RESULT).read_bytes(), where=RESULT)
    except (OSError, ArtifactError):
        return None


def _left_over(earlier: _Result | None, shards: Shards, options: DetectOptions) -> tuple[str, ...]:
    """Say which files of an earlier run are not made again, and have other content than those that are."""
    if earlier is None:
        return ()
    same = replace(options.written(), formats=earlier.written.formats) == earlier.written
    others = [one.file_name for name, one in FORMATS.items() if name not in options.formats]
    left = [name for name in others if (shards.folder / name).is_file()]
    if not left or (same and earlier.key == shards.key):
        return ()
    return (f"{', '.join(left)}: from an earlier run with other settings, not written again; name all in --format",)


def _kept(earlier: _Result | None, job: _Job) -> SlideReport | None:
    """What an earlier run wrote, where nothing about it has changed."""
    options = job.bench.options
    if earlier is None or not options.resume:
        return None
    if (earlier.key, earlier.written) != (job.shards.key, options.written()):
        return None
    report = job.told("kept", earlier.counts, earlier.full)
    return report if all((job.shards.folder / name).is_file() for name in report.files.values()) else None


def _regions(slide: Slide, options: DetectOptions) -> list[Region]:
    if options.section is None:
        return [whole_slide(slide)]
    from scale.regions.sections import sections_of

    sections = sections_of(slide)
    if not sections:
        raise DataError(f"{slide.path}: no tissue found, so there is no section to look at")
    if options.section == "all":
        return sections
    if options.section >= len(sections):
        raise InputError(f"{slide.path}: section {options.section} does not exist, expected 0 to {len(sections) - 1}")
    return [sections[options.section]]
