"""``config.pbtxt``, read back by Triton's own schema."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import text_format

from redline.core.errors import InputError
from redline.core.tensor import Signature, TensorSpec
from redline.deployment.triton import (
    Scheduling,
    TritonModel,
    config_pbtxt,
    labels_text,
    same_interface,
    warm_up_shapes,
    why_not_joined,
)


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Triton's model_config.proto as NVIDIA's client ships it; its package would want grpcio."""
    client = pytest.importorskip("tritonclient")
    path = Path(client.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("redline_test_model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classifier(**changes: Any) -> TritonModel:
    image = TensorSpec("image", ("batch", 3, 8, 8), "float32")
    scores = TensorSpec("scores", ("batch", 3), "float32")
    given: dict[str, Any] = {"name": "m", "backend": "onnxruntime", "signature": Signature((image,), (scores,))}
    return TritonModel(**{**given, **changes})


def parsed(schema: ModuleType, model: TritonModel) -> Any:
    return text_format.Parse(config_pbtxt(model, comment="one\ntwo"), schema.ModelConfig())


def test_a_classifier_on_a_cpu(schema: ModuleType) -> None:
    plan = Scheduling(max_batch=16, max_delay_s=0.002, instances=4, queue=10, deadline_s=1.5)
    config = parsed(schema, classifier(class_names=("a", "b", "c"), scheduling=plan))
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 16)
    assert (config.input[0].name, list(config.input[0].dims)) == ("image", [3, 8, 8])
    assert config.input[0].data_type == schema.TYPE_FP32
    assert (list(config.output[0].dims), config.output[0].label_filename) == ([3], "labels.txt")
    batching = config.dynamic_batching
    assert (batching.max_queue_delay_microseconds, list(batching.preferred_batch_size)) == (2000, [])
    policy = batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (10, 1_500_000)
    assert policy.timeout_action == schema.ModelQueuePolicy.REJECT
    group = config.instance_group[0]
    assert (group.count, group.kind) == (4, schema.ModelInstanceGroup.KIND_CPU)
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
    }
    assert config.version_policy.latest.num_versions == 1
    warm = config.model_warmup[0]
    assert (warm.batch_size, list(warm.inputs["image"].dims), warm.inputs["image"].zero_data) == (1, [3, 8, 8], True)


def test_a_plan_on_a_gpu(schema: ModuleType) -> None:
    plan = Scheduling(max_batch=64, preferred=(8, 32), kind="gpu", profiles=2)
    config = parsed(schema, classifier(backend="tensorrt", scheduling=plan))
    assert config.backend == "tensorrt"
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 32]
    group = config.instance_group[0]
    assert (group.count, group.kind, list(group.profile)) == (1, schema.ModelInstanceGroup.KIND_GPU, ["0", "1"])
    assert not config.parameters


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([("x", (2, 3))], [("y", (2, 5))]),
        ([("x", ("batch", 3))], [("boxes", ("found", 6))]),
        ([("x", ("batch", 3)), ("y", (1, 3))], [("z", ("batch", 3))]),
        ([("x", ())], [("y", ())]),
        ([("x", ("n", 3)), ("y", ("m", 3))], [("z", ("n", "m"))]),
    ],
)
def test_requests_that_cannot_be_joined_are_not(schema: ModuleType, inputs: Any, outputs: Any) -> None:
    given, taken = (tuple(TensorSpec(name, shape, "float32") for name, shape in side) for side in (inputs, outputs))
    model = classifier(signature=Signature(given, taken))
    config = parsed(schema, model)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    for spec, told in zip((*given, *taken), (*config.input, *config.output), strict=True):
        expected = [size if isinstance(size, int) else -1 for size in spec.shape]
        assert list(told.dims) == (expected or [1])
        assert told.HasField("reshape") == (not expected)
    assert "requests are not batched" in str(why_not_joined(model.signature))


def test_what_is_one_number_a_row_is_reshaped(schema: ModuleType) -> None:
    taken = TensorSpec("y", ("batch",), "int64")
    config = parsed(schema, classifier(signature=Signature((TensorSpec("x", ("batch", 3), "float32"),), (taken,))))
    assert config.max_batch_size == 32
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")
    assert list(config.output[0].reshape.shape) == []


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("bool", "TYPE_BOOL"),
        ("uint8", "TYPE_UINT8"),
        ("int64", "TYPE_INT64"),
        ("float16", "TYPE_FP16"),
        ("float64", "TYPE_FP64"),
        ("object", "TYPE_STRING"),
    ],
)
def test_types(schema: ModuleType, dtype: str, name: str) -> None:
    spec = TensorSpec("x", ("batch", 2), dtype)
    config = parsed(schema, classifier(signature=Signature((spec,), (spec,))))
    assert config.input[0].data_type == getattr(schema, name)
    assert config.model_warmup[0].inputs["x"].data_type == getattr(schema, name)


def test_what_triton_has_no_type_for_is_refused() -> None:
    spec = TensorSpec("x", ("batch", 2), "complex64")
    with pytest.raises(InputError, match="x is complex64, expected one of bool"):
        config_pbtxt(classifier(signature=Signature((spec,), ())))


def test_an_empty_tensor_is_refused() -> None:
    with pytest.raises(InputError, match="expected sizes of at least 1"):
        config_pbtxt(classifier(signature=Signature((TensorSpec("x", ("batch", 0), "float32"),), ())))


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "line\nbreak", "größe", "a{b}#c", "input:0"])
def test_names_survive(schema: ModuleType, name: str) -> None:
    spec = TensorSpec(name, ("batch", 2), "float32")
    config = parsed(schema, classifier(signature=Signature((spec,), (spec,))))
    assert config.input[0].name == name
    assert list(config.model_warmup[0].inputs) == [name]


def test_open_sizes_are_warmed_up_only_where_somebody_said_how_large(schema: ModuleType) -> None:
    signature = Signature((TensorSpec("image", ("batch", 3, "h", "w"), "float32"),), classifier().signature.outputs)
    unknown = classifier(signature=signature)
    assert list(parsed(schema, unknown).input[0].dims) == [3, -1, -1]
    assert not parsed(schema, unknown).model_warmup
    known = classifier(signature=signature, usual={"image": (1, 3, 32, 48)})
    assert list(parsed(schema, known).model_warmup[0].inputs["image"].dims) == [3, 32, 48]
    with pytest.raises(InputError, match="to warm up with"):
        warm_up_shapes(classifier(signature=signature, usual={"image": (3, 32, 48)}))


def test_labels_go_to_the_output_that_has_as_many() -> None:
    outputs = (TensorSpec("features", ("batch", 7), "float32"), TensorSpec("scores", ("batch", 2), "float32"))
    model = classifier(signature=Signature(classifier().signature.inputs, outputs), class_names=("cat", "dog"))
    assert model.labelled == "scores"
    assert classifier(class_names=("cat", "dog")).labelled is None
    assert labels_text(("tabby\ncat", "dog")) == "tabby cat\ndog\n"


def test_the_interface_is_recognised_in_an_edited_file() -> None:
    model = classifier()
    edited = "# mine\n" + config_pbtxt(model).replace("count: 1", "count: 9").replace("  ", "\t")
    assert same_interface(edited, model)
    assert not same_interface(edited, classifier(scheduling=Scheduling(max_batch=8)))
    assert not same_interface(edited, classifier(backend="python"))
    assert not same_interface("# " + config_pbtxt(model).replace("\n", "\n# "), model)


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"instances": 0}, {"threads": 0}, {"max_delay_s": -1.0}])
def test_impossible_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        Scheduling(**wrong)
