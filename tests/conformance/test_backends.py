"""What every backend promises: a new one is put into the table and inherits these tests."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import conv_model, five_inputs, integer_input, no_inputs, save_graph

from redline.backends import BACKENDS, load_backend, open_engine, why_not
from redline.core.artifact import Argument, Engine
from redline.core.errors import (
    BuildError,
    DeviceError,
    EngineMismatchError,
    InputError,
    MissingDependencyError,
    SignatureError,
    UnsupportedError,
)
from redline.core.session import Session
from redline.formats.onnx_file import read_onnx

GPU = {"tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt"}
FROM_ONNX = [name for name, entry in BACKENDS.items() if entry.from_onnx]
pytestmark = pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=[pytest.mark.gpu] if name in GPU else []) for name in FROM_ONNX]
)
reason_against = cache(why_not)


@pytest.fixture(autouse=True)
def _installed(backend: str) -> None:
    """Skip a backend that is not here at all; one that builds without running is skipped where a test runs it."""
    try:
        load_backend(backend)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def options(backend: str) -> dict[str, Argument]:
    if backend not in GPU:
        return {"threads": 1}
    return {"target": "sm89"} if backend == "tensorrt-rtx" and reason_against(backend) else {}


def compiled(backend: str, path: Path, folder: Path) -> Engine:
    try:
        return load_backend(backend, options(backend)).compile(read_onnx(path), folder)
    except (UnsupportedError, DeviceError):
        if (reason := reason_against(backend)) is None:
            raise
        pytest.skip(reason)


def opened(backend: str, path: Path, folder: Path) -> Session:
    if reason := reason_against(backend):
        pytest.skip(reason)
    return load_backend(backend, options(backend)).load(compiled(backend, path, folder / "engines"))


def image(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).standard_normal((batch, 3, 16, 16)).astype(np.float32)}


def expected(folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return opened("reference", conv_model(folder / "expected.onnx"), folder)(inputs)["logits"]


def test_answers_as_the_standard_says_at_several_batch_sizes(backend: str, tmp_path: Path) -> None:
    # bf16 has 8 bits: the default precision of a backend may be that.
    session = opened(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    for batch in (1, 3, 2):
        outputs = session(image(batch))
        assert outputs.keys() == {"logits"}
        np.testing.assert_allclose(outputs["logits"], expected(tmp_path, image(batch)), atol=3e-2)


def test_outputs_are_the_callers_to_keep(backend: str, tmp_path: Path) -> None:
    session = opened(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    first = session(image(1, seed=1))["logits"]
    kept = first.copy()
    for seed in range(2, 6):
        session(image(1, seed=seed))
    np.testing.assert_array_equal(first, kept)
    del session
    gc.collect()
    np.testing.assert_array_equal(first, kept)


def test_inputs_are_left_alone_and_may_lie_anyhow_in_memory(backend: str, tmp_path: Path) -> None:
    session = opened(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    straight = image(2)["image"]
    strided = np.ascontiguousarray(straight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not strided.flags.c_contiguous
    read_only = straight.copy()
    read_only.setflags(write=False)
    answer = session({"image": straight})["logits"]
    np.testing.assert_array_equal(session({"image": strided})["logits"], answer)
    np.testing.assert_array_equal(session({"image": read_only})["logits"], answer)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, r"got inputs \[\], expected \['image'\]"),
        ({"picture": np.zeros((1, 3, 16, 16), np.float32)}, "expected .'image'."),
        ({"image": np.zeros((1, 3, 16, 16), np.float64)}, "got dtype float64, expected float32"),
        ({"image": np.zeros((1, 3, 16, 15), np.float32)}, r"got shape \(1, 3, 16, 15\), expected"),
        ({"image": np.zeros((3, 16, 16), np.float32)}, r"got shape \(3, 16, 16\), expected"),
    ],
)
def test_refuses_what_does_not_fit(backend: str, tmp_path: Path, inputs: dict[str, np.ndarray], told: str) -> None:
    session = opened(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    with pytest.raises(SignatureError, match=told):
        session(inputs)
    assert session(image(1))["logits"].shape == (1, 5)


def test_a_fixed_batch_is_held_to(backend: str, tmp_path: Path) -> None:
    session = opened(backend, conv_model(tmp_path / "m.onnx", batch=2), tmp_path)
    assert session(image(2))["logits"].shape == (2, 5)
    with pytest.raises(SignatureError):
        session(image(1))


@pytest.mark.parametrize(
    ("make", "inputs", "name", "answer"),
    [
        (five_inputs, {f"x{i}": np.full((2, 3), i, np.float32) for i in range(5)}, "y", np.full((2, 3), 10.0)),
        (no_inputs, {}, "y", np.array([1.0, 2.0])),
        (integer_input, {"ids": np.array([[0, 9, 1, 2]])}, "rows", [[[0, 1, 2], [27, 28, 29], [3, 4, 5], [6, 7, 8]]]),
    ],
)
def test_any_number_and_kind_of_inputs(
    backend: str,
    tmp_path: Path,
    make: Callable[[Path], Path],
    inputs: dict[str, np.ndarray],
    name: str,
    answer: np.ndarray,
) -> None:
    session = opened(backend, make(tmp_path / "m.onnx"), tmp_path)
    np.testing.assert_allclose(session(inputs)[name], answer, atol=0.2)


def test_closing_twice_does_nothing_and_a_closed_session_says_so(backend: str, tmp_path: Path) -> None:
    session = opened(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session(image(1))


def test_an_engine_comes_back_from_the_disk_with_its_history(backend: str, tmp_path: Path) -> None:
    engine = compiled(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    assert Engine.read(engine.path) == engine
    assert engine.layers.precision in ("fp32", "tf32", "bf16")
    assert engine.provenance[-1].step == f"compile {backend}"
    if reason := reason_against(backend):
        pytest.skip(reason)
    with_sidecar = open_engine(str(engine.sidecar))
    assert with_sidecar(image(1))["logits"].shape == (1, 5)


def test_a_foreign_engine_is_never_run(backend: str, tmp_path: Path) -> None:
    engine = compiled(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    key = next(iter(engine.platform))
    foreign = replace(engine, platform={**engine.platform, key: "0.1"})
    with pytest.raises(EngineMismatchError, match=f"was compiled for {key} '0.1'"):
        load_backend(backend, options(backend)).load(foreign)


def test_a_truncated_engine_is_never_run(backend: str, tmp_path: Path) -> None:
    engine = compiled(backend, conv_model(tmp_path / "m.onnx"), tmp_path)
    engine.path.write_bytes(engine.path.read_bytes()[:-10])
    with pytest.raises(EngineMismatchError, match="build the engine again"):
        open_engine(str(engine.path))


def test_an_unknown_operator_is_named(backend: str, tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme")],
        {"x": (TensorProto.FLOAT, [1])},
        {"y": (TensorProto.FLOAT, [1])},
    )
    import onnx

    proto = onnx.load(str(path))
    proto.opset_import.append(helper.make_opsetid("com.acme", 1))
    onnx.save(proto, str(path))
    with pytest.raises(BuildError) as refusal:
        load_backend(backend, options(backend)).compile(read_onnx(path), tmp_path)
    reason = reason_against(backend)
    if reason and reason in str(refusal.value):
        pytest.skip(reason)
    assert "Frobnicate" in str(refusal.value)


def test_an_unknown_option_is_refused(backend: str) -> None:
    with pytest.raises(InputError, match="speed"):
        load_backend(backend, {"speed": 11})
