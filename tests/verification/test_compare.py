import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from redline.core.errors import DataError, InputError, SignatureError
from redline.core.samples import Samples
from redline.core.tensor import Array, Signature, TensorSpec
from redline.verification.compare import Gate, compare, compare_outputs, outputs_of

X = TensorSpec("x", ("batch", 4), "float32")


class Fake:
    """A session made of a function."""

    def __init__(self, answer: Callable[..., dict[str, Array]], *inputs: TensorSpec) -> None:
        self.signature = Signature(inputs, ())
        self.answer = answer
        self.calls: list[dict[str, tuple[int, ...]]] = []

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        self.signature.check(inputs)
        self.calls.append({name: array.shape for name, array in inputs.items()})
        return self.answer(**inputs)

    def close(self) -> None: ...


def samples_of(count: int = 20, *, labels: Array | None = None) -> Samples:
    values = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return Samples(inputs={"x": values}, labels=labels, names=tuple(map(str, range(count))), source="test")


def logits(count: int = 200, classes: int = 5) -> Array:
    return np.random.default_rng(1).normal(size=(count, classes)).astype(np.float32)


def test_equal_sessions_agree_and_the_record_is_json():
    def double(x: Array) -> dict[str, Array]:
        return {"y": x * 2}

    agreement = compare(Fake(double, X), Fake(double, X), samples_of())
    assert agreement.passed
    assert agreement.reason is None
    record = json.loads(json.dumps(agreement.to_json("same"), allow_nan=False))
    assert record["outputs"][0]["max_abs"] == 0
    assert record["outputs"][0]["snr_db"] is None
    assert record["top1_agreement"] == 1
    assert record["evidence"].startswith("20 of 20")


def test_batches_have_one_shape_and_rows_stay_in_order():
    session = Fake(lambda x: {"y": x[:, :1]}, X)
    samples = samples_of(20)
    assert np.array_equal(outputs_of(session, samples, 8)["y"], samples.inputs["x"][:, :1])
    assert session.calls == [{"x": (8, 4)}] * 3


def test_fixed_batch_takes_its_own():
    session = Fake(lambda x: {"y": x}, TensorSpec("x", (3, 4), "float32"))
    assert outputs_of(session, samples_of(7), 8)["y"].shape == (7, 4)


def test_no_inputs_and_unbatched_outputs_have_a_row_per_call():
    nothing = Samples(inputs={}, labels=None, names=("0", "1"), source="test")
    assert outputs_of(Fake(lambda: {"c": np.arange(3.0)}), nothing, 2)["c"].shape == (1, 3)
    scalar = Fake(lambda x: {"mean": np.float32(x.mean())}, X)
    assert outputs_of(scalar, samples_of(20), 8)["mean"].shape == (3,)


def test_five_inputs():
    specs = tuple(TensorSpec(f"i{k}", ("batch",), "float32") for k in range(5))
    values = {f"i{k}": np.arange(6, dtype=np.float32) * k for k in range(5)}
    samples = Samples(inputs=values, labels=None, names=tuple("abcdef"), source="test")
    total = Fake(lambda **arrays: {"sum": np.sum(list(arrays.values()), axis=0)}, *specs)
    assert compare(total, total, samples).passed


def test_inputs_are_matched_by_position_where_no_name_is_shared_and_refused_otherwise():
    renamed = Fake(lambda image: {"y": image}, TensorSpec("image", ("b", 4), "float32"))
    assert compare(Fake(lambda x: {"y": x}, X), renamed, samples_of()).passed
    two = Fake(lambda a, b: {"y": a}, TensorSpec("a", ("b", 4), "float32"), TensorSpec("b", ("b", 4), "float32"))
    with pytest.raises(SignatureError, match="got inputs"):
        outputs_of(two, samples_of(), 8)
    with pytest.raises(SignatureError, match="dtype"):
        outputs_of(Fake(lambda x: {"y": x}, TensorSpec("x", ("b", 4), "float64")), samples_of(), 8)


def test_output_names_and_counts():
    right = {"y": logits()}
    by_position = compare_outputs(right, {"other": logits()})
    assert by_position.passed
    assert "by position" in by_position.notes[0]
    assert not compare_outputs(right, {}).passed
    missing = compare_outputs({"y": logits(), "z": logits()}, {"y": logits()})
    assert "'z': the candidate has no such output" in str(missing.reason)
    extra = compare_outputs(right, {"y": logits(), "z": logits()})
    assert extra.passed
    assert "z" in extra.notes[0]
    assert not compare_outputs({}, {}).passed


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (logits(classes=4), "got shape (4,), expected (5,)"),
        (logits(count=3), "got (3,) rows"),
        (logits().astype(np.int64), "got dtype int64, expected float32"),
    ],
)
def test_mismatch_is_reported(candidate: Array, words: str):
    agreement = compare_outputs({"y": logits()}, {"y": candidate})
    assert not agreement.passed
    assert words in str(agreement.reason)


def test_float_width_is_a_note():
    agreement = compare_outputs({"y": logits()}, {"y": logits().astype(np.float64)})
    assert agreement.passed
    assert "float64" in agreement.notes[0]


def test_nan_and_infinity_fail_where_the_reference_has_none():
    nan, infinite = logits(), logits()
    nan[3, 1] = np.nan
    infinite[0, 0] = np.inf
    assert "NaN in 1 of 1000" in str(compare_outputs({"y": logits()}, {"y": nan}, precision="int8").reason)
    assert "overflow" in str(compare_outputs({"y": logits()}, {"y": infinite}, precision="fp16").reason)
    assert compare_outputs({"y": infinite}, {"y": infinite}).passed
    assert "finite where" in str(compare_outputs({"y": infinite}, {"y": logits()}).reason)
    nothing = np.full_like(nan, np.nan)
    agreement = compare_outputs({"y": nothing}, {"y": nothing})
    assert "only NaN" in str(agreement.reason)
    json.dumps(agreement.to_json("nan"), allow_nan=False)


def test_tolerance_is_that_of_the_precision():
    noisy = logits() + np.random.default_rng(2).normal(scale=0.005, size=(200, 5)).astype(np.float32)
    gate = Gate(min_agreement=0.9)
    assert "rounding" in str(compare_outputs({"y": logits()}, {"y": noisy}, gate=gate).reason)
    assert compare_outputs({"y": logits()}, {"y": noisy}, precision="bf16", gate=gate).passed
    loose = Gate(min_agreement=0.9, absolute=0.1)
    assert compare_outputs({"y": logits()}, {"y": noisy}, gate=loose).passed
    strict = Gate(min_agreement=0.9, absolute=1e-4)
    assert "as set" in str(compare_outputs({"y": logits()}, {"y": noisy}, precision="int8", gate=strict).reason)


def test_top1_gate_gives_counts_and_says_what_few_samples_can_show():
    right = np.eye(4, dtype=np.float32)[np.arange(48) % 4]
    one_off = right.copy()
    one_off[0] = one_off[0, ::-1]
    agreement = compare_outputs({"y": right}, {"y": one_off}, precision="int8")
    assert not agreement.passed
    assert "97.9 % (47 of 48), expected at least 99 %" in str(agreement.reason)
    assert "fewer than 100 samples" in str(agreement.reason)
    assert compare_outputs({"y": right}, {"y": one_off}, precision="int8", gate=Gate(min_agreement=0.97)).passed


def test_regression_in_int8_is_judged_by_what_varies():
    values = np.random.default_rng(3).normal(size=(50, 1)) + 1000
    near, far = values + 0.01, values + np.random.default_rng(4).normal(size=(50, 1))
    assert compare_outputs({"y": values}, {"y": near}, precision="int8").passed
    judged = compare_outputs({"y": values}, {"y": far}, precision="int8")
    assert judged.outputs[0].errors is not None
    assert judged.outputs[0].errors.snr_db > 50
    assert "dB, expected at least 20" in str(judged.reason)


def test_integers_are_exact_except_from_reduced_precision():
    right = np.arange(200) % 10
    off = right.copy()
    off[7] += 1
    assert "1 of 200 values differ" in str(compare_outputs({"y": right}, {"y": off}).reason)
    assert compare_outputs({"y": right}, {"y": off}, precision="int8").passed
    assert compare_outputs({"y": right > 4}, {"y": right > 4}).passed


def test_accuracy_gate_pairs_the_samples():
    labels = np.arange(100) % 4
    right = np.eye(4, dtype=np.float32)[labels]
    worse = right.copy()
    worse[:3] = np.roll(worse[:3], 1, axis=1)
    gate = Gate(min_agreement=0.9)
    agreement = compare_outputs({"y": right}, {"y": worse}, labels=labels, precision="int8", gate=gate)
    assert agreement.accuracy == 0.97
    assert agreement.reference_accuracy == 1
    assert "3 of 100 answers became wrong, 0 became right" in str(agreement.reason)
    exactly = Gate(min_agreement=0.9, max_accuracy_drop=0.03)
    assert compare_outputs({"y": right}, {"y": worse}, labels=labels, precision="int8", gate=exactly).passed
    with pytest.raises(DataError, match="4 classes"):
        compare_outputs({"y": right}, {"y": worse}, labels=labels + 1)
    no_classes = compare_outputs({"y": right[:, 0]}, {"y": right[:, 0]}, labels=labels)
    assert "no output looks like classes" in no_classes.notes[0]


@pytest.mark.parametrize("bad", [{"min_agreement": 99}, {"max_accuracy_drop": -0.1}, {"absolute": float("nan")}])
def test_gate_refuses_nonsense(bad: dict[str, float]):
    with pytest.raises(InputError, match="expected"):
        Gate(**bad)
