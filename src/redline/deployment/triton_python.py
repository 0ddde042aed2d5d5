"""The ``model.py`` of a model that Triton's Python backend runs with ONNX Runtime; copied into the repository as it is.

For a Triton without the ONNX Runtime backend. Its Python needs numpy and onnxruntime, and nothing of Redline.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


class TritonPythonModel:
    """One instance: one session of ``model.onnx`` beside this file."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model; called once by Triton."""
        self._utils: Any = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._batches = config["max_batch_size"] > 0
        options = ort.SessionOptions()
        threads = config.get("parameters", {}).get("intra_op_thread_count", {})
        options.intra_op_num_threads = int(threads.get("string_value", "0"))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        folder = Path(args["model_repository"]) / args["model_version"]
        gpu = args["model_instance_kind"] == "GPU"
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if gpu else ["CPUExecutionProvider"]
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=providers)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer what Triton has batched: requests of equal shapes in one run; if that fails, each by itself."""
        answers: list[Any] = [None] * len(requests)
        feeds = [self._feed(request) for request in requests]
        groups: dict[Any, list[int]] = {}
        for index, feed in enumerate(feeds):
            key = tuple((name, array.dtype.str, array.shape[1:]) for name, array in feed.items())
            groups.setdefault(key if self._batches else index, []).append(index)
        found: list[dict[str, np.ndarray[Any, Any]] | Exception]
        for members in groups.values():
            try:
                found = [*self._run_joined([feeds[index] for index in members])]
            except Exception as error:  # noqa: BLE001 (whatever it is, it is the answer)
                found = [self._alone(feeds[index]) for index in members] if len(members) > 1 else [error]
            for index, outputs in zip(members, found, strict=True):
                answers[index] = self._answer(outputs)
        return answers

    def finalize(self) -> None:
        """Free the model; called once by Triton."""
        del self._session

    def _feed(self, request: Any) -> dict[str, np.ndarray[Any, Any]]:
        feed = {}
        for name in self._inputs:
            array = self._utils.get_input_tensor_by_name(request, name).as_numpy()
            # Text comes as bytes and is UTF-8 to ONNX.
            feed[name] = np.vectorize(bytes.decode, otypes=[object])(array) if array.dtype == np.object_ else array
        return feed

    def _run_joined(self, feeds: list[dict[str, np.ndarray[Any, Any]]]) -> list[dict[str, np.ndarray[Any, Any]]]:
        if len(feeds) == 1:
            return [self._run(feeds[0])]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        outputs = self._run(joined)
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        parts = {name: np.split(array, ends) for name, array in outputs.items()}
        return [{name: parts[name][index] for name in self._outputs} for index in range(len(feeds))]

    def _run(self, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def _alone(self, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]] | Exception:
        try:
            return self._run(feed)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the answer)
            return error

    def _answer(self, outputs: dict[str, np.ndarray[Any, Any]] | Exception) -> Any:
        if isinstance(outputs, Exception):
            return self._utils.InferenceResponse(error=self._utils.TritonError(" ".join(str(outputs).split())[:500]))
        tensors = [self._utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
        return self._utils.InferenceResponse(output_tensors=tensors)
