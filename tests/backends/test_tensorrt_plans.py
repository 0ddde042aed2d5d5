"""Plans without a description: their signature is read from the engine, and no GPU is said plainly."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.gpu import needs_tensorrt
from tests.onnx_models import conv_model

from redline.backends import load_backend, open_engine
from redline.backends.nvidia import device_count
from redline.core.errors import DeviceError, EngineMismatchError
from redline.core.tensor import TensorSpec
from redline.formats.onnx_file import read_onnx

pytest.importorskip("cuda", reason="needs cuda-bindings")
from redline.backends.tensorrt.engine import Tensor
from redline.backends.tensorrt.plans import open_plan, signature_of


def test_dynamic_sizes_get_names_and_outputs_follow_the_batch() -> None:
    half = np.dtype(np.float16)
    tensors = (
        Tensor(name="images", is_input=True, shape=(-1, 3, -1, 640), dtype=half),
        Tensor(name="output0", is_input=False, shape=(-1, 84, -1), dtype=np.dtype(np.float32)),
    )
    signature = signature_of(tensors)
    assert signature.inputs == (TensorSpec("images", ("batch", 3, "images_2", 640), "float16"),)
    assert signature.outputs == (TensorSpec("output0", ("batch", 84, "output0_2"), "float32"),)
    assert signature.dynamic_batch


def test_a_fixed_batch_stays_fixed() -> None:
    tensor = Tensor(name="images", is_input=True, shape=(32, 3, 640, 640), dtype=np.dtype(np.float32))
    assert signature_of([tensor]).fixed_batch == 32


@pytest.mark.skipif(find_spec("tensorrt_rtx_bindings") is None, reason="needs TensorRT-RTX's wheels")
@pytest.mark.skipif(device_count() > 0, reason="there is a GPU here")
def test_without_a_gpu_the_reason_is_told() -> None:
    with pytest.raises(DeviceError, match=r"driver|GPU"):
        open_plan(b"ftrt", name="m.engine", flavour="tensorrt-rtx")


@pytest.mark.gpu
@needs_tensorrt
def test_a_bare_plan_answers_as_the_described_engine(tmp_path: Path) -> None:
    options = {"optimization_level": 1, "profiles": "1,4,8", "precision": "fp32"}
    engine = load_backend("tensorrt", options).compile(read_onnx(conv_model(tmp_path / "m.onnx")), tmp_path)
    inputs = {"image": np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)}
    bare = open_plan(engine.path.read_bytes(), name="m.engine")
    described = open_engine(str(engine.path))
    np.testing.assert_allclose(bare(inputs)["logits"], described(inputs)["logits"], atol=1e-6)
    bare.close()
    described.close()
    with pytest.raises(EngineMismatchError, match=r"m\.engine"):
        open_plan(engine.path.read_bytes()[:100], name="m.engine")
