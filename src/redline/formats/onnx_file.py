"""Read and write ONNX files: whole, checked, with the precision and the history that are really in them."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, defs, helper, shape_inference
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from redline.core.artifact import Layers, OnnxModel, Precision, Step
from redline.core.errors import ArtifactError
from redline.core.files import sha256_of, whole_file
from redline.core.plain import from_text, to_line
from redline.core.preprocess import Usage
from redline.core.tensor import Dim, Signature, TensorSpec
from redline.formats.ultralytics_metadata import usage_of_metadata

PROVENANCE_KEY = "redline.provenance"
USAGE_KEY = "redline.usage"
_TWO_GIB = (1 << 31) - (1 << 20)
_INT8_OPS = frozenset(
    {"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"}
    | {"DynamicQuantizeMatMul", "QAttention", "QLinearConvTranspose"}
)
_FLOAT_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul"} | {"LSTM"})
# Constants that shapes are made of are far smaller.
_SMALL_ELEMENTS = 1024
_SIZED = frozenset(helper.get_all_tensor_dtypes()) - {TensorProto.STRING}
_PRECISION_OF: dict[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of those packages that are there, for a provenance step."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_proto(path: Path, *, contained: bool = False) -> ModelProto:
    """Load and check a model with all of its data.

    Args:
        path: The file.
        contained: Refuse weights that lie outside of its folder, before any is read: for files of strangers.

    Raises:
        ArtifactError: the file is missing, empty, truncated, not ONNX, of an opset newer than the installed onnx
            knows, or its external data is missing, too short or outside.
    """
    return _load(path, contained=contained)[0]


def _load(path: Path, *, contained: bool) -> tuple[ModelProto, set[str]]:
    """A whole model, with the files that its weights came from."""
    if not path.is_file():
        raise ArtifactError(f"{path} is not a file; expected an ONNX model")
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is truncated or not an ONNX file ({path.stat().st_size} bytes)") from error
    _check_opset(path, proto)
    if contained:
        _check_places(path, proto)
    external = _check_external_data(path, proto)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
        checker.check_model(str(path) if _weight_bytes(proto) > _TWO_GIB else proto)
    except (checker.ValidationError, ValueError, OSError) as error:
        raise ArtifactError(f"{path} is not a valid ONNX model: {_one_line(error)}") from error
    return proto, external


def read_onnx(path: Path, *, contained: bool = False) -> OnnxModel:
    """Describe a model file: signature, opset, the precision that its graph has, its provenance.

    Raises:
        ArtifactError: as for :func:`load_proto`; or an input that is not a tensor, or has no shape.
    """
    return _describe(path, *_load(path, contained=contained))


def describe(path: Path, proto: ModelProto) -> OnnxModel:
    """Like :func:`read_onnx` for a model that is already loaded from ``path``."""
    stored = onnx.load_model(str(path), load_external_data=False)
    return _describe(path, proto, {info.location for info in _external_data(stored)})


def _describe(path: Path, proto: ModelProto, external: Iterable[str]) -> OnnxModel:
    typed = _with_inferred_types(proto)
    return OnnxModel(
        path=path,
        sha256=sha256_of(path),
        signature=_signature(path, typed),
        opset=opset_of(proto),
        layers=layers_of(typed),
        size_bytes=path.stat().st_size + sum((path.parent / name).stat().st_size for name in external),
        provenance=_read_provenance(proto),
        usage=_read_usage(proto),
    )


def save_proto(
    proto: ModelProto, out: Path, *, step: Step, parent: OnnxModel | None, usage: Usage | None = None
) -> OnnxModel:
    """Write a model, whole or not at all, with ``parent``'s history and ``step`` in its metadata.

    ``usage`` goes into the metadata too; where it is None, ``parent``'s does.

    A model of 2 GiB or more gets its weights beside it in ``<out>.data``, as the format demands.
    """
    steps = [*(parent.provenance if parent else ()), step]
    kept = [prop for prop in proto.metadata_props if prop.key not in (PROVENANCE_KEY, USAGE_KEY)]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    proto.metadata_props.add(key=PROVENANCE_KEY, value=to_line(steps).decode())
    usage = usage or (parent.usage if parent else Usage())
    if usage != Usage():
        proto.metadata_props.add(key=USAGE_KEY, value=to_line(usage).decode())
    if proto.ByteSize() < _TWO_GIB:
        with whole_file(out) as scratch:
            scratch.write_bytes(proto.SerializeToString())
    else:  # pragma: no cover
        _save_with_external_data(proto, out)
    return read_onnx(out)


def opset_of(proto: ModelProto) -> int:
    """The version of the default operator set that the model imports."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)


def unknown_operators(proto: ModelProto) -> list[str]:
    """Operators that neither ONNX's schemas, ONNX Runtime's own domains nor the model's functions define."""
    own = {(function.domain, function.name) for function in proto.functions}
    found: list[str] = []
    for node in all_nodes(proto.graph.node):
        known_domain = node.domain.startswith(("com.microsoft", "ai.onnx.ml"))
        if known_domain or (node.domain, node.op_type) in own or defs.has(node.op_type, node.domain):
            continue
        found.append(f"{node.domain or 'ai.onnx'}:{node.op_type}")
    return sorted(set(found))


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of their subgraphs (If, Loop, Scan), depth first."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for graph in graphs:
                yield from all_nodes(graph.node)


def layers_of(proto: ModelProto) -> Layers:
    """Count the compute layers of each precision, as the graph's own types say.

    A layer counts as int8 when it is an integer operator, or when all of its data inputs come straight from
    DequantizeLinear (the Q/DQ form that runtimes fuse); a layer whose weights alone are quantized computes in float.
    """
    graph = proto.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    producer = {name: node.op_type for node in graph.node for name in node.output}
    counts: Counter[Precision] = Counter()
    for node in all_nodes(graph.node):
        if node.op_type in _INT8_OPS:
            counts["int8"] += 1
        elif node.op_type in _FLOAT_OPS:
            counts[_float_op_precision(node, types, producer)] += 1
    return Layers.of(counts)


def _float_op_precision(node: NodeProto, types: dict[str, int], producer: dict[str, str]) -> Precision:
    operands = list(node.input[:2])
    if all(producer.get(name) == "DequantizeLinear" for name in operands):
        return "int8"
    found = [_PRECISION_OF[types[name]] for name in reversed(operands) if types.get(name) in _PRECISION_OF]
    return found[0] if found else "fp32"


def _check_opset(path: Path, proto: ModelProto) -> None:
    opset, newest = opset_of(proto), defs.onnx_opset_version()
    if opset > newest:
        raise ArtifactError(
            f"{path} has opset {opset}, expected at most {newest} (onnx {onnx.__version__}); "
            "export with a lower --opset or upgrade onnx"
        )
    if not opset and not proto.opset_import:
        raise ArtifactError(f"{path} is truncated or not an ONNX file (no operator set, no graph)")


def _external_data(proto: ModelProto) -> list[ExternalDataInfo]:
    return [ExternalDataInfo(tensor) for tensor in _tensors(proto) if uses_external_data(tensor)]


def _weight_bytes(proto: ModelProto) -> int:
    """What the weights take in memory; ``ByteSize`` would encode them all to find out."""
    return sum(
        prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in proto.graph.initializer
        if tensor.data_type in _SIZED
    )


def _check_places(path: Path, proto: ModelProto) -> None:
    folder = path.parent.resolve()
    places = {entry.value for tensor in _tensors(proto) for entry in tensor.external_data if entry.key == "location"}
    for place in sorted(places):
        if not (folder / place).resolve().is_relative_to(folder):
            raise ArtifactError(f"{path} keeps weights in {place!r}, which is outside its folder; copy the file there")


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a model holds, those of subgraphs, functions and attributes too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def _check_external_data(path: Path, proto: ModelProto) -> set[str]:
    """Whether the weights that are kept elsewhere are there; the names of their files."""
    found = _external_data(proto)
    for info in found:
        file = path.parent / info.location
        if not file.is_file():
            raise ArtifactError(f"{path} keeps its weights in {info.location}, which is not beside it; copy it there")
        needed = (info.offset or 0) + (info.length or 0)
        if file.stat().st_size < needed:
            got = file.stat().st_size
            raise ArtifactError(f"{file} is truncated: {got} bytes, expected at least {needed}")
    return {info.location for info in found}


def tell_output_sizes(proto: ModelProto) -> None:
    """Write into a graph's outputs the sizes that follow from its inputs', also by way of computed shapes."""
    known = {value.name: value for value in _with_inferred_types(proto, computed=True).graph.output}
    for value in proto.graph.output:
        found = known[value.name].type.tensor_type.shape.dim
        for dim, size in zip(value.type.tensor_type.shape.dim, found, strict=False):
            if not dim.HasField("dim_value") and size.HasField("dim_value"):
                dim.dim_value = size.dim_value


def _with_inferred_types(proto: ModelProto, *, computed: bool = False) -> ModelProto:
    try:
        return shape_inference.infer_shapes(_without_weights(proto), data_prop=computed)
    except (shape_inference.InferenceError, RuntimeError):
        return proto


def _without_weights(proto: ModelProto) -> ModelProto:
    """A copy in which large weights have a type and no content: no type depends on what they are."""
    light = ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(light, field, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy_field(light.graph, field, value)
    for tensor in proto.graph.initializer:
        if prod(tensor.dims) <= _SMALL_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return light


def _copy_field(target: Message, field: FieldDescriptor, value: Any) -> None:
    if hasattr(value, "extend"):  # a repeated one; older protobuf has no word for it that newer has
        getattr(target, field.name).extend(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


def _signature(path: Path, proto: ModelProto) -> Signature:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    return Signature(
        tuple(_spec(path, value, is_input=True) for value in inputs),
        tuple(_spec(path, value, is_input=False) for value in proto.graph.output),
    )


def _spec(path: Path, value: ValueInfoProto, *, is_input: bool) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "untyped"
        raise ArtifactError(f"{path}: {value.name!r} is {kind}, expected a tensor; Redline runs tensors only")
    tensor_type = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
    except KeyError as error:
        raise ArtifactError(f"{path}: {value.name!r} has element type {tensor_type.elem_type}") from error
    if not tensor_type.HasField("shape"):
        if is_input:
            raise ArtifactError(f"{path}: input {value.name!r} has no shape; export it with one")
        return TensorSpec(value.name, (f"{value.name}_rank",), dtype.name)
    dims = tuple(_dim(value.name, axis, dim) for axis, dim in enumerate(tensor_type.shape.dim))
    return TensorSpec(value.name, dims, dtype.name)


def _dim(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    return dim.dim_param or f"{name}_{axis}"


def _read_provenance(proto: ModelProto) -> tuple[Step, ...]:
    text = next((prop.value for prop in proto.metadata_props if prop.key == PROVENANCE_KEY), "[]")
    try:
        return from_text(tuple[Step, ...], text, where=PROVENANCE_KEY)
    except ArtifactError:
        return ()


def _read_usage(proto: ModelProto) -> Usage:
    told = {prop.key: prop.value for prop in proto.metadata_props}
    try:
        if USAGE_KEY not in told:
            return usage_of_metadata(told, _input_shape(proto))
        return from_text(Usage, told[USAGE_KEY], where=USAGE_KEY)
    except (ArtifactError, ValueError, KeyError, TypeError, AttributeError):
        return Usage()


def _input_shape(proto: ModelProto) -> tuple[int, ...]:
    """The sizes of the only input, 0 where one is dynamic; none of them where there are more inputs."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    return tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim) if len(inputs) == 1 else ()


def _save_with_external_data(proto: ModelProto, out: Path) -> None:  # pragma: no cover
    out.parent.mkdir(parents=True, exist_ok=True)
    data = out.with_name(out.name + ".data")
    with tempfile.TemporaryDirectory(dir=out.parent, suffix=".partial") as folder:
        scratch = Path(folder) / out.name
        onnx.save_model(proto, str(scratch), save_as_external_data=True, location=data.name)
        (Path(folder) / data.name).replace(data)
        scratch.replace(out)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
