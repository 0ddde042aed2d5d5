"""The table of graph passes: which there are, what each does in one line, which tool runs it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redline.core.errors import InputError, MissingDependencyError

Tool = Literal["onnxoptimizer", "onnxslim", "onnxruntime", "redline"]
_EXTRA = "optimize"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassInfo:
    """One graph pass; ``folds`` says that what it leaves to run time is computed right after it."""

    name: str
    tool: Tool
    summary: str
    folds: bool = False


_ONNXOPTIMIZER: dict[str, str] = {
    "adjust_add": "Put the constant operand of an Add second, where the fusions look for it.",
    "adjust_slice_and_matmul": "Move a Slice behind the MatMul it feeds, so that the product is found by fusions.",
    "eliminate_common_subexpression": "Compute equal expressions once.",
    "eliminate_consecutive_idempotent_ops": "Collapse Relu(Relu(x)), Ceil(Ceil(x)) and the like into one.",
    "eliminate_deadend": "Remove nodes whose results nobody uses.",
    "eliminate_duplicate_initializer": "Keep one of several equal weights.",
    "eliminate_identity": "Remove Identity nodes (the TorchScript exporter shares equal weights through them).",
    "eliminate_if_with_const_cond": "Replace an If with a constant condition by the branch that is taken.",
    "eliminate_nop_cast": "Remove casts to the type that a tensor has already.",
    "eliminate_nop_concat": "Remove Concat nodes with a single input.",
    "eliminate_nop_dropout": "Remove Dropout nodes that drop nothing.",
    "eliminate_nop_expand": "Remove Expand nodes that do not change the shape.",
    "eliminate_nop_flatten": "Remove Flatten nodes that do not change the shape.",
    "eliminate_nop_monotone_argmax": "Drop a Softmax, Log or other monotone function in front of an ArgMax.",
    "eliminate_nop_pad": "Remove Pad nodes that pad by zero.",
    "eliminate_nop_reshape": "Remove Reshape nodes that do not change the shape.",
    "eliminate_nop_split": "Remove Split nodes with a single output.",
    "eliminate_nop_transpose": "Remove Transpose nodes that keep the order of axes.",
    "eliminate_nop_with_unit": "Remove x + 0, x * 1 and the like.",
    "eliminate_shape_gather": "Replace Gather(Shape(x)) by a constant where that size is known.",
    "eliminate_shape_op": "Replace Shape(x) by a constant where the whole shape is known.",
    "eliminate_slice_after_shape": "Replace Slice(Shape(x)) by a constant where those sizes are known.",
    "eliminate_unused_initializer": "Remove weights that nobody uses.",
    "extract_constant_to_initializer": "Turn Constant nodes into initializers.",
    "fuse_add_bias_into_conv": "Make an Add of a per-channel constant behind a Conv the bias of that Conv.",
    "fuse_bn_into_conv": "Fold a BatchNormalization behind a Conv into its weight and bias.",
    "fuse_concat_into_reshape": "Turn a Concat that builds the shape for a Reshape into a constant shape.",
    "fuse_consecutive_concats": "Merge a Concat of Concats along one axis into one.",
    "fuse_consecutive_log_softmax": "Turn Log(Softmax(x)) into LogSoftmax(x).",
    "fuse_consecutive_reduce_unsqueeze": "Turn a reduction and the Unsqueeze behind it into one with keepdims.",
    "fuse_consecutive_slices": "Merge consecutive Slice nodes into one.",
    "fuse_consecutive_squeezes": "Merge consecutive Squeeze nodes into one.",
    "fuse_consecutive_transposes": "Merge consecutive Transpose nodes into one.",
    "fuse_consecutive_unsqueezes": "Merge consecutive Unsqueeze nodes into one.",
    "fuse_matmul_add_bias_into_gemm": "Turn MatMul and Add into one Gemm.",
    "fuse_pad_into_conv": "Make a Pad in front of a Conv the padding of that Conv.",
    "fuse_pad_into_pool": "Make a Pad in front of a pooling node its padding.",
    "fuse_qkv": "Merge the query, key and value products of an attention into one MatMul.",
    "fuse_transpose_into_gemm": "Make a Transpose in front of a Gemm its transA or transB.",
    "lift_lexical_references": "List what a subgraph takes from outside on its node (for Caffe2; not standard ONNX).",
    "nop": "Change nothing: a round trip through onnxoptimizer.",
    "rename_input_output": "Rename inputs and outputs to input_0, output_0 ... (refused here: names are the contract).",
    "replace_einsum_with_matmul": "Turn an Einsum that is a matrix product into MatMul.",
    "rewrite_input_dtype": "Turn int64 inputs into int32 (refused here: dtypes are the contract).",
    "rewrite_where": "Drop the Not in front of a Where by swapping its branches.",
    "set_unique_name_for_nodes": "Give every node a name of its own.",
    "split_init": "Keep only the part that computes weights (for Caffe2; refused here: the outputs change).",
    "split_predict": "Keep only the part behind the computed weights (for Caffe2; refused here: the inputs change).",
}
_FOLDS = frozenset({"fuse_bn_into_conv", "fuse_add_bias_into_conv"})

_OTHERS: tuple[PassInfo, ...] = (
    PassInfo(
        name="onnxslim",
        tool="onnxslim",
        summary="OnnxSlim: fold constants, fuse, remove dead and doubled nodes, all in one.",
    ),
    PassInfo(
        name="onnxruntime-basic",
        tool="onnxruntime",
        summary="ONNX Runtime's basic optimization saved to a file: standard ONNX that any runtime reads.",
    ),
    PassInfo(
        name="onnxruntime-extended",
        tool="onnxruntime",
        summary="ONNX Runtime's extended optimization saved to a file: its own operators, for its CPU provider only.",
    ),
    PassInfo(
        name="fold_constants",
        tool="redline",
        summary="Compute once what depends on constants only; Constant nodes become initializers; Q/DQ is left alone.",
    ),
)

PASSES: dict[str, PassInfo] = {
    info.name: info
    for info in (
        *_OTHERS,
        *(
            PassInfo(name=name, tool="onnxoptimizer", summary=summary, folds=name in _FOLDS)
            for name, summary in _ONNXOPTIMIZER.items()
        ),
    )
}
"""What is known; :func:`available_passes` says what runs here."""

DEFAULT_PASSES: tuple[str, ...] = ("fold_constants", "onnxslim")
"""Folding goes first: it uncovers the BatchNormalizations that some exports hide behind Expand and CastLike."""


def available_passes() -> dict[str, PassInfo]:
    """The passes that the installed packages offer, those unknown to :data:`PASSES` with a generic line."""
    installed = _installed_onnxoptimizer_passes()
    found = {
        name: info
        for name, info in PASSES.items()
        if (name in installed if info.tool == "onnxoptimizer" else _is_installed(info.tool))
    }
    for name in installed - found.keys():
        found[name] = PassInfo(name=name, tool="onnxoptimizer", summary="A pass of the installed onnxoptimizer.")
    return found


def choose_passes(names: Sequence[str] | None) -> tuple[PassInfo, ...]:
    """The passes of these names in this order; None chooses those of :data:`DEFAULT_PASSES` that are installed.

    Raises:
        InputError: an unknown name, or an empty list.
        MissingDependencyError: the pass's package is not installed.
    """
    available = available_passes()
    if names is None:
        return tuple(available[name] for name in DEFAULT_PASSES if name in available)
    if not names:
        raise InputError("got no passes, expected at least one name; see --list-passes")
    for name in names:
        if name in available:
            continue
        if name in PASSES and not _is_installed(PASSES[name].tool):
            raise MissingDependencyError(PASSES[name].tool, extra=_EXTRA)
        close = difflib.get_close_matches(name, available, n=1)
        hint = f"did you mean {close[0]}?" if close else "see --list-passes"
        raise InputError(f"got pass {name!r}, expected one of {len(available)} known passes; {hint}")
    return tuple(available[name] for name in names)


def _is_installed(tool: Tool) -> bool:
    return tool == "redline" or importlib.util.find_spec(tool) is not None


def _installed_onnxoptimizer_passes() -> frozenset[str]:
    try:
        module = importlib.import_module("onnxoptimizer")
    except ImportError:
        return frozenset()
    return frozenset(module.get_available_passes())
