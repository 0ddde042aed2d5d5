"""An engine that cannot be used gives way to what can answer, in words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.onnx_models import conv_model

from redline.backends import load_backend
from redline.commands.run import run
from redline.core.artifact import Engine
from redline.core.errors import EngineMismatchError, InputError
from redline.core.files import sha256_of
from redline.formats.onnx_file import read_onnx
from redline.opening import fallback as module
from redline.opening.fallback import Found


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    model = read_onnx(conv_model(tmp_path / "m.onnx"))
    built = load_backend("onnxruntime", {"threads": 1}).compile(model, tmp_path / "engines")
    # ONNX Runtime's own engines do not say where their model lies; TensorRT's do.
    step = built.provenance[-1]
    named = replace(step, arguments={**step.arguments, "model_file": "../m.onnx"})
    told = replace(built, provenance=(*built.provenance[:-1], named))
    told.save()
    return told


@pytest.fixture
def open_with_fallback() -> Iterator[Callable[..., Found]]:
    opened: list[Found] = []

    def open_it(*arguments: Any, **options: Any) -> Found:
        opened.append(module.open_with_fallback(*arguments, **options))
        return opened[-1]

    yield open_it
    for found in opened:
        found.session.close()


Open = Callable[..., Found]


def image() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)}


def test_a_good_engine_answers_itself(engine: Engine, open_with_fallback: Open) -> None:
    found = open_with_fallback(engine.path)
    assert (found.backend, found.reasons, found.notes) == ("onnxruntime", (), ())


def test_a_broken_engine_is_built_again_from_the_file_that_it_names(engine: Engine, open_with_fallback: Open) -> None:
    expected = open_with_fallback(engine.path).session(image())["logits"]
    engine.path.write_bytes(engine.path.read_bytes()[:100])
    found = open_with_fallback(engine.path, fallback=("rebuild",))
    assert found.backend == "onnxruntime"
    assert "expected" in found.reasons[0]
    np.testing.assert_allclose(found.session(image())["logits"], expected, atol=1e-5)


def test_a_foreign_engine_gives_way_to_the_next_backend(
    engine: Engine, open_with_fallback: Open, tmp_path: Path
) -> None:
    replace(engine, platform={"onnxruntime": "0.1"}).save()
    found = open_with_fallback(engine.path, fallback=("tensorrt-rtx", "reference", "onnxruntime"))
    assert found.backend == "reference"
    assert found.reasons[0].startswith("engine: ")
    assert "0.1" in found.reasons[0]
    assert found.reasons[1].startswith("tensorrt-rtx: ")
    assert found.session(image())["logits"].shape == (2, 5)


def test_without_a_fallback_the_mismatch_is_an_error(engine: Engine, open_with_fallback: Open) -> None:
    replace(engine, platform={"onnxruntime": "0.1"}).save()
    with pytest.raises(EngineMismatchError, match=r"engine: .*0\.1"):
        open_with_fallback(engine.path, fallback=())


def test_a_stale_engine_is_not_used(engine: Engine, open_with_fallback: Open, tmp_path: Path) -> None:
    newer = conv_model(tmp_path / "newer.onnx", seed=1)
    with pytest.raises(EngineMismatchError, match=r"not built from this newer\.onnx"):
        open_with_fallback(engine.path, model=newer, fallback=())
    found = open_with_fallback(engine.path, model=newer, fallback=("onnxruntime",))
    backend = load_backend("onnxruntime", {"threads": 1})
    right = backend.load(backend.compile(read_onnx(newer), tmp_path / "right"))(image())["logits"]
    np.testing.assert_allclose(found.session(image())["logits"], right, atol=1e-5)


def test_a_model_that_has_changed_or_gone_is_not_taken_for_the_old_one(
    engine: Engine, open_with_fallback: Open, tmp_path: Path
) -> None:
    engine.path.write_bytes(b"broken")
    conv_model(tmp_path / "m.onnx", seed=7)
    assert sha256_of(tmp_path / "m.onnx") != engine.provenance[-1].parent_sha256
    with pytest.raises(EngineMismatchError, match="has changed since"):
        open_with_fallback(engine.path, fallback=("rebuild", "onnxruntime"))
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(EngineMismatchError, match="is not there any more"):
        open_with_fallback(engine.path, fallback=("onnxruntime",))


def test_pytorch_answers_where_it_is_named(engine: Engine, open_with_fallback: Open) -> None:
    engine.path.write_bytes(b"broken")
    with pytest.raises(EngineMismatchError, match="torch: no PyTorch model was named"):
        open_with_fallback(engine.path, fallback=("torch",))
    found = open_with_fallback(engine.path, fallback=("torch",), torch="convnet")
    assert found.backend == "torch"


def test_it_is_logged_once(engine: Engine, open_with_fallback: Open, caplog: pytest.LogCaptureFixture) -> None:
    module._told.clear()
    replace(engine, platform={"onnxruntime": "0.1"}).save()
    with caplog.at_level(logging.WARNING, logger="redline.fallback"):
        for _ in range(3):
            open_with_fallback(engine.path, fallback=("reference",))
    assert len(caplog.records) == 1
    assert "reference answers instead" in caplog.records[0].message


def test_an_unknown_fallback_is_refused_before_anything_is_opened(engine: Engine, open_with_fallback: Open) -> None:
    with pytest.raises(InputError, match="got fallback 'cuda'"):
        open_with_fallback(engine.path, fallback=("cuda",))


def test_run_tells_who_answered(engine: Engine, tmp_path: Path) -> None:
    replace(engine, platform={"onnxruntime": "0.1"}).save()
    np.savez(tmp_path / "in.npz", **image())
    with pytest.raises(EngineMismatchError):
        run(engine.path, tmp_path / "in.npz")
    result = run(engine.path, tmp_path / "in.npz", fallback=("reference",))
    assert result.notes[0] == "reference answers instead of the engine"
    assert "0.1" in result.notes[1]
