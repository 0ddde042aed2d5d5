"""NumPy files: any inputs, by name, of the right dtype and shape."""

import numpy as np
import pytest

from redline.core.errors import DataError
from redline.core.preprocess import Preprocess
from redline.core.tensor import Signature, TensorSpec
from redline.data.sources import load_samples

ONE = Signature((TensorSpec("image", ("n", 4), "float32"),), (TensorSpec("logits", ("n", 3), "float32"),))
TWO = Signature((TensorSpec("ids", ("n", "length"), "int64"), TensorSpec("mask", ("n", "length"), "bool")), ())
REAL = np.arange(24, dtype=np.float32).reshape(6, 4)


def load(folder, signature=ONE, limit=None, preprocess=None, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return load_samples(folder / "data.npz", signature, preprocess, limit=limit)


@pytest.mark.parametrize("name", ["image", "x", "images", "whatever"])
def test_the_array_of_a_single_input(tmp_path, name):
    samples = load(tmp_path, **{name: REAL}, y=np.array([0, 1, 2, 0, 1, 2]))
    assert np.array_equal(samples.inputs["image"], REAL)
    assert samples.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_several_inputs_of_other_dtypes(tmp_path):
    samples = load(tmp_path, TWO, ids=np.ones((5, 7), np.int32), mask=np.ones((5, 7), bool), labels=np.arange(5))
    assert samples.inputs["ids"].dtype == np.int64
    assert samples.labels.tolist() == [0, 1, 2, 3, 4]


def test_a_npy_file(tmp_path):
    np.save(tmp_path / "a.npy", REAL)
    assert len(load_samples(tmp_path / "a.npy", ONE, None)) == 6


def test_a_limit_takes_evenly(tmp_path):
    samples = load(tmp_path, x=REAL, limit=3)
    assert samples.names == ("0", "2", "4")


def test_pixels_are_prepared_like_images(tmp_path):
    taken = Signature((TensorSpec("x", ("n", 1, 8, 8), "float32"),), ())
    gray = Preprocess(height_px=8, width_px=8, mean=(0,), std=(1,), color="gray", resize="stretch")
    samples = load(tmp_path, taken, preprocess=gray, images=np.full((2, 9, 9), 255, np.uint8))
    assert samples.inputs["x"].shape == (2, 1, 8, 8)
    assert samples.inputs["x"].min() == 1


@pytest.mark.parametrize(
    ("signature", "arrays", "message"),
    [
        (ONE, {"x": REAL[:, :3]}, r"got shape \(6, 3\), expected"),
        (ONE, {"x": REAL.astype(complex)}, "is complex128, expected float32"),
        (ONE, {"a": REAL, "b": REAL}, r"has arrays \['a', 'b'\], expected .*'image'"),
        (ONE, {"x": REAL[:0]}, "at least 1"),
        (ONE, {"x": np.float32(1)}, "at least 1"),
        (ONE, {"x": REAL, "y": np.zeros(5, int)}, r"expected \(6,\)"),
        (ONE, {"x": REAL, "y": np.full(6, 3)}, "has label 3, expected 0 to 2"),
        (ONE, {"x": REAL, "y": np.zeros(6)}, "expected integers"),
        (TWO, {"ids": np.ones((5, 7), int)}, "expected one for each input"),
        (TWO, {"ids": np.ones((5, 7), int), "mask": np.ones((4, 7), bool)}, "the same number"),
        (TWO, {"ids": np.ones((5, 7), int), "mask": np.ones((5, 6), bool)}, "got shape"),
        (TWO, {"ids": np.full((5, 7), 0.5), "mask": np.ones((5, 7), bool)}, "is float64, expected int64"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, signature, arrays, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, signature, **arrays)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_file_cut_anywhere(tmp_path, suffix):
    np.savez(tmp_path / "a.npz", x=REAL)
    np.save(tmp_path / "a.npy", REAL)
    whole = (tmp_path / f"a{suffix}").read_bytes()
    for length in range(0, len(whole) - 1, 7):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_samples(cut, ONE, None)


def test_python_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without Python objects"):
        load_samples(tmp_path / "a.npy", ONE, None)
