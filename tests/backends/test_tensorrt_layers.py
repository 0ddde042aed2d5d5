"""Layers of an engine, from the builder's report and from the inspector's JSON.

The reports in ``data/`` are lines of what TensorRT-RTX 1.7 printed while it built ResNet-18 for SM 8.9.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redline.backends.tensorrt.layers import EngineLayer, count_layers, from_inspector, from_report
from redline.core.artifact import Precision

DATA = Path(__file__).parent / "data"
NODES = ("node_Conv_292", "node_Conv_296", "node_linear")


def report(precision: str) -> list[EngineLayer]:
    return from_report((DATA / f"rtx_report_{precision}.txt").read_text())


def layer(
    kind: str, precision: Precision | None = "fp32", *, tactic: str = "", nodes: tuple[str, ...] = ()
) -> EngineLayer:
    return EngineLayer(name="layer", kind=kind, precision=precision, tactic=tactic, nodes=nodes)


def counts(layers: list[EngineLayer], *nodes: str, tf32_allowed: bool = False) -> dict[str, int]:
    return dict(count_layers(layers, nodes, tf32_allowed=tf32_allowed).counts)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_builders_report_says_what_each_node_computes_in(precision: str) -> None:
    assert counts(report(precision), *NODES) == {precision: 3}


def test_a_report_is_read_line_by_line() -> None:
    found = report("int8")
    assert len(found) == 9
    first, prepares, convolution = found[:3]
    assert (first.kind, first.precision, first.nodes) == ("shape_call", None, ())
    assert (prepares.kind, prepares.precision) == ("kgen", "fp32")
    assert "node_Conv_292" in prepares.nodes
    assert (convolution.name, convolution.kind) == ("node_Conv_292_myl0_2", "correlation")
    assert (convolution.precision, convolution.tactic) == ("int8", "__myelin_CASK_STUB")
    assert convolution.nodes[0] == "node_Conv_292"
    assert [one.name for one in found if one.kind == "wait"]


def test_the_precision_is_of_the_input_and_not_of_constants_or_outputs() -> None:
    convolution = next(one for one in report("int8") if one.kind == "correlation")
    line = next(
        line
        for line in (DATA / "rtx_report_int8.txt").read_text().splitlines()
        if line.startswith(f"Name: {convolution.name},")
    )
    assert "Outputs: [ { Name:" in line
    assert "Datatype: Float" in line
    assert convolution.precision == "int8"


def test_other_text_is_no_layer() -> None:
    assert from_report("") == []
    assert from_report("Layers:\nName of something\n\nI/O Tensors:\n Name: x, IOMode: Input, DataType: Float") == []


def test_a_float_layer_counts_as_tf32_where_it_was_allowed_and_no_kernel_is_named() -> None:
    assert counts(report("fp32"), *NODES, tf32_allowed=True) == {"tf32": 3}
    assert counts(report("fp32"), *NODES, tf32_allowed=False) == {"fp32": 3}
    assert counts(report("fp16"), *NODES, tf32_allowed=True) == {"fp16": 3}


@pytest.mark.parametrize(
    ("tactic", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x128x16_stage4", "tf32"),
        ("ampere_scudnn_128x64_relu_medium_nn_v1", "fp32"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize32x32x8_stage3_warpsize1x2x1_ffma_aligna4_alignc4", "fp32"),
        ("ampere_s1688gemm_128x128_ldg4_stages_32x3_tn_v0", "tf32"),
        ("__myelin_CASK_STUB", "tf32"),
        ("", "tf32"),
    ],
)
def test_tf32_is_read_from_the_kernels_name(tactic: str, precision: str) -> None:
    found = [layer("CaskConvolution", tactic=tactic, nodes=("conv",))]
    assert counts(found, "conv", tf32_allowed=True) == {precision: 1}
    assert counts(found, "conv", tf32_allowed=False) == {"fp32": 1}


def test_a_node_counts_once_by_the_layer_that_computes() -> None:
    found = [
        layer("kgen", "fp32", nodes=("conv", "quantize")),
        layer("correlation", "int8", nodes=("conv",)),
        layer("kgen", "fp16", nodes=("conv", "relu")),
    ]
    assert counts(found, "conv") == {"int8": 1}


def test_a_layer_of_several_nodes_counts_for_each() -> None:
    assert counts([layer("gemm", "fp16", nodes=("q", "k", "v"))], "q", "k", "v") == {"fp16": 3}


def test_nodes_that_the_builder_removed_count_for_nothing() -> None:
    assert counts([layer("gemm", "fp16", nodes=("kept",))], "kept", "folded away") == {"fp16": 1}


def test_without_names_of_nodes_the_engines_own_compute_layers_count() -> None:
    found = [layer("CaskConvolution Convolution", "fp16"), layer("Reformat Reformat"), layer("MatrixMultiply", "fp32")]
    assert counts(found, "conv", "linear") == {"fp16": 1, "fp32": 1}


def test_a_layer_of_unknown_precision_counts_for_nothing() -> None:
    assert counts([layer("correlation", None, nodes=("conv",))], "conv") == {}
    assert counts([], "conv") == {}


def inspected(**fields: Any) -> EngineLayer:
    one = {"Name": "conv", "LayerType": "CaskConvolution", "ParameterType": "Convolution", "Inputs": [], **fields}
    (found,) = from_inspector(json.dumps({"Layers": [one], "Bindings": ["x"]}))
    return found


@pytest.mark.parametrize(
    ("datatype", "precision"),
    [
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("FP8", "fp8"),
        ("Row major linear INT32 format", None),
        ("Bool", None),
    ],
)
def test_the_inspectors_words_for_types(datatype: str, precision: str | None) -> None:
    assert inspected(Inputs=[{"Name": "x", "Format/Datatype": datatype}]).precision == precision
    assert inspected(Inputs=[{"Name": "x", "Datatype": datatype, "Format": "N/A"}]).precision == precision


def test_where_the_inspector_leaves_formats_open_the_weights_tell() -> None:
    unknown = [{"Name": "x", "Format/Datatype": "N/A due to dynamic shapes"}]
    assert inspected(Inputs=unknown, Weights={"Type": "Half", "Count": 1728}).precision == "fp16"
    assert inspected(Inputs=unknown).precision is None


def test_the_inspector_names_kernels_and_nodes() -> None:
    found = inspected(TacticName="sm80_xmma", Metadata="[ONNX Layer: conv1]\u001f[ONNX Layer: relu1]")
    assert (found.tactic, found.nodes) == ("sm80_xmma", ("conv1", "relu1"))
    assert found.kind == "CaskConvolution Convolution"


def test_an_engine_without_details_has_no_layers_that_tell_anything() -> None:
    assert from_inspector('{"Layers": ["conv + relu", "fc"], "Bindings": ["x", "y"]}') == []


def test_control_characters_in_the_inspectors_text_are_read() -> None:
    text = '{"Layers": [{"Name": "conv", "LayerType": "gemm", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}]}'
    assert from_inspector(text)[0].nodes == ("a", "b")
