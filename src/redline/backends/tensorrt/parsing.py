"""Read an ONNX file into a network, or say which node TensorRT refuses, why, and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx

from redline.backends.tensorrt.library import Library
from redline.core.artifact import OnnxModel
from redline.core.errors import BuildError, UnsupportedError
from redline.formats.onnx_file import all_nodes, unknown_operators

_AGAIN = "quantize the original: redline quantize MODEL -o {file} --for tensorrt --mode static --data IMAGES"
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul"})
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Where in TensorRT's sources it was noticed, and what follows from it where there is no driver.
_NOISE = re.compile(r"^\S+\.cpp:\d+: ERROR: .*?: *\[\d+\] | In \w+ at /[^)\s]*| ?\[\S+\.cpp::\w+::\d+\] Error Code.*")


def parse(library: Library, model: OnnxModel, network: Any) -> None:
    """Read ``model`` into ``network``.

    Raises:
        UnsupportedError: its opset or an operator is none of this TensorRT's.
        BuildError: TensorRT refused a node.
    """
    newest = library.highest_opset
    if newest is not None and model.opset > newest:
        raise UnsupportedError(
            f"{model.path.name} has opset {model.opset}, {library.title} reads up to {newest}; export it again: "
            f"redline export MODEL -o {model.path.name} --opset {newest}"
        )
    parser = library.module.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(model.path.resolve())):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _refusal(library, model.path, errors)


def _refusal(library: Library, path: Path, errors: list[Any]) -> BuildError:
    proto = onnx.load_model(str(path), load_external_data=False)
    unknown = unknown_operators(proto)
    if unknown:
        names = ", ".join(node.name for node in all_nodes(proto.graph.node) if _full_name(node) in unknown)
        return UnsupportedError(
            f"{path.name}: {library.title} has no operator {', '.join(unknown)} (node {names}); replace it before the "
            "export, or write a plugin"
        )
    name, operator = _node(proto, errors)
    where = f" (node {name}, {operator})" if operator else ""
    again = _AGAIN.format(file=path.name)
    if operator in _DYNAMIC:
        return UnsupportedError(
            f"{path.name}: {library.title} has no {operator}{where}: it takes no dynamic quantization; {again}"
        )
    told = f"{path.name}: {library.title} cannot read it: {_reason(library, errors)}{where}"
    if operator in _QDQ:
        told += f"; it wants symmetric INT8 and no INT32 bias: {again}"
    return BuildError(told)


def _node(proto: onnx.ModelProto, errors: list[Any]) -> tuple[str, str]:
    """Name and operator of the node that was refused; the parser of TensorRT 8.6 tells its number alone."""
    if not errors:
        return "", ""
    last = errors[-1]
    operator = str(getattr(last, "node_operator", str)())
    if operator:
        return str(last.node_name()), operator
    number = int(last.node())
    if 0 <= number < len(proto.graph.node):
        return proto.graph.node[number].name, proto.graph.node[number].op_type
    return "", ""


def _full_name(node: onnx.NodeProto) -> str:
    return f"{node.domain or 'ai.onnx'}:{node.op_type}"


def _reason(library: Library, errors: list[Any]) -> str:
    told = [" ".join(str(error.desc()).split()) for error in errors[-1:]]
    told += [" ".join(message.split()) for message in reversed(library.told.errors)]
    cleaned = (_NOISE.sub("", message).strip() for message in told)
    return next((message for message in cleaned if message not in ("", "true", "false")), "no reason given")[:400]
