from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from redline.core.artifact import OnnxModel
from redline.core.errors import ExportError, InputError
from redline.transforms.export import ExportOptions, export_module, export_torchscript


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.drop(torch.relu(self.bn(self.conv(image))).mean((2, 3))))


class Answers(nn.Module):
    """Answers with whatever ``function`` makes of the inputs."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, *rest: Tensor) -> Any:
        return self.function(x, *rest)


@dataclass
class Boxes:
    xyxy: Tensor
    score: Tensor
    extra: Tensor | None = None


@torch.library.custom_op("redline_test::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def export(module: nn.Module, *inputs: Tensor, to: Path, **options: Any) -> OnnxModel:
    names = ("x",) if len(inputs) == 1 else tuple(f"input{i}" for i in range(len(inputs)))
    return export_module(module, inputs, names, to / "model.onnx", ExportOptions(**options))


def run(model: OnnxModel, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in model.signature.outputs]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize("options", [{}, {"exporter": "torchscript"}, {"opset": 13}])
def test_a_module_answers_the_same_at_any_batch(tmp_path: Path, options: dict[str, Any]) -> None:
    module = Tiny().eval()
    model = export(module, torch.rand(1, 3, 8, 8), to=tmp_path, **options)
    assert model.signature.inputs[0].shape == ("batch", 3, 8, 8)
    assert model.signature.outputs[0].shape == ("batch", 5)
    assert model.signature.outputs[0].name == "output"
    assert model.opset == options.get("opset", 17 if options else 20)
    for batch in (1, 3):
        image = torch.rand(batch, 3, 8, 8)
        np.testing.assert_allclose(run(model, x=image.numpy())["output"], module(image).detach(), atol=1e-5)


def test_a_module_in_training_mode_is_exported_in_eval_mode_and_stays_in_training(tmp_path: Path) -> None:
    module = Tiny()
    module.bn.running_mean += 0.3  # type: ignore[operator]
    model = export(module, torch.rand(2, 3, 8, 8), to=tmp_path)
    assert module.training
    assert module.drop.training
    image = torch.rand(2, 3, 8, 8)
    np.testing.assert_allclose(run(model, x=image.numpy())["output"], module.eval()(image).detach(), atol=1e-5)


def test_the_file_tells_nothing_of_this_machine(tmp_path: Path) -> None:
    model = export(Tiny(), torch.rand(1, 3, 8, 8), to=tmp_path)
    assert str(Path(__file__).parent).encode() not in model.path.read_bytes()
    assert b"site-packages" not in model.path.read_bytes()
    assert [step.step for step in model.provenance] == ["export"]
    assert list(tmp_path.iterdir()) == [model.path]


def test_a_fixed_batch(tmp_path: Path) -> None:
    model = export(Tiny(), torch.rand(1, 3, 8, 8), to=tmp_path, batch=4)
    assert model.signature.inputs[0].shape == (4, 3, 8, 8)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_dynamic_size(tmp_path: Path, exporter: str) -> None:
    model = export(Tiny(), torch.rand(1, 3, 8, 8), to=tmp_path, dynamic_size=True, exporter=exporter)
    assert model.signature.inputs[0].shape == ("batch", 3, "height", "width")
    assert run(model, x=np.ones((1, 3, 12, 20), np.float32))["output"].shape == (1, 5)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: (x + 1, x * 2), ["output0", "output1"]),
        (lambda x: [x + 1], ["output"]),
        (lambda x: {"b": x + 1, "a": (x * 2, {"c": x - 1})}, ["b", "a_0", "a_1_c"]),
        (lambda x: Boxes(x + 1, x * 2), ["xyxy", "score"]),
        (lambda x: {"x": x + 1}, ["x_out"]),
    ],
)
def test_any_nesting_of_outputs_gets_names(tmp_path: Path, function: Any, names: list[str]) -> None:
    model = export(Answers(function), torch.rand(2, 3), to=tmp_path)
    assert [spec.name for spec in model.signature.outputs] == names
    assert {spec.shape for spec in model.signature.outputs} == {("batch", 3)}
    one = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(run(model, x=one)[names[0]], one + 1)


def test_five_inputs_of_three_types(tmp_path: Path) -> None:
    class Five(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 3)

        def forward(self, a: Tensor, b: Tensor, ids: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
            return (a + b + self.embedding(ids)) * mask * scale

    inputs = (torch.rand(1, 3), torch.rand(1, 3), torch.tensor([5]), torch.tensor([[True]]), torch.tensor(2.0))
    model = export(Five(), *inputs, to=tmp_path)
    shapes = [spec.shape for spec in model.signature.inputs]
    assert shapes == [("batch", 3), ("batch", 3), ("batch",), ("batch", 1), ()]
    assert [spec.dtype for spec in model.signature.inputs] == ["float32", "float32", "int64", "bool", "float32"]


def test_unfolded_batch_normalization_is_kept_for_the_passes(tmp_path: Path) -> None:
    model = export(Tiny().eval(), torch.rand(1, 3, 8, 8), to=tmp_path, fold=False)
    assert "BatchNormalization" in [node.op_type for node in onnx.load(model.path).graph.node]


BESSEL = Answers(torch.special.bessel_j0)
CUSTOM = Answers(lambda x: torch.ops.redline_test.twice(x))


@pytest.mark.parametrize(
    ("module", "exporter", "expected"),
    [
        (BESSEL, "dynamo", "operator prims.bessel_j0 has no ONNX form"),
        (BESSEL, "torchscript", "operator aten.special_bessel_j0 has no ONNX form"),
        (CUSTOM, "dynamo", "operator redline_test.twice has no ONNX form"),
        (CUSTOM, "torchscript", "operator redline_test.twice has no ONNX form"),
        (Answers(lambda x: x * 2 if x.sum() > 0 else x), "dynamo", r"values of a tensor \(test_export.py, line \d+:"),
        (Answers(lambda x: torch.stack([x[i] for i in range(x.shape[0])])), "dynamo", "one size only"),
        (Answers(lambda x: x.view(1, 3) * 2), "dynamo", "--batch 1"),
    ],
)
def test_what_cannot_be_exported_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], module: nn.Module, exporter: str, expected: str
) -> None:
    with pytest.raises(ExportError, match=expected) as caught:
        export(module, torch.rand(1, 3), to=tmp_path, exporter=exporter)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_the_tracer_bakes_in_becomes_a_note(tmp_path: Path) -> None:
    module = Answers(lambda x: x * 2 if x.sum() > 0 else x)
    model = export(module, torch.rand(1, 3), to=tmp_path, exporter="torchscript")
    assert "Python boolean" in str(model.provenance[0].arguments["notes"])


def test_outputs_that_are_not_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a int"):
        export(Answers(lambda x: (x, 3)), torch.rand(1, 3), to=tmp_path)


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"opset": 99}, {"exporter": "onnx"}, {"exporter": "dynamo", "fold": False}]
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected|needs"):
        ExportOptions(**options)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_file(tmp_path: Path) -> None:
    module = Tiny()
    export_torchscript(module, (torch.rand(1, 3, 8, 8),), tmp_path / "tiny.ts")
    image = torch.rand(2, 3, 8, 8)
    assert torch.allclose(torch.jit.load(tmp_path / "tiny.ts")(image), module.eval()(image), atol=1e-5)
