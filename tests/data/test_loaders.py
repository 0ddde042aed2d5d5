"""Batches from image files: endless, in an order that the seed fixes, with nothing left running."""

from __future__ import annotations

import threading
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.measurement.test_worker import source

from redline.core.errors import DataError, SignatureError, WorkerError
from redline.core.plain import to_plain
from redline.core.preprocess import Preprocess
from redline.core.tensor import Array, Signature, TensorSpec
from redline.data.images import read_image
from redline.data.loaders import LoaderOptions, RealLoader, dummy_batches, open_loader
from redline.measurement.worker import Worker

PREPROCESS = Preprocess(height_px=16, width_px=24, mean=(0.0,) * 3, std=(1 / 255,) * 3)


def make_folder(folder: Path, count: int) -> Path:
    """Images of one colour each: the first pixel says which one it is."""
    (folder / "inner").mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (40, 30), (10 * index, 0, 0)).save(folder / ("inner" if index % 2 else "") / f"{index}.png")
    (folder / ".hidden.png").write_bytes((folder / "0.png").read_bytes() if count else b"")
    (folder / "notes.txt").write_text("no image")
    return folder


def loader(folder: Path, **options: int) -> RealLoader:
    return RealLoader(LoaderOptions(folder=folder, preprocess=PREPROCESS, input_name="x", **{"batch": 3, **options}))


def shown(batch: dict[str, Array]) -> list[int]:
    """Which images a batch has."""
    return [round(float(image[0, 0, 0]) / 10) for image in batch["x"]]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("redline-loader")}


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_round_shows_every_image_once_in_an_order_of_its_own(tmp_path: Path, prefetch: bool) -> None:
    folder = make_folder(tmp_path / "images", 9)
    with loader(folder, threads=2) as one, loader(folder, threads=1, depth=5) as other, loader(folder, seed=1) as third:
        first = [image for batch in islice(one.batches(prefetch=prefetch), 9) for image in shown(batch)]
        again = [image for batch in islice(other.batches(prefetch=True), 9) for image in shown(batch)]
        differs = [image for batch in islice(third.batches(), 9) for image in shown(batch)]
    assert first == again != differs
    rounds = [first[start : start + 9] for start in (0, 9, 18)]
    assert all(sorted(order) == list(range(9)) for order in rounds)
    assert len({tuple(order) for order in rounds}) == 3


def test_an_image_is_prepared_as_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    options = {"folder": str(folder), "preprocess": to_plain(PREPROCESS), "input_name": "x", "batch": 2}
    with open_loader({**options, "dtype": "float16"}) as real:
        batch = next(real.batches(prefetch=True))["x"]
    expected = read_image(folder / "a.png", PREPROCESS).astype(np.float16)
    assert batch.dtype == np.float16
    np.testing.assert_array_equal(batch, [expected, expected])


def test_fewer_images_than_a_batch_repeat(tmp_path: Path) -> None:
    with loader(make_folder(tmp_path / "images", 2), batch=5) as real:
        assert sorted(shown(next(real.batches()))) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


@pytest.mark.parametrize("prefetch", [False, True])
def test_nothing_runs_on_after_the_end(tmp_path: Path, prefetch: bool) -> None:
    before = threads()
    real = loader(make_folder(tmp_path / "images", 4), threads=3)
    with warnings.catch_warnings():
        filters = list(warnings.filters)
        stream = real.batches(prefetch=prefetch)
        next(stream)
        assert threads() != before
        stream.close()
        stream.close()
        assert threads() == before
        assert warnings.filters == filters
    with pytest.raises(DataError, match="has ended"):
        next(stream)
    earlier = real.batches(prefetch=True)
    later = real.batches(prefetch=prefetch)
    with pytest.raises(DataError, match="has ended"):
        next(earlier)
    next(later)
    real.close()
    assert threads() == before


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_broken_image_is_noted_once_and_the_next_one_takes_its_place(tmp_path: Path, prefetch: bool) -> None:
    folder = make_folder(tmp_path / "images", 4)
    (folder / "2.png").write_bytes(b"no png")
    with loader(folder, batch=4, threads=2) as real:
        assert real.images == 4
        assert [sorted(shown(batch)) for batch in islice(real.batches(prefetch=prefetch), 3)] == [[0, 1, 1, 3]] * 3
        assert [(one.name, one.reason) for one in real.skipped] == [("2.png", "its bytes are not those of an image")]


def test_an_image_that_breaks_later_ends_nothing_unless_it_is_the_last(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 2)
    with loader(folder, batch=2) as real:
        (folder / "0.png").unlink()
        assert shown(next(real.batches())) == [1, 1]
        (folder / "inner" / "1.png").unlink()
        with pytest.raises(DataError, match="none of 2 images is readable"):
            next(real.batches(prefetch=True))


def test_a_folder_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        loader(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no images"):
        loader(make_folder(tmp_path / "empty", 0).parent / "empty" / "inner")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no jpeg")
    with pytest.raises(DataError, match=r"none of 1 images is readable; a.jpg: its bytes"):
        loader(tmp_path / "broken")
    with pytest.raises(DataError, match="depth is 0"):
        loader(tmp_path / "broken", depth=0)


def test_a_stream_is_settled_when_it_is_full_or_had_to_be_waited_for(tmp_path: Path) -> None:
    with loader(make_folder(tmp_path / "images", 4), depth=3) as real:
        assert real.batches(prefetch=False).settled
        stream = real.batches(prefetch=True)
        assert not stream.settled
        taken = 0
        while not stream.settled:
            next(stream)
            taken += 1
        assert taken <= 4


def test_a_full_stream_is_settled_at_once(tmp_path: Path) -> None:
    with loader(make_folder(tmp_path / "images", 4), depth=3) as real:
        stream = real.batches(prefetch=True)
        for batch in stream._ahead:
            batch.result()
        next(stream)
        assert stream.settled


def test_a_worker_times_loader_and_session_together(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 4)
    (folder / "0.png").write_bytes(b"no png")
    arguments = {"folder": str(folder), "preprocess": to_plain(PREPROCESS), "input_name": "x", "batch": 4, "threads": 2}
    with Worker(source("make_reader")) as worker:
        worker.open_loader("real", "redline.data.loaders:open_loader", arguments)
        for prefetch in (True, False):
            samples = worker.time_pipeline("real", duration_s=0.0, min_calls=3, prefetch=prefetch)
            assert len(samples) == 3
            assert min(samples) > 0
        assert [one.name for one in worker.loader_attribute("real", "skipped")] == ["0.png"]
        with pytest.raises(WorkerError, match="opened under the name 'dummy'"):
            worker.time_pipeline("dummy", duration_s=0.0, prefetch=True)
        with pytest.raises(WorkerError, match="is not there"):
            worker.open_loader("real", "redline.data.loaders:open_loader", {**arguments, "folder": "/nowhere"})


def test_the_loader_is_no_part_of_the_memory(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 4)
    large = Preprocess(height_px=1000, width_px=1000)
    arguments = {"folder": str(folder), "preprocess": to_plain(large), "input_name": "x", "batch": 10}
    with Worker(source("make_keeper")) as worker:
        worker.prepare(1, [{"x": np.ones((1, 2), np.float32)}], limit_s=0.0)
        before = worker.memory().private_peak_bytes
        worker.open_loader("real", "redline.data.loaders:open_loader", arguments)
        worker.time_pipeline("real", duration_s=0.0, prefetch=True)
        worker.time(1, duration_s=0.0, min_calls=2)
        assert worker.memory().private_peak_bytes == before


def test_dummy_batches_are_random_and_all_different() -> None:
    taken = Signature((TensorSpec("x", ("n", 3, "height", 8), "float32"), TensorSpec("i", ("n", 64), "int64")), ())
    batches = dummy_batches(taken, 4, 3, 0, sizes={"height": 16})
    assert [batch["x"].shape for batch in batches] == [(4, 3, 16, 8)] * 3
    for name in ("x", "i"):
        assert len({batch[name].tobytes() for batch in batches}) == 3
    assert all(abs(batch["x"].std() - 1) < 0.1 for batch in batches)
    again = dummy_batches(taken, 4, 3, 0, sizes={"height": 16})
    np.testing.assert_array_equal(again[2]["x"], batches[2]["x"])
    assert not np.array_equal(dummy_batches(taken, 4, 3, 1, sizes={"height": 16})[0]["x"], batches[1]["x"])


def test_dummy_batches_do_not_fit_another_fixed_batch() -> None:
    with pytest.raises(SignatureError, match="got shape"):
        dummy_batches(Signature((TensorSpec("x", (1, 3), "float32"),), ()), 2, 1, 0)
