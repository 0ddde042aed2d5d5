from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.scale.detector_models import spot_model

import scale
from redline.core.errors import DataError, InputError, MissingDependencyError
from scale.models.spec import ModelSpec, Postprocessing
from scale.pipeline import plan, slide_job
from scale.pipeline.detect import CohortReport, DetectOptions, Listener, detect, folders_of
from scale.pipeline.finish import Piece, finished
from scale.pipeline.plan import PlanOptions
from scale.pipeline.reports import Planned, SlideReport

SLIDE = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"
FORMATS = ("json", "geojson", "parquet", "csv")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spot_model(tmp_path_factory.mktemp("models") / "spots.onnx", size_px=128)


def spec(model: Path, name: str = "spots", window_px: int = 128, **more: Any) -> ModelSpec:
    return ModelSpec(name=name, path=model, window_px=window_px, **more)


def options(**more: Any) -> DetectOptions:
    plan = PlanOptions(overlap=more.pop("overlap", 32), strip_windows=more.pop("strip_windows", 40))
    return DetectOptions(plan=plan, formats=more.pop("formats", FORMATS), **more)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("detections.*"))}


class Told(Listener):
    def __init__(self) -> None:
        self.plans: list[Planned] = []
        self.seen = 0
        self.reports: list[SlideReport] = []

    def planned(self, planned: Planned) -> None:
        self.plans.append(planned)

    def windows(self, count: int) -> None:
        self.seen += count

    def finished(self, report: SlideReport) -> None:
        self.reports.append(report)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CohortReport, Path, Told]:
    out, told = tmp_path_factory.mktemp("whole"), Told()
    return detect([SLIDE], [spec(model)], out, options=options(), listener=told), out / SLIDE.stem, told


def test_a_real_slide_becomes_files_with_what_the_model_finds(whole: tuple[CohortReport, Path, Told]) -> None:
    report, folder, _ = whole
    (slide,) = report.slides
    assert (report.good, slide.status, slide.failures) == (True, "done", ())
    predictions = json.loads((folder / "detections.json").read_text())
    assert len(predictions["spot"]) == slide.counts["spot"] == slide.detections > 300
    assert len(json.loads((folder / "detections.geojson").read_text())["features"]) == slide.detections
    assert set(outputs(folder)) == {f"detections.{name}" for name in FORMATS}
    assert json.loads((folder / "timing.json").read_text())["models"][0]["windows"] == slide.inferences
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["slide"]["width_px"], manifest["slide"]["path"]) == (2220, str(SLIDE.resolve()))
    run = json.loads((folder.parent / "run.json").read_text())
    assert [(row["slide"], row["status"]) for row in run["slides"]] == [(str(SLIDE), "done")]


def test_the_cost_is_told_before_the_work(whole: tuple[CohortReport, Path, Told]) -> None:
    report, folder, told = whole
    (planned,) = told.plans
    assert (planned.windows, planned.inferences, planned.done) == (report.slides[0].windows, told.seen, 0)
    assert planned.estimate_s > 0
    assert told.reports == list(report.slides)
    assert len(list((folder / "shards").glob("*.npz"))) > 5


def test_objects_at_seams_are_found_once(whole: tuple[CohortReport, Path, Told]) -> None:
    found = [one["box"] for one in json.loads((whole[1] / "detections.json").read_text())["spot"]]
    corners = [(box["start"]["x"], box["start"]["y"], box["end"]["x"], box["end"]["y"]) for box in found]
    x0, y0, x1, y1 = np.array(corners).T[:, :, None]
    width = np.minimum(x1, x1.T) - np.maximum(x0, x0.T)
    shared = np.maximum(width, 0) * np.maximum(np.minimum(y1, y1.T) - np.maximum(y0, y0.T), 0)
    area = (x1 - x0) * (y1 - y0)
    assert (np.triu(shared / (area + area.T - shared), 1) <= 0.55).all()
    # The windows of this overlap see many of them twice or more.
    assert len(found) < 0.7 * sum(len(np.load(shard)["0.boxes"]) for shard in (whole[1] / "shards").glob("*.npz"))


def test_other_strips_and_readers_give_the_same_files(
    whole: tuple[CohortReport, Path, Told], model: Path, tmp_path: Path
) -> None:
    detect([SLIDE], [spec(model)], tmp_path, options=options(strip_windows=1000))
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole[1])


COMMAND = """
import sys
from pathlib import Path
from scale.pipeline.detect import detect
from tests.scale.pipeline.test_detect import SLIDE, options, spec
model, out = Path(sys.argv[1]), Path(sys.argv[2])
detect([SLIDE], [spec(model)], out, options=options(resume=True, strip_windows=8))
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    whole: tuple[CohortReport, Path, Told], model: Path, tmp_path: Path
) -> None:
    moments, kills, seen = random.Random(5), 0, set()
    folder = tmp_path / SLIDE.stem / "shards"
    while kills < 3:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, str(model), str(tmp_path)])
        # Killed when so many strips more are there, at whatever it does then.
        wanted = len(list(folder.glob("0*.npz"))) + moments.randint(1, 6)
        while process.poll() is None and len(list(folder.glob("0*.npz"))) < wanted:
            time.sleep(0.002)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        there = {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.npz")}
        assert seen <= set(there.items())  # nothing that was finished was done again
        seen = set(there.items())
    assert kills >= 2
    assert subprocess.run([sys.executable, "-c", COMMAND, str(model), str(tmp_path)], check=False).returncode == 0
    assert seen <= {(path.name, path.stat().st_mtime_ns) for path in folder.glob("0*.npz")}
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole[1])
    assert list((tmp_path / SLIDE.stem).rglob("*.partial*")) == []


def test_resuming_what_is_done_does_nothing(model: Path, tmp_path: Path) -> None:
    detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",)))
    before = (tmp_path / SLIDE.stem / "detections.json").stat().st_mtime_ns
    told = Told()
    report = detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",), resume=True), listener=told)
    assert (report.good, report.slides[0].status, told.seen) == (True, "kept", 0)
    assert report.slides[0].detections > 300
    assert (tmp_path / SLIDE.stem / "detections.json").stat().st_mtime_ns == before


def test_another_merge_or_format_needs_no_model(model: Path, tmp_path: Path) -> None:
    first = detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",)))
    told = Told()
    chosen = options(formats=("json", "csv"), method="nms", resume=True)
    again = detect([SLIDE], [spec(model)], tmp_path, options=chosen, listener=told)
    assert (again.slides[0].status, told.seen, told.plans[0].done) == ("done", 0, told.plans[0].inferences)
    assert again.slides[0].counts != first.slides[0].counts
    assert (tmp_path / SLIDE.stem / "detections.csv").is_file()


def test_files_that_an_earlier_run_left_with_other_content_are_named_or_removed(model: Path, tmp_path: Path) -> None:
    notes = []
    for more in (
        {"formats": ("json", "csv")},
        {"formats": ("json",), "resume": True},
        {"formats": ("csv",), "resume": True, "method": "nms"},
        {"formats": ("json", "csv"), "fresh": True, "overlap": 48},
        {"formats": ("json", "geojson"), "fresh": True},
    ):
        told = Told()
        detect([SLIDE], [spec(model)], tmp_path, options=options(**more), listener=told)
        notes.append([text.partition(":")[0] for text in (*told.plans, *told.reports)[0].notes])
    assert notes == [[], [], ["detections.json"], [], []]
    assert set(outputs(tmp_path / SLIDE.stem)) == {"detections.json", "detections.geojson"}


def test_other_settings_are_not_mixed_and_leave_the_row_of_the_run_that_is_there(model: Path, tmp_path: Path) -> None:
    detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",)))
    with pytest.raises(InputError, match=r"settings\.overlap 32, now 48"):
        detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",), overlap=48, resume=True))
    with pytest.raises(InputError, match=r"models\.spots\.confidence 0\.25, now 0\.5"):
        detect([SLIDE], [spec(model, confidence=0.5)], tmp_path, options=options(formats=("json",), resume=True))
    with pytest.raises(InputError, match="holds a run already"):
        detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",)))
    assert json.loads((tmp_path / "run.json").read_text())["slides"][0]["status"] == "done"
    assert detect([SLIDE], [spec(model)], tmp_path, options=options(overlap=48, fresh=True)).good


def test_a_bad_slide_is_a_row_and_the_others_are_done(model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_bytes(SLIDE.read_bytes()[:5000])
    empty, gone = tmp_path / "empty.svs", tmp_path / "gone.svs"
    empty.touch()
    told = Told()
    slides = [bad, empty, SLIDE, gone]
    report = detect(slides, [spec(model)], tmp_path / "out", options=options(formats=("json",)), listener=told)
    assert [slide.status for slide in report.slides] == ["failed", "failed", "done", "failed"]
    assert not report.good
    rows = json.loads((tmp_path / "out" / "run.json").read_text())["slides"]
    assert {row["slide"]: row["status"] for row in rows} == {str(slide.slide): slide.status for slide in report.slides}
    assert all("\n" not in row["error"] and row["error"] for row in rows if row["status"] == "failed")
    assert not (tmp_path / "out" / "bad").exists()


def test_the_error_of_a_single_slide_is_that_of_the_run(model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_bytes(SLIDE.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"bad\.svs"):
        detect([bad], [spec(model)], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["slides"][0]["status"] == "failed"


def test_a_table_that_cannot_be_written_hides_no_other_error(model: Path, tmp_path: Path) -> None:
    taken, bad = tmp_path / "taken", tmp_path / "bad.svs"
    taken.touch()
    bad.write_bytes(SLIDE.read_bytes()[:5000])
    first, second = detect([bad, tmp_path / "gone.svs"], [spec(model)], taken / "out").slides
    assert "bad.svs" in str(first.error)
    assert "gone.svs" in str(second.error)


def test_a_package_without_which_no_slide_can_be_done_is_the_error_of_the_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("tifffile", extra="scale")

    monkeypatch.setattr("scale.pipeline.slide_job.open_slide", missing)
    with pytest.raises(MissingDependencyError, match="tifffile"):
        detect([SLIDE, tmp_path / "b.svs"], [spec(model)], tmp_path / "out")


def test_a_window_that_cannot_be_read_makes_a_slide_incomplete_and_is_done_by_a_resumed_run(
    whole: tuple[CohortReport, Path, Told], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scale.pipeline.slide_job as job

    opened = job.open_slide

    def torn(*args: Any, **kwargs: Any) -> Any:
        slide = opened(*args, **kwargs)
        read = slide.read

        def sometimes(x0: int, y0: int, *rest: Any, **more: Any) -> Any:
            if (x0, y0) == (96 * 10, 96 * 10):
                raise DataError("tile 7 is torn")
            return read(x0, y0, *rest, **more)

        monkeypatch.setattr(type(slide), "read", lambda _, *args, **kwargs: sometimes(*args, **kwargs))
        return slide

    monkeypatch.setattr(job, "open_slide", torn)
    report = detect([SLIDE], [spec(model)], tmp_path, options=options())
    monkeypatch.undo()
    (slide,) = report.slides
    assert (slide.status, report.good) == ("incomplete", False)
    assert [(failure.x0, failure.y0, failure.stage) for failure in slide.failures] == [(960, 960, "read")]
    assert json.loads((tmp_path / "run.json").read_text())["slides"][0]["failures"][0]["reason"].endswith("is torn")
    told = Told()
    again = detect([SLIDE], [spec(model)], tmp_path, options=options(resume=True), listener=told)
    assert again.good
    assert 0 < told.seen < again.slides[0].inferences / 3
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole[1])


def test_an_interrupted_run_keeps_what_is_finished(
    whole: tuple[CohortReport, Path, Told], model: Path, tmp_path: Path
) -> None:
    class Impatient(Told):
        def windows(self, count: int) -> None:
            before = self.seen
            super().windows(count)
            if before <= 200 < self.seen:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        detect([SLIDE], [spec(model)], tmp_path, options=options(), listener=Impatient())
    assert json.loads((tmp_path / "run.json").read_text())["slides"][0]["status"] == "interrupted"
    kept = len(list((tmp_path / SLIDE.stem / "shards").glob("*.npz")))
    assert kept >= 1
    # What was merged and written beside the search is gone.
    assert outputs(tmp_path / SLIDE.stem) == {}
    assert list((tmp_path / SLIDE.stem).glob(".detections*")) == []
    told = Told()
    assert detect([SLIDE], [spec(model)], tmp_path, options=options(resume=True), listener=told).good
    assert told.seen < told.plans[0].inferences
    assert outputs(tmp_path / SLIDE.stem) == outputs(whole[1])


@pytest.mark.usefixtures("whole")  # what is compiled at the first call is there
def test_files_are_written_while_windows_are_still_searched(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Told):
        def windows(self, count: int) -> None:
            super().windows(count)
            time.sleep(0.01)

    told, seen_then = Slow(), []

    def watched(*args: Any, **more: Any) -> Iterator[Piece]:
        for piece in finished(*args, **more):
            seen_then.append(told.seen)
            yield piece

    monkeypatch.setattr(plan, "_FRONT_BYTES", 0)  # a small slide has several bands then
    monkeypatch.setattr(slide_job, "finished", watched)
    assert detect([SLIDE], [spec(model)], tmp_path, options=options(strip_windows=4), listener=told).good
    assert 0 < seen_then[0] < told.seen / 2


def test_models_of_several_windows_and_settings_of_classes(model: Path, tmp_path: Path) -> None:
    two = spot_model(tmp_path / "two.onnx", size_px=128, names=("dark", "darker"))
    settings = {"dark": Postprocessing(nms_thres=0.4, cov_thres=0.1)}
    specs = [spec(model), spec(two, "two", 256, class_names={0: "dark"}, postprocess=settings)]
    report = detect([SLIDE], specs, tmp_path / "out", options=options(formats=("json",)))
    counts = report.slides[0].counts
    assert set(counts) == {"spot", "dark"}
    assert min(counts.values()) > 50
    assert list(json.loads((tmp_path / "out" / SLIDE.stem / "detections.json").read_text())) == ["spot", "dark"]


def test_a_section_alone(model: Path, tmp_path: Path) -> None:
    report = detect([SLIDE], [spec(model)], tmp_path, options=options(formats=("json",), section=0))
    everything = detect([SLIDE], [spec(model)], tmp_path / "all", options=options(formats=("json",), section="all"))
    assert report.good
    assert report.slides[0].counts == everything.slides[0].counts
    with pytest.raises(InputError, match="section 7"):
        detect([SLIDE], [spec(model)], tmp_path / "no", options=options(section=7))


def test_empty_glass_and_a_missing_resolution_are_noted(model: Path, tmp_path: Path) -> None:
    slide = tmp_path / "glass.png"
    Image.fromarray(np.full((300, 400, 3), 244, np.uint8)).save(slide)
    told = Told()
    report = detect([slide], [spec(model)], tmp_path / "out", options=options(formats=("json",)), listener=told)
    assert (report.good, report.slides[0].counts, told.plans[0].windows) == (True, {"spot": 0}, 0)
    assert "no tissue" in " ".join(report.slides[0].notes)
    assert "does not say its micrometres" in " ".join(told.plans[0].notes)
    assert json.loads((tmp_path / "out" / "glass" / "detections.json").read_text()) == {"spot": []}


def test_slides_of_one_name_have_folders_of_their_own() -> None:
    out = Path("out")
    names = [path.name for path in folders_of([Path("a/x.svs"), Path("b/x.svs"), Path("x.tif")], out)]
    assert names[2] == "x.tif"
    assert len(set(names)) == 3
    assert all(name.startswith("x.svs-") for name in names[:2])
    with pytest.raises(InputError, match="twice"):
        folders_of([Path("x.svs"), Path("./x.svs")], out)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"method": "best"}, "merge method 'best'"),
        ({"formats": ("pdf",)}, "format 'pdf'"),
        ({"resume": True, "fresh": True}, "expected one of the two"),
        ({"section": -1}, "section -1"),
    ],
)
def test_options_that_there_are_not_are_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        DetectOptions(**more)


def test_no_slide_and_no_model_are_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no slide"):
        detect([], [spec(model)], tmp_path)
    with pytest.raises(InputError, match=r"gone\.onnx"):
        detect([SLIDE], [spec(tmp_path / "gone.onnx")], tmp_path)
