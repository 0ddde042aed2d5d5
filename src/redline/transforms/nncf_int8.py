"""INT8 by NNCF, Intel's quantizer: ONNX in, ONNX out, for OpenVINO and ONNX Runtime alike.

The ONNX form is what OpenVINO runs as fast as NNCF's own IR form: ResNet-18 224, 1 thread, OpenVINO 2026.4, minimum
of 12 interleaved rounds, 8.85 ms and 8.79 ms (batch 8: 65.9 and 65.5 ms). So everything stays one kind of file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from redline.core.artifact import OnnxModel, Step
from redline.core.errors import QuantizeError
from redline.core.packages import missing
from redline.core.samples import Samples
from redline.formats.onnx_file import save_proto, versions
from redline.transforms.calibrate import batch_size, batches
from redline.transforms.quantize_graph import layers_in, nodes_to_keep, prepare


def quantize_nncf(
    model: OnnxModel,
    out: Path,
    samples: Samples,
    *,
    keep_float: tuple[str, ...] = (),
    timeout_s: float = 1800.0,
) -> OnnxModel:
    """Quantize with NNCF's defaults (bias correction included) but with min-max ranges, in a fresh process.

    Args:
        model: A float32 model.
        out: Where to write.
        samples: What ranges and biases are observed on, one call each.
        keep_float: Nodes to leave in floating point; a compute node takes the nodes behind it along.
        timeout_s: When to give up.

    Raises:
        MissingDependencyError: NNCF is not installed.
        QuantizeError: NNCF refused the model, or took too long.
        SignatureError: the samples do not fit the model.
    """
    if find_spec("nncf") is None:
        raise missing("nncf")
    proto = prepare(model)
    keep = nodes_to_keep(proto, keep_float)
    if {layer.node for layer in layers_in(proto)} <= set(keep):
        raise QuantizeError("all layers are to stay in float, so there is nothing to quantize; keep fewer")
    quantized = _run_worker(proto, model, samples, keep, timeout_s)
    step = Step(
        step="quantize nncf",
        arguments={
            "samples": len(samples),
            "samples_sha256": samples.fingerprint(),
            "ranges": "minmax",
            "keep_float": ", ".join(keep_float) or None,
        },
        parent_sha256=model.sha256,
        versions=versions("onnx", "nncf"),
    )
    return save_proto(quantized, out, step=step, parent=model)


def _run_worker(proto: ModelProto, model: OnnxModel, samples: Samples, keep: list[str], timeout_s: float) -> ModelProto:
    with tempfile.TemporaryDirectory(prefix="redline-") as folder:
        source, arrays, result = (Path(folder) / name for name in ("model.onnx", "samples.npz", "int8.onnx"))
        source.write_bytes(proto.SerializeToString())
        feeds = list(batches(model, samples, batch_size(model, 1)))
        np.savez(arrays, **{name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]})  # type: ignore[arg-type]
        words = [sys.executable, "-m", "redline.transforms.nncf_worker", str(source), str(arrays), str(result)]
        try:
            done = subprocess.run(
                [*words, *keep],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise QuantizeError(
                f"{model.path.name}: NNCF took more than {timeout_s:g} s; give fewer samples"
            ) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise QuantizeError(f"{model.path.name}: NNCF failed: {lines[-1]}")
        return onnx.load_model(str(result))
