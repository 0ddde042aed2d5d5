"""What the server and its models say about themselves."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache
from typing import NotRequired, TypedDict

from redline.core.tensor import Signature, TensorSpec
from redline.serving.datatypes import BYTES, datatype_of, protocol_shape

_EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
_BACKENDS = {"onnx_onnxv1": "onnxruntime", "tensorrt_plan": "tensorrt"}


class TensorMetadata(TypedDict):
    """A tensor; -1 is a dynamic size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfigTensor(TypedDict):
    """A tensor in Triton's words; without the batch where there is one."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(TypedDict):
    """How a model is run; ``dynamic_batching`` is there where requests are put together."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, dict[str, int]]
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    instance_group: list[dict[str, str | int]]
    dynamic_batching: NotRequired[dict[str, int]]


def server_metadata() -> dict[str, str | list[str]]:
    """Name, version and extensions of this server."""
    return {"name": "redline", "version": _version(), "extensions": list(_EXTENSIONS)}


def model_metadata(name: str, versions: Sequence[str], platform: str, signature: Signature) -> ModelMetadata:
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
) -> ModelConfig:
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
    config: ModelConfig = {
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


def _tensor(spec: TensorSpec) -> TensorMetadata:
    return {"name": spec.name, "datatype": datatype_of(spec.numpy_dtype), "shape": protocol_shape(spec)}


def _config_tensor(spec: TensorSpec, *, batched: bool) -> ConfigTensor:
    shape, datatype = protocol_shape(spec), datatype_of(spec.numpy_dtype)
    data_type = "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"
    return {"name": spec.name, "data_type": data_type, "dims": shape[1:] if batched else shape}
