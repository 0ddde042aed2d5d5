"""The ``model.py`` for Triton's Python backend, with a stand-in for Triton's side of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tests.onnx_models import conv_model

from redline.deployment.triton_python import TritonPythonModel

Request = dict[str, np.ndarray]


class _Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class _Response:
    def __init__(self, output_tensors: list[_Tensor] | None = None, error: str | None = None) -> None:
        self.outputs = {tensor.name: tensor.array for tensor in output_tensors or []}
        self.error = error


@pytest.fixture(autouse=True)
def utils(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: _Tensor(name, request[name]),
        InferenceResponse=_Response,
        Tensor=_Tensor,
        TritonError=str,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)


def opened(tmp_path: Path, *, batch: int | str = "batch", max_batch: int = 32) -> TritonPythonModel:
    (tmp_path / "m/1").mkdir(parents=True)
    conv_model(tmp_path / "m/1/model.onnx", batch=batch)
    config = {
        "max_batch_size": max_batch,
        "input": [{"name": "image"}],
        "output": [{"name": "logits"}],
        "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    }
    model = TritonPythonModel()
    args = {"model_config": json.dumps(config), "model_repository": str(tmp_path / "m"), "model_version": "1"}
    model.initialize({**args, "model_instance_kind": "CPU"})
    return model


def images(rows: int, seed: int = 0, size: int = 16) -> Request:
    return {"image": np.random.default_rng(seed).standard_normal((rows, 3, size, size)).astype(np.float32)}


def alone(tmp_path: Path, request: Request) -> np.ndarray:
    session = ort.InferenceSession(str(tmp_path / "m/1/model.onnx"), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, request)[0])


def counted(model: TritonPythonModel) -> list[int]:
    runs: list[int] = []
    run = model._run

    def count(feed: Request) -> Request:
        runs.append(len(feed["image"]))
        return run(feed)

    model._run = count  # type: ignore[method-assign]
    return runs


def test_each_request_gets_its_own_rows_out_of_one_run(tmp_path: Path) -> None:
    model = opened(tmp_path)
    runs = counted(model)
    requests = [images(rows, seed) for seed, rows in enumerate((1, 3, 2))]
    answers = model.execute(requests)
    assert runs == [6]
    for request, answer in zip(requests, answers, strict=True):
        assert answer.error is None
        np.testing.assert_allclose(answer.outputs["logits"], alone(tmp_path, request), rtol=1e-5, atol=1e-6)
    model.finalize()


def test_a_bad_request_fails_alone(tmp_path: Path) -> None:
    model = opened(tmp_path)
    bad = {"image": images(1)["image"].astype(np.float64)}
    first, failed, last = model.execute([images(1, 1), bad, images(1, 2)])
    assert "image" in failed.error or "type" in failed.error
    assert first.error is last.error is None


def test_a_batch_that_fails_runs_one_by_one(tmp_path: Path) -> None:
    model = opened(tmp_path)
    run, runs = model._run, []

    def fails(feed: Request) -> Request:
        runs.append(len(feed["image"]))
        if (feed["image"] == 7).any():
            raise RuntimeError("seven is\nnot liked")
        return run(feed)

    model._run = fails  # type: ignore[method-assign]
    seven = {"image": np.full((1, 3, 16, 16), 7, np.float32)}
    first, failed, last = model.execute([images(1, 1), seven, images(1, 2)])
    assert runs == [3, 1, 1, 1]
    assert failed.error == "seven is not liked"
    for answer, seed in ((first, 1), (last, 2)):
        np.testing.assert_allclose(answer.outputs["logits"], alone(tmp_path, images(1, seed)), rtol=1e-5, atol=1e-6)


def test_without_a_batch_each_request_runs_by_itself(tmp_path: Path) -> None:
    model = opened(tmp_path, batch=2, max_batch=0)
    runs = counted(model)
    answers = model.execute([images(2, 1), images(2, 2)])
    assert runs == [2, 2]
    assert [answer.outputs["logits"].shape for answer in answers] == [(2, 5), (2, 5)]


def test_text_reaches_the_model_as_text() -> None:
    model = TritonPythonModel()
    model._inputs = ["words"]
    model._utils = sys.modules["triton_python_backend_utils"]
    given: Any = {"words": np.array([["grün".encode(), b""]], dtype=object)}
    assert model._feed(given)["words"].tolist() == [["grün", ""]]


def test_it_needs_nothing_of_redline() -> None:
    from redline.deployment import triton_python

    assert "redline" not in Path(triton_python.__file__).read_text().split('"""', 2)[2].lower()
