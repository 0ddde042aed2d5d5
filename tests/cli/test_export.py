"""``redline export`` and ``redline models`` as a script meets them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from redline.cli import main

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning"),
]

USER_FILE = """
import torch
from torch import nn

class Baked(nn.Module):
    def forward(self, x):
        return x * float(x.sum())

class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

class UnusedInput(nn.Module):
    def forward(self, x, unused):
        return {"scores": x * 2}

def baked():
    return Baked(), torch.rand(1, 3)

def bessel():
    return Bessel(), torch.rand(1, 3)

def dense():
    return nn.Linear(6, 2)

def unused():
    return UnusedInput(), (torch.rand(1, 3), torch.rand(1, 3))
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "user.py"
    path.write_text(USER_FILE)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_is_the_only_thing_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "digits.onnx"
    code, text, error = run(capsys, "export", "digits", "-o", out, "--torchscript", tmp_path / "digits.ts", "--json")
    value = json.loads(text)
    assert (code, error) == (0, "")
    assert value["signature"]["inputs"][0]["shape"] == ["batch", 1, 8, 8]
    assert value["batch_sizes"] == [1, 3]
    assert value["max_abs_difference"] < 1e-4
    assert [file.name for file in out.parent.iterdir()] == ["digits.onnx"]
    assert (tmp_path / "digits.ts").is_file()


def test_people_read_what_was_compared(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = user_file.parent / "o.onnx"
    code, text, _ = run(capsys, "export", f"{user_file}:dense", "-o", out, "--batch", "4", "--opset", "17")
    assert code == 0
    assert "opset 17" in text
    assert "input [4, 6] float32" in text
    assert "compared with PyTorch at batch 4: largest difference" in text
    assert "note: exported by the torchscript exporter (opset below 18)" in text


def test_size_and_dynamic_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.onnx"
    assert run(capsys, "export", "convnet", "-o", out, "--size", "40x48")[0] == 0
    assert [dim.dim_value for dim in onnx.load(out).graph.input[0].type.tensor_type.shape.dim] == [0, 3, 40, 48]
    assert run(capsys, "export", "convnet", "-o", out, "--dynamic-size", "--exporter", "torchscript")[0] == 0
    dims = onnx.load(out).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims] == ["batch", "", "height", "width"]


def test_an_input_that_the_model_ignores(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = user_file.parent / "o.onnx"
    code, text, error = run(capsys, "export", f"{user_file}:unused", "-o", out, "--json")
    assert code == 0, error
    assert [spec["name"] for spec in json.loads(text)["signature"]["outputs"]] == ["scores"]


def test_a_file_that_answers_differently_is_not_left_behind(
    user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = user_file.parent / "out"
    folder.mkdir()
    (folder / "o.onnx").write_text("what was there before")
    words = ("export", f"{user_file}:baked", "-o", folder / "o.onnx", "--exporter", "torchscript")
    code, _, error = run(capsys, *words)
    assert code == 2
    assert "answers differently from PyTorch" in error
    assert error.count("\n") == 1
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("o.onnx", "what was there before")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("resnet81",), "did you mean 'resnet18'"),
        (("model.onnx",), "is an ONNX file"),
        (("digits", "--batch", "many"), "expected 'dynamic' or a number"),
        (("digits", "--size", "8y8"), "expected H or HxW"),
        (("digits", "--opset", "99"), "opset is 99"),
        (("digits", "--exporter", "magic"), "expected dynamo or torchscript"),
        (("digits", "--exporter", "torchscript", "--opset", "21"), "at most 20"),
        (("digits", "--weights", "gone.pt"), "gone.pt"),
        (("USER:bessel",), "operator prims.bessel_j0"),
        (("USER:baked",), "decides by the values of a tensor"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    user_file: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    model, *options = words
    out = user_file.parent / "o.onnx"
    code, text, error = run(capsys, "export", model.replace("USER", str(user_file)), "-o", out, *options)
    assert (code, text) == (2, "")
    assert error.startswith("redline: error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not out.exists()


def test_saved_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU()).eval(), torch.rand(2, 6)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "two.pt2")
    dynamic = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(dynamic, tmp_path / "any.pt2")
    torch.jit.trace(module, x).save(tmp_path / "any.ts")  # type: ignore[no-untyped-call]
    out = tmp_path / "o.onnx"
    code, _, error = run(capsys, "export", tmp_path / "two.pt2", "-o", out)
    assert (code, "type --batch 2" in error) == (2, True)
    assert run(capsys, "export", tmp_path / "two.pt2", "-o", out, "--batch", "2")[0] == 0
    for name in ("any.pt2", "any.ts"):
        code, text, error = run(capsys, "export", tmp_path / name, "-o", out, "--json")
        assert code == 0, error
        assert json.loads(text)["signature"]["inputs"][0]["shape"] == ["batch", 6]


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "models", "--json")
    assert code == 0
    assert {"resnet18", "resnet34", "resnet50", "mlp", "convnet", "digits"} <= {row["name"] for row in json.loads(text)}
    assert "11,182,155" in run(capsys, "models")[1]
