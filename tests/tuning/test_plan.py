"""The table of variants hangs together."""

from __future__ import annotations

import pytest

from redline.core.errors import InputError
from redline.tuning.options import TuneOptions
from redline.tuning.plan import BASELINE, with_control
from redline.variants import AUTO, AUTO_FILE, FILES, VARIANTS, choose_variants, files_of


def test_every_variant_has_its_file_and_a_name_of_its_own() -> None:
    steps = {step.name for step in (*FILES, AUTO_FILE)}
    assert all(variant.file in steps for variant in (*VARIANTS, *AUTO) if variant.file)
    names = [(variant.device, variant.name) for variant in (*VARIANTS, *AUTO)]
    assert len(set(names)) == len(names)


def test_files_come_parents_first_and_only_those_needed() -> None:
    names = [step.name for step in files_of(VARIANTS, have_torch=True)]
    assert all(names.index(s.parent) < names.index(s.name) for s in FILES if s.parent)
    chosen = choose_variants(("onnxruntime-int8-static",))
    assert [step.name for step in files_of(chosen, have_torch=True)] == ["exported", "optimized", "int8_static"]
    assert [step.name for step in files_of(chosen, have_torch=False)] == ["optimized", "int8_static"]
    assert files_of(choose_variants((BASELINE,)), have_torch=True) == ()


def test_the_control_follows_the_baseline() -> None:
    first, control, second = with_control(choose_variants((BASELINE, "onnxruntime-fp32")), BASELINE)
    assert (first.name, control.name, second.name) == (BASELINE, f"{BASELINE}-control", "onnxruntime-fp32")
    assert (first.control, control.control) == (False, True)
    assert control.options == first.options


def test_an_unknown_variant_is_answered_with_a_known_one() -> None:
    with pytest.raises(InputError, match="did you mean onnxruntime-fp32"):
        choose_variants(("onnxruntime-fp23",))
    with pytest.raises(InputError, match="expected one of torch-eager-fp32, "):
        choose_variants(("zzz",))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batches": ()}, "at least 1"),
        ({"batches": (1, 0)}, "at least 1"),
        ({"objective": "speed"}, "expected one of latency"),
        ({"max_accuracy_drop": 1.5}, "expected 0 to 1"),
        ({"min_agreement": float("nan")}, "expected 0 to 1"),
        ({"rounds": 2}, "at least 3"),
        ({"threads": -1}, "at least 0"),
        ({"seed": -1}, "at least 0"),
        ({"calibration_samples": 0}, "at least 1"),
        ({"window_s": 0.0}, "more than 0"),
        ({"window_s": float("inf")}, "at most"),
        ({"method": "max"}, "minmax, entropy, percentile"),
        ({"variants": ("nothing",)}, "expected one of"),
    ],
)
def test_options_are_checked_where_they_are_made(options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        TuneOptions(**options)  # type: ignore[arg-type]


def test_resume_is_no_setting() -> None:
    assert TuneOptions(resume=True).settings() == TuneOptions().settings()
