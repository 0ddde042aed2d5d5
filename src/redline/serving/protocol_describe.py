"""What the server and its models say about themselves."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache
from typing import Any

from redline.core.tensor import Signature, TensorSpec
from redline.serving.datatypes import CONFIG_TYPES, datatype_of, protocol_shape

_EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
_BACKENDS = {"onnx_onnxv1": "onnxruntime", "tensorrt_plan": "tensorrt"}


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of this server."""
    return {"name": "redline", "version": _version(), "extensions": list(_EXTENSIONS)}


def model_metadata(name: str, versions: Sequence[str], platform: str, signature: Signature) -> dict[str, Any]:
    """What a model takes and gives; -1 is a dynamic size."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def model_config(
    name: str, platform: str, signature: Signature, max_batch: int, batching: bool, instances: int
) -> dict[str, Any]:
    """How a model is run, in the words of Triton's model configuration.

    Args:
        name: Of the model.
        platform: In Triton's words.
        signature: What it takes and gives; a dynamic first size is not among the dimensions then, as in Triton.
        max_batch: The most rows in one run.
        batching: Whether requests are put together.
        instances: How many runs there are at once.
    """
    batched = signature.dynamic_batch and max_batch > 0
    config: dict[str, Any] = {
        "name": name,
        "platform": platform,
        "backend": _BACKENDS.get(platform, platform),
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_batch if batched else 0,
        "input": [_config_tensor(spec, batched=batched) for spec in signature.inputs],
        "output": [_config_tensor(spec, batched=batched) for spec in signature.outputs],
        "instance_group": [{"name": name, "count": instances}],
    }
    if batching:
        config["dynamic_batching"] = {}
    return config


@cache
def _version() -> str:
    """The release that is installed; ``redline`` itself is above this room and is not asked."""
    try:
        return importlib.metadata.version("redline")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype_of(spec.numpy_dtype), "shape": protocol_shape(spec)}


def _config_tensor(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    shape = protocol_shape(spec)
    datatype = datatype_of(spec.numpy_dtype)
    return {
        "name": spec.name,
        "data_type": CONFIG_TYPES.get(datatype, f"TYPE_{datatype}"),
        "dims": shape[1:] if batched else shape,
    }
