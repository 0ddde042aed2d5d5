"""Folders of images with all that people have in folders; labels from three places; shipped data."""

import numpy as np
import pytest
from PIL import Image

from redline.core.errors import DataError
from redline.core.preprocess import Preprocess
from redline.core.tensor import Signature, TensorSpec
from redline.data.sources import load_asset, load_samples

RGB = Signature((TensorSpec("image", ("n", 3, 16, 16), "float32"),), (TensorSpec("logits", ("n", 3), "float32"),))


def write(path, color="red", size=(20, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def load(folder, **options):
    return load_samples(folder, RGB, None, **options)


def test_used_are_counted_and_skipped_are_named(tmp_path):
    write(tmp_path / "b.png")
    write(tmp_path / "deep/er/a.jpg")
    write(tmp_path / "dot.gif", size=(1, 1))
    write(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.jpg").write_bytes(write(tmp_path / "c.jpeg").read_bytes()[:200])
    samples = load(tmp_path)
    assert samples.names == ("b.png", "c.jpeg", "deep/er/a.jpg")
    assert samples.used == 3
    assert samples.inputs["image"].shape == (3, 3, 16, 16)
    assert samples.labels is None
    reasons = {one.name: one.reason for one in samples.skipped}
    assert set(reasons) == {"notes.txt", "broken.jpg", "dot.gif"}
    assert "1x1" in reasons["dot.gif"]
    assert "not an image" in reasons["notes.txt"]
    assert "truncated" in reasons["broken.jpg"].lower()


def test_a_limit_takes_evenly_and_fills_up_what_is_broken(tmp_path):
    for index in range(10):
        write(tmp_path / f"{index}.png")
    (tmp_path / "0.png").write_bytes(b"no")
    samples = load(tmp_path, limit=5)
    assert len(samples) == 5
    assert {"2.png", "4.png", "6.png", "8.png"} < set(samples.names)


def test_one_image(tmp_path):
    assert load(write(tmp_path / "a.png")).names == ("a.png",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "is not there"),
        (lambda folder: folder, "empty folder"),
        (lambda folder: write(folder / "dot.gif", size=(1, 1)).parent, "no usable image among 1 files .*1x1"),
    ],
)
def test_nothing_usable_says_so(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        load(make(tmp_path))


def test_images_for_a_model_that_takes_none(tmp_path):
    write(tmp_path / "a.png")
    for taken in [(TensorSpec("ids", ("n", 5), "int64"),), RGB.inputs * 2, ()]:
        with pytest.raises(DataError, match=r"expected a .npz"):
            load_samples(tmp_path, Signature(taken, ()), None)


def test_a_preprocess_that_does_not_fit(tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"prepared to \[3, 8, 8\]"):
        load_samples(tmp_path, RGB, Preprocess(height_px=8, width_px=8))


def test_half_precision_input(tmp_path):
    write(tmp_path / "a.png")
    taken = Signature((TensorSpec("x", (1, 3, 16, 16), "float16"),), ())
    assert load_samples(tmp_path, taken, None).inputs["x"].dtype == np.float16


def test_labels_from_folders(tmp_path):
    for name in ("cat", "ant", "bee"):
        write(tmp_path / name / "1.png")
    samples = load(tmp_path)
    assert dict(zip(samples.names, samples.labels, strict=True)) == {"ant/1.png": 0, "bee/1.png": 1, "cat/1.png": 2}
    known = load(tmp_path, classes=("cat", "bee", "ant"))
    assert known.labels.tolist() == [2, 1, 0]


def test_folders_that_are_not_the_classes_label_nothing(tmp_path):
    for name in ("monday", "tuesday"):
        write(tmp_path / name / "1.png")
    samples = load(tmp_path)
    assert samples.labels is None
    assert "not the model's classes" in samples.source


def test_folders_named_by_index(tmp_path):
    write(tmp_path / "0" / "1.png")
    write(tmp_path / "2" / "1.png")
    assert load(tmp_path).labels.tolist() == [0, 2]
    write(tmp_path / "3" / "1.png")
    with pytest.raises(DataError, match="has label 3, expected 0 to 2"):
        load(tmp_path)


def test_labels_from_a_table(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "sub/b.png")
    write(tmp_path / "c.png")
    (tmp_path / "labels.csv").write_text("file,label,split\na.png,2,test\nsub/b.png,0,test\n")
    samples = load(tmp_path)
    assert (samples.names, samples.labels.tolist()) == (("a.png", "sub/b.png"), [2, 0])
    assert [(one.name, one.reason) for one in samples.skipped] == [("c.png", "has no label")]


def test_another_table_with_names(tmp_path):
    write(tmp_path / "photos/a.png")
    table = tmp_path / "mine.csv"
    table.write_text("file, label\na.png, dog\n")
    assert load(tmp_path / "photos", labels=table, classes=("cat", "dog", "elk")).labels.tolist() == [1]
    with pytest.raises(DataError, match="not the model's classes"):
        load(tmp_path / "photos", labels=table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\nnone.png,1\n", "none.png, which is not in"),
        ("file,label\na.png,7\n", "has label 7, expected 0 to 2"),
        ("file,label\na.png,-1\n", "has label -1"),
        ("file,label\na.png,1\na.png,2\n", "two labels"),
        ("name,class\na.png,1\n", "columns name, class, expected file,label"),
        ("file,label\na.png\n", "line 2"),
        ("file,label\n", "no rows"),
        ("", "columns none"),
    ],
)
def test_broken_tables(tmp_path, content, message):
    write(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_table_that_is_not_there_or_no_text(tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match="is not there"):
        load(tmp_path, labels=tmp_path / "none.csv")
    with pytest.raises(DataError, match="not a readable CSV"):
        load(tmp_path, labels=tmp_path / "a.png")


def test_shipped_digits():
    preprocess = Preprocess(height_px=8, width_px=8, mean=(0.3,), std=(0.37,), color="gray", resize="stretch")
    calibration, verification = load_asset("digits.npz", preprocess, input_name="x")
    assert verification.inputs["x"].shape == (599, 1, 8, 8)
    assert set(calibration.labels) == set(verification.labels) == set(range(10))


def test_an_asset_that_is_not_there():
    with pytest.raises(DataError, match=r"no data called 'cats', expected one of: digits.npz"):
        load_asset("cats", Preprocess(height_px=8, width_px=8))
