from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.scale.detector_models import spot_model
from tests.scale.fake_slide import FakeSlide, glass, stain
from tests.scale.pipeline.fakes import rectangles

import scale
from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.aimodels import YOLOModel
from scale.domain import Prediction, from_detections
from scale.model_config import ModelConfig
from scale.models.spec import ModelSpec, Postprocessing
from scale.predict import IncompleteWarning, WSIPredictor
from scale.wsi import WSIIterator

SLIDE = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"


class Blacks:
    """A user's own model: finds black rectangles, and knows nothing of this pipeline."""

    def __init__(self, name: str = "Black") -> None:
        self.name = name
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images_bgr: Sequence[Array]) -> list[dict[str, list[Prediction]]]:
        self.seen += [image.shape for image in images_bgr]
        return [from_detections(rectangles(image), [self.name]) for image in images_bgr]


class Config:
    def __init__(self, model: Any, window_size: int = 128) -> None:
        self.model = model
        self.window_size = window_size


def two_pieces() -> tuple[FakeSlide, set[tuple[float, ...]]]:
    """One section of two pieces of tissue, with black squares in both and none between."""
    picture = glass(1200, 700)
    stain(picture, 50, 60, 400, 560)
    stain(picture, 560, 60, 420, 560)
    boxes = set()
    for x in (150, 260, 300, 640, 700, 850):
        for y in (200, 330, 450):
            picture[y : y + 20, x : x + 20] = 0
            boxes.add((float(x), float(y), float(x + 20), float(y + 20)))
    return FakeSlide(picture), boxes


def boxes_of(predictions: Sequence[Prediction]) -> list[tuple[float, ...]]:
    return [(p.box.start.x, p.box.start.y, p.box.end.x, p.box.end.y) for p in predictions]


def predictor(slide: FakeSlide, *models: Any, sections: int | None = 1, **more: Any) -> WSIPredictor:
    iterator = WSIIterator(slide, num_sections=sections)
    configs = [Config(model) for model in models or (Blacks(),)]
    return WSIPredictor(iterator, configs, more.pop("settings", {}), more.pop("overlap", 0.25), **more)


@pytest.mark.parametrize("merge", ["drop-cut", "nms", "legacy"])
def test_a_section_gives_every_object_once_in_level_0_pixels(merge: Any) -> None:
    slide, expected = two_pieces()
    settings = {"Black": Postprocessing(nms_thres=0.4, cov_thres=0.4)}
    found = predictor(slide, settings=settings, merge=merge).predict_first_section()
    assert list(found) == ["Black"]
    assert all(isinstance(one, Prediction) for one in found["Black"])
    assert sorted(boxes_of(found["Black"])) == sorted(expected)


@pytest.mark.parametrize("parallel", [True, False])
def test_the_pieces_of_a_section_give_the_same_objects(parallel: bool) -> None:
    slide, expected = two_pieces()
    one = predictor(slide, parallel_subsections=parallel)
    assert sorted(boxes_of(one.predict_first_section_via_subsections()["Black"])) == sorted(expected)
    assert sorted(boxes_of(one.predict_section_via_subsections(0)["Black"])) == sorted(expected)
    apart = [boxes_of(one.predict_subsection(0, number)["Black"]) for number in (0, 1)]
    assert sorted(apart[0] + apart[1]) == sorted(expected)
    assert all(apart)


class Overlapping(WSIIterator):
    """Pieces whose boxes overlap in the middle, where a border cuts objects."""

    def subsections(self, section: int) -> Any:
        from scale.regions.grid import Region

        left = Region(name="left", x0=0, y0=0, width_px=710, height_px=700)
        return (left, Region(name="right", x0=630, y0=0, width_px=570, height_px=700))


def test_what_two_pieces_share_is_counted_once() -> None:
    slide, expected = two_pieces()
    one = WSIPredictor(Overlapping(slide), [Config(Blacks())], {}, 0.25, tissue=False)
    assert sorted(boxes_of(one.predict_section_via_subsections(0)["Black"])) == sorted(expected)


def test_a_class_without_settings_has_the_defaults() -> None:
    slide, expected = two_pieces()
    found = predictor(slide, settings={"Other": Postprocessing(nms_thres=0.1)}).predict_section(0)
    assert len(found["Black"]) == len(expected)


def test_two_models_may_find_one_class() -> None:
    slide, expected = two_pieces()
    found = predictor(slide, Blacks("Black"), Blacks("Black"), Blacks("Dark")).predict_section(0)
    assert {name: len(several) for name, several in found.items()} == {
        "Black": 2 * len(expected),
        "Dark": len(expected),
    }


def test_windows_are_of_full_size_and_shared_pixels_may_be_given() -> None:
    slide, expected = two_pieces()
    model = Blacks()
    assert len(predictor(slide, model, overlap=40).predict_section(0)["Black"]) == len(expected)
    assert set(model.seen) == {(128, 128, 3)}


def test_timing_is_reported_where_it_is_asked_for() -> None:
    slide, _ = two_pieces()
    lines: list[str] = []
    one = predictor(slide, enable_timing=True, report=lines.append)
    one.predict_first_section()
    assert lines[0].startswith("[TIMER] predict_section(0): ")
    assert any("infer Blacks" in line and "waited" in line for line in lines)
    assert one.timing is not None
    lines.clear()
    silent = predictor(slide, report=lines.append)
    silent.predict_first_section()
    assert lines == []
    assert silent.timing is not None


def test_timing_goes_to_stderr_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    predictor(two_pieces()[0], enable_timing=True).predict_first_section()
    out, err = capsys.readouterr()
    assert out == ""
    assert "[TIMER]   merge:" in err


class Torn(FakeSlide):
    def read(self, x0: int, y0: int, width_px: int, height_px: int, *, level: int = 0) -> Array:
        if width_px == 128 and 200 < x0 < 300 and 200 < y0 < 300:
            raise OSError("tile 7 is torn")
        return super().read(x0, y0, width_px, height_px, level=level)


def test_windows_that_are_missing_are_warned_of() -> None:
    slide, expected = two_pieces()
    one = predictor(Torn(slide.read(0, 0, 1200, 700)))
    with pytest.warns(IncompleteWarning, match=r"windows are missing in the predictions of predict_section\(0\)"):
        found = one.predict_section(0)
    assert 0 < len(found["Black"]) <= len(expected)
    assert one.failures
    assert "tile 7 is torn" in one.failures[0].reason


def test_windows_that_hold_as_many_boxes_as_are_kept_are_warned_of(tmp_path: Path) -> None:
    path = spot_model(tmp_path / "m.onnx", size_px=128)
    spec = ModelSpec(name="spots", path=path, class_names={0: "Spot"}, confidence=0.1, max_detections=1)
    one = predictor(two_pieces()[0], YOLOModel.of(spec, device="cpu"))
    with pytest.warns(IncompleteWarning, match="of model spots hold as many boxes as are kept of one"):
        one.predict_section(0)


def test_a_section_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="section 3"):
        predictor(two_pieces()[0]).predict_section(3)


def test_what_cannot_be_asked_is_refused() -> None:
    slide, _ = two_pieces()
    with pytest.raises(InputError, match="no model_configs"):
        WSIPredictor(WSIIterator(slide), [], {})
    with pytest.raises(InputError, match="max_workers 0"):
        predictor(slide, max_workers=0)
    with pytest.raises(InputError, match="expected one of scale.aimodels"):
        predictor(slide, object()).predict_section(0)


def test_a_model_that_gives_another_number_of_answers_is_told() -> None:
    class Short:
        def predict(self, images_bgr: Sequence[Array]) -> list[dict[str, list[Prediction]]]:
            return []

    with pytest.raises(InputError, match="gave 0 answers for"):
        predictor(two_pieces()[0], Short()).predict_section(0)


def test_models_of_files_by_the_names_that_users_have(tmp_path: Path) -> None:
    model = spot_model(tmp_path / "spots.onnx", size_px=128)
    config = ModelConfig(YOLOModel(model, 0.3, {0: "Nucleus"}, device="cpu"), 128)
    with WSIIterator(SLIDE) as iterator:
        one = WSIPredictor(
            wsi_iterator=iterator,
            model_configs=[config],
            postprocess_settings={"Nucleus": Postprocessing(nms_thres=0.4)},
            overlap_ratio=0.25,
            parallel_subsections=True,
            max_workers=4,
        )
        found = one.predict_first_section()
        section = iterator.section(0)
    assert list(found) == ["Nucleus"]
    assert len(found["Nucleus"]) > 200
    assert min(prediction.conf for prediction in found["Nucleus"]) >= 0.3
    starts = np.array([(p.box.start.x - section.x0, p.box.start.y - section.y0) for p in found["Nucleus"]])
    assert (starts >= 0).all()
    config.model.close()


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, scale.predict; print([m for m in ('torch', 'onnxruntime', 'cv2', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_warning_where_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor(two_pieces()[0]).predict_first_section()
