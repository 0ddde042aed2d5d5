"""All that is done on one slide: open, plan, run what is missing, merge, write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

import redline
from redline.core.errors import DataError, InputError
from redline.core.files import write_whole
from redline.core.plain import JsonObject
from scale.outputs import FORMATS, SlideInfo, open_writer
from scale.pipeline.arrivals import Arrivals
from scale.pipeline.batches import Failure, StripResult
from scale.pipeline.finish import ClassTable, finished, full_windows
from scale.pipeline.models import Pace, estimate_s
from scale.pipeline.options import DetectOptions
from scale.pipeline.plan import Plan, SlideShape, Strip, make_plan
from scale.pipeline.reports import Listener, Planned, SlideReport
from scale.pipeline.run import OnWindows
from scale.pipeline.runners import Described
from scale.pipeline.shards import Shards, held
from scale.pipeline.timing import StageClock
from scale.regions.grid import Region
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
        notes = (*notes, *_left_over(shards, bench.options))
        job = _Job(slide=slide, plan=plan, shards=shards, bench=bench, clock=clock, notes=notes)
        kept = _kept(job)
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
    regions = _regions(slide, options)
    mask = None
    if options.tissue:
        from scale.regions.tissue import tissue_mask

        mask = tissue_mask(slide)
    shape = SlideShape(levels=slide.levels, mpp=slide.mpp)
    plan = make_plan(shape, regions, [runner.shape for runner in runners], options.plan, mask=mask)
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
        todo = sum(seen.values())
        bench.listener.planned(Planned.of(self.slide.path, plan, todo, estimate_s(plan, left, bench.paces), self.notes))
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
        told = {**timing.to_json(), "inferences_of_earlier_runs": self.plan.inferences - timing.windows}
        write_whole(folder / TIMING, json.dumps(told, indent=1) + "\n")
        counts, full, failures = outcome.counts, outcome.full, outcome.failures
        report = SlideReport(
            slide=self.slide.path,
            status="incomplete" if failures else "done",
            folder=folder,
            windows=self.plan.windows,
            inferences=self.plan.inferences,
            counts=counts,
            files={name: FORMATS[name].file_name for name in self.bench.options.formats},
            failures=failures,
            full_windows=full,
            timing=timing,
            notes=(*self.plan.notes, *self.notes),
        )
        result = {"key": self.shards.key, "written": self.bench.options.written(), "counts": counts, "full": full}
        if failures:
            (folder / RESULT).unlink(missing_ok=True)
        else:
            write_whole(folder / RESULT, json.dumps(result, indent=1) + "\n")
        return report

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


def _left_over(shards: Shards, options: DetectOptions) -> tuple[str, ...]:
    """Say which files of an earlier run are not made again, and have other content than those that are."""
    try:
        there = json.loads((shards.folder / RESULT).read_text())
        before = {**there["written"], "key": there["key"]}
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    if before == {**options.written(), "key": shards.key, "formats": before.get("formats")}:
        return ()
    others = [one.file_name for name, one in FORMATS.items() if name not in options.formats]
    left = [name for name in others if (shards.folder / name).is_file()]
    if not left:
        return ()
    return (f"{', '.join(left)}: from an earlier run with other settings, not written again; name all in --format",)


def _kept(job: _Job) -> SlideReport | None:
    """What an earlier run wrote, where nothing about it has changed."""
    options, folder = job.bench.options, job.shards.folder
    files = {name: FORMATS[name].file_name for name in options.formats}
    if not options.resume or not all((folder / name).is_file() for name in files.values()):
        return None
    try:
        there = json.loads((folder / RESULT).read_text())
        same = there["key"] == job.shards.key and there["written"] == options.written()
        counts, full = dict(there["counts"]), dict(there["full"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not same:
        return None
    return SlideReport(
        slide=job.slide.path,
        status="kept",
        folder=folder,
        windows=job.plan.windows,
        inferences=job.plan.inferences,
        counts=counts,
        files=files,
        full_windows=full,
        notes=job.notes,
    )


def _regions(slide: Slide, options: DetectOptions) -> list[Region]:
    if options.section is None:
        level = slide.levels[0]
        return [Region(name="slide", x0=0, y0=0, width_px=level.width_px, height_px=level.height_px)]
    from scale.regions.sections import sections_of

    sections = sections_of(slide)
    if not sections:
        raise DataError(f"{slide.path}: no tissue found, so there is no section to look at")
    if options.section == "all":
        return sections
    if options.section >= len(sections):
        raise InputError(f"{slide.path}: section {options.section} does not exist, expected 0 to {len(sections) - 1}")
    return [sections[options.section]]
