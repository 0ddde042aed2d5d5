import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redline.cli import main
from redline.commands.verify import verify
from redline.core.errors import ArtifactError, DataError, InputError

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(6, 4)).astype(np.float32)


def linear(
    path: Path,
    weight: np.ndarray = WEIGHT,
    *,
    names: tuple[str, str] = ("x", "y"),
    batch: int | str = "n",
    op: str = "Identity",
    kind: int = TensorProto.FLOAT,
) -> Path:
    """An ONNX file: ``op(x @ weight)``."""
    given, answer = names
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [given, "w"], ["z"]), helper.make_node(op, ["z"], [answer])],
        "g",
        [helper.make_tensor_value_info(given, kind, [batch, weight.shape[0]])],
        [helper.make_tensor_value_info(answer, kind, [batch, weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(dtype), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def samples(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **(arrays or {"x": RNG.normal(size=(40, 6)).astype(np.float32)}))  # type: ignore[arg-type]
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return linear(tmp_path / "reference.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return samples(tmp_path / "data.npz")


def test_the_same_model_passes_at_both_batch_sizes(reference: Path, data: Path, tmp_path: Path):
    fixed = linear(tmp_path / "fixed.onnx", batch=4, names=("image", "scores"))
    result = verify(reference, [reference, fixed], data=data)
    assert result.passed
    assert [batch for batch, _ in result.verdicts[0].agreements] == [1, 8]
    assert [batch for batch, _ in result.verdicts[1].agreements] == [4]
    assert "by position" in result.verdicts[1].notes[0]
    assert result.warnings == ()
    assert result.dependence.depends


def test_another_model_fails_with_numbers_and_exit_code_1(
    reference: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = linear(tmp_path / "other.onnx", -WEIGHT)
    assert main(["verify", str(reference), str(reference), str(other), "--data", str(data), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [one["passed"] for one in document["candidates"]] == [True, False]
    assert "top-1 agreement" in document["candidates"][1]["reason"]
    assert document["data"]["samples"] == 40
    assert main(["verify", str(reference), str(other), "--data", str(data)]) == 1
    assert "failed" in capsys.readouterr().out


def test_loose_gates_let_it_pass(reference: Path, data: Path, tmp_path: Path):
    near = linear(tmp_path / "near.onnx", WEIGHT + np.float32(0.01))
    assert not verify(reference, [near], data=data).passed
    assert verify(reference, [near], data=data, atol=1.0, min_agreement=0.5).passed


def test_without_data_random_numbers_are_said_to_be_random(reference: Path):
    result = verify(reference, [reference])
    assert result.passed
    assert "random numbers" in result.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": RNG.normal(size=(5, 4))}, "got shape"),
        ({"weight": RNG.normal(size=(6, 3))}, "got shape (3,), expected (4,)"),
        ({"kind": TensorProto.DOUBLE}, "got dtype float32, expected float64"),
        ({"op": "Log"}, "NaN in"),
    ],
)
def test_misfits_and_nan_are_verdicts(
    reference: Path, data: Path, tmp_path: Path, change: dict[str, object], words: str
):
    candidate = linear(tmp_path / "candidate.onnx", **change)  # type: ignore[arg-type]
    verdict = verify(reference, [candidate], data=data).verdicts[0]
    assert not verdict.passed
    assert words in str(verdict.reason)


def test_labels_gate_accuracy(reference: Path, tmp_path: Path):
    x = RNG.normal(size=(50, 6)).astype(np.float32)
    data = samples(tmp_path / "labelled.npz", x=x, labels=(x @ WEIGHT).argmax(axis=1))
    other = linear(tmp_path / "other.onnx", WEIGHT[:, ::-1].copy())
    result = verify(reference, [other], data=data, min_agreement=0, atol=100)
    assert "answers became wrong" in str(result.verdicts[0].reason)
    assert result.verdicts[0].agreements[0][1].reference_accuracy == 1


def test_constant_model_is_noticed(tmp_path: Path, data: Path):
    weight = np.zeros((6, 4), np.float32)
    constant = linear(tmp_path / "constant.onnx", weight, op="Sigmoid")
    result = verify(constant, [constant], data=data)
    assert not result.dependence.depends
    assert "proves nothing" in result.warnings[-1]


@pytest.mark.parametrize("inputs", [0, 5])
def test_models_of_no_and_of_five_inputs(tmp_path: Path, inputs: int):
    names = [f"i{k}" for k in range(inputs)]
    nodes = [helper.make_node("Sum", names, ["y"])] if inputs else []
    shape = ["n", 3] if inputs else [3]
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.arange(3, dtype=np.float32)))
    graph = helper.make_graph(
        nodes or [constant],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    assert verify(path, [path]).passed


def test_what_is_not_there_is_an_error(reference: Path, data: Path, tmp_path: Path):
    with pytest.raises(ArtifactError):
        verify(reference, [tmp_path / "missing.onnx"], data=data)
    with pytest.raises(DataError):
        verify(reference, [reference], data=tmp_path / "missing.npz")
    with pytest.raises(DataError, match="expected"):
        verify(reference, [reference], data=samples(tmp_path / "wrong.npz", x=np.zeros((4, 5), np.float32)))
    with pytest.raises(InputError, match="no candidate"):
        verify(reference, [])
    with pytest.raises(InputError, match="without data"):
        verify(reference, [reference], labels="labels.csv")
    assert main(["verify", str(reference), str(reference), "--min-agreement", "99"]) == 2


@pytest.mark.slow
def test_a_torch_model_against_its_export(tmp_path: Path):
    pytest.importorskip("torch")
    from redline.commands.export import export

    out = tmp_path / "digits.onnx"
    export("digits", out, exporter="torchscript")
    result = verify("digits", [out, "digits"], samples=60)
    assert result.passed, [verdict.reason for verdict in result.verdicts]
    assert result.dependence.depends
    agreement = result.verdicts[0].agreements[0][1]
    assert agreement.accuracy is not None
    assert agreement.accuracy > 0.9
