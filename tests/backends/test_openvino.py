"""OpenVINO beyond what every backend promises: one batch that it is compiled for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.onnx_models import conv_model

from redline.backends import load_backend
from redline.core.errors import SignatureError
from redline.formats.onnx_file import read_onnx


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
def test_openvino_compiles_for_one_batch_and_takes_no_other(tmp_path: Path) -> None:
    model = read_onnx(conv_model(tmp_path / "model.onnx"))
    backend = load_backend("openvino", {"batch": 3, "threads": 1})
    engine = backend.compile(model, tmp_path / "fixed")
    assert engine.signature.fixed_batch == 3
    session = backend.load(engine)
    feed = {"image": np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)}
    dynamic = load_backend("openvino", {"threads": 1})
    right = dynamic.load(dynamic.compile(model, tmp_path / "dynamic"))(feed)
    for name, values in session(feed).items():
        np.testing.assert_allclose(values, right[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(SignatureError, match=r"got shape \(2,"):
        session({"image": feed["image"][:2]})
