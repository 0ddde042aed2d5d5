from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from redline.core.errors import ArtifactError, InputError, MissingDependencyError
from redline.core.plain import from_text, to_line
from redline.networks.load import ModelRef, load_model, wrap_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning"),
]

USER_FILE = """
import torch
from torch import nn
import neighbour

def conv():
    return nn.Sequential(nn.Conv2d(4, 2, 3, groups=2), nn.Dropout(0.5), nn.Flatten())

def dense():
    return neighbour.dense()

def random_attribute():
    module = nn.Linear(3, 2)
    module.constant = torch.rand(2)
    return module

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.ids = nn.Parameter(torch.ones(1))
    def forward(self, ids, mask):
        return self.embedding(ids) * mask

def two():
    return Two(), {"mask": torch.ones(1, 1), "ids": torch.tensor([3])}

def two_by_place():
    return Two(), (torch.tensor([3]), torch.ones(1, 1))

def half():
    return nn.Linear(3, 2).half()

def without_examples():
    return Two()

def no_parameters():
    return nn.ReLU()

def nothing():
    return None

def text_inputs():
    return nn.ReLU(), ("hello",)

def raises():
    raise KeyError("no such layer")

def leaves():
    raise SystemExit(3)

def not_a_function():
    pass
del not_a_function
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("from torch import nn\ndef dense():\n    return nn.Linear(7, 2)\n")
    path = tmp_path / "models.py"
    path.write_text(USER_FILE)
    return path


def test_a_built_in_model_is_ready_for_inference() -> None:
    model = load_model("digits")
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert model.example_inputs[0].shape == (1, 1, 8, 8)
    assert model.preprocess is not None
    assert model.class_names == tuple("0123456789")


def test_size_changes_inputs_and_preprocessing_together() -> None:
    model = load_model(ModelRef("convnet", size_px=(48, 40)))
    assert model.example_inputs[0].shape == (1, 3, 48, 40)
    assert model.preprocess is not None
    assert (model.preprocess.height_px, model.preprocess.width_px) == (48, 40)
    assert "random" in model.notes[0]


def test_a_reference_survives_json() -> None:
    ref = ModelRef("resnet18", "w.safetensors", (1, 2))
    assert from_text(ModelRef, to_line(ref), where="ref") == ref


def test_factories_of_a_users_file(user_file: Path) -> None:
    path_before = list(sys.path)
    conv = load_model(f"{user_file}:conv")
    assert conv.example_inputs[0].shape == (1, 4, 224, 224)
    assert load_model(ModelRef(f"{user_file}:conv", size_px=(9, 8))).example_inputs[0].shape == (1, 4, 9, 8)
    assert not conv.module.training
    assert load_model(f"{user_file}:dense").example_inputs[0].shape == (1, 7)
    assert sys.path == path_before


def test_a_random_factory_gives_the_same_model_every_time(user_file: Path) -> None:
    one, two = (load_model(f"{user_file}:random_attribute").module for _ in range(2))
    assert torch.equal(one.constant, two.constant)  # type: ignore[arg-type]
    assert torch.equal(one.weight, two.weight)  # type: ignore[arg-type]


def test_several_inputs_by_place_and_by_name(user_file: Path) -> None:
    placed = load_model(f"{user_file}:two_by_place")
    assert placed.input_names == ("ids_in", "mask")  # a parameter is called ids
    named = load_model(f"{user_file}:two")
    assert named.input_names == ("mask", "ids")
    assert torch.equal(named.module(*named.example_inputs), named.module(torch.ones(1, 1), torch.tensor([3])))


def test_other_precisions_become_fp32_and_say_so(user_file: Path) -> None:
    model = load_model(f"{user_file}:half")
    assert model.module.weight.dtype == torch.float32  # type: ignore[union-attr]
    assert "float16" in model.notes[0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("without_examples", "cannot be told from its first layer"),
        ("no_parameters", r"return \(module, example_inputs\)"),
        ("nothing", "returned None, expected an nn.Module"),
        ("text_inputs", "is a str, expected a tensor"),
        ("raises", r"raises failed: KeyError: 'no such layer' \(line \d+\)"),
        ("leaves", "failed: SystemExit: 3"),
        ("missing", "has no function 'missing'; it has conv, dense"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said_in_a_line(user_file: Path, function: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        load_model(f"{user_file}:{function}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("import nowhere_to_be_found", "ModuleNotFoundError"), ("def f(:", "SyntaxError"), ("1/0", r"line 1\)")],
)
def test_a_file_that_does_not_import(tmp_path: Path, code: str, expected: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(InputError, match=expected):
        load_model(f"{tmp_path}/bad.py:f")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet81", "did you mean 'resnet18'"),
        ("zzz", "expected one of resnet18"),
        ("model.onnx", "ONNX"),
        ("gone.pt2", "not a file"),
        ("gone.py:f", "not a file"),
        ("models.py", "lacks the function"),
    ],
)
def test_names_that_mean_nothing(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load_model(name)


def test_optional_sources_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="torchvision"):
        load_model("torchvision:resnet18")


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 4))


def test_exported_programs(tmp_path: Path) -> None:
    module, image = small().eval(), torch.rand(2, 3, 8, 8)
    batch = torch.export.Dim("n")
    torch.export.save(torch.export.export(module, (image,), dynamic_shapes=({0: batch},)), tmp_path / "any.pt2")
    torch.export.save(torch.export.export(module, (image,)), tmp_path / "two.pt2")
    model = load_model(str(tmp_path / "any.pt2"))
    assert model.fixed_batch is None
    assert model.from_file
    assert torch.allclose(model.module(image), module(image))
    assert load_model(str(tmp_path / "two.pt2")).fixed_batch == 2


def test_an_exported_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(small().train(), (torch.rand(2, 3, 8, 8),)), tmp_path / "train.pt2")
    with pytest.raises(InputError, match="training mode"):
        load_model(str(tmp_path / "train.pt2"))


def test_torchscript(tmp_path: Path) -> None:
    module = small().eval()
    torch.jit.trace(module, torch.rand(1, 3, 8, 8)).save(tmp_path / "small.pt")
    model = load_model(ModelRef(str(tmp_path / "small.pt"), size_px=(8, 8)))
    assert model.input_names == ("input",)
    assert torch.allclose(model.module(*model.example_inputs), module(*model.example_inputs))
    with pytest.raises(InputError, match="leave --weights out"):
        load_model(ModelRef(str(tmp_path / "small.pt"), weights="w.pt"))


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "module.pt")
    torch.save(small().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="runs whatever code is in it"):
        load_model(str(tmp_path / "module.pt"))
    with pytest.raises(InputError, match="--weights"):
        load_model(str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".ts"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / "whole.pt2"
    torch.export.save(torch.export.export(small().eval(), (torch.rand(2, 3, 8, 8),)), whole)
    broken = tmp_path / f"broken{suffix}"
    for size in (0, 1, 100, whole.stat().st_size - 30):
        broken.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(ArtifactError, match="truncated"):
            load_model(str(broken))


def test_weights_of_a_file(tmp_path: Path, user_file: Path) -> None:
    other = nn.Linear(7, 2)
    torch.save({"state_dict": {f"module.{name}": t for name, t in other.state_dict().items()}}, tmp_path / "w.pt")
    model = load_model(ModelRef(f"{user_file}:dense", weights=str(tmp_path / "w.pt")))
    assert torch.equal(model.module.weight, other.weight)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not fit"):
        load_model(ModelRef(f"{user_file}:conv", weights=str(tmp_path / "w.pt")))


def test_a_module_in_memory() -> None:
    def forward(x: Tensor) -> Tensor:
        return x

    model = wrap_module(nn.Linear(3, 2), torch.rand(1, 3))
    assert model.input_names == ("input",)
    assert model.parameters == 8
    with pytest.raises(InputError, match="forward takes 2 inputs"):
        wrap_module(nn.Bilinear(3, 3, 2), torch.rand(1, 3))
