"""The precision that a PyTorch model computes in is read back, whatever its weights say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from redline.commands.verify import verify
from redline.core.artifact import Layers
from redline.core.errors import InputError
from redline.networks.eager import open_model
from redline.networks.load import ModelRef, load_model
from redline.verification.reference import require_fp32

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.example_inputs = (torch.zeros(1, 3, 16, 16),)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

class Autocast(Net):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()

class HalfHead(Net):
    def forward(self, x):
        features = self.conv(x).mean((2, 3))
        weight, bias = self.head.weight.bfloat16(), self.head.bias.bfloat16()
        return nn.functional.linear(features.bfloat16(), weight, bias).float()

class Flag(Net):
    def forward(self, x):
        torch.set_float32_matmul_precision("medium")
        return super().forward(x)

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 4)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            features = self.encoder(x)
        return self.head(features.float().mean(1))

class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 3))

    def forward(self, x):
        return torch.einsum("bi,ij->bj", x.bfloat16(), self.weight.bfloat16()).float()

class Unwatched(Net):
    def forward(self, x):
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("not under a mode")
        return super().forward(x)

def encoder(): return Encoder().eval(), torch.rand(1, 6, 32)
def einsum(): return Einsum().eval(), torch.rand(1, 8)
def dynamic(): return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}), torch.rand(1, 3, 16, 16)
def unwatched(): return Unwatched().eval()
def plain(): return Net().eval()
def autocast(): return Autocast().eval()
def half_head(): return HalfHead().eval()
def flag(): return Flag().eval()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "nets.py"
    path.write_text(MODELS)
    return path


def _opened(models: Path, name: str) -> tuple[dict[str, int], str | None]:
    session = open_model(load_model(ModelRef(f"{models}:{name}")))
    try:
        return dict(session.layers.counts), session.precision_doubt
    finally:
        session.close()


def test_plain_weights_that_compute_as_they_are(models: Path) -> None:
    assert _opened(models, "plain") == ({"fp32": 2}, None)


def test_autocast_within_forward_is_seen(models: Path) -> None:
    assert _opened(models, "autocast")[0] == {"bf16": 2}


def test_one_layer_that_converts_itself_is_seen(models: Path) -> None:
    assert _opened(models, "half_head")[0] == {"fp32": 1, "bf16": 1}


def test_autocast_around_layers_that_pytorch_fuses_is_seen(models: Path) -> None:
    """Such a layer is one operation in inference; what it rounds within is seen by none that watches operations."""
    assert torch.backends.mha.get_fastpath_enabled()
    found = _opened(models, "encoder")[0]
    assert set(found) == {"bf16", "fp32"}
    assert found["bf16"] >= 8  # two layers of four products each
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_product_that_is_given_a_list_is_seen(models: Path) -> None:
    assert _opened(models, "einsum")[0] == {"bf16": 1}


@pytest.mark.filterwarnings("ignore::Warning")
def test_quantized_layers_are_not_called_float(models: Path) -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch cannot quantize")
    assert _opened(models, "dynamic")[0] == {"fp32": 1, "int8": 1}


def test_a_call_that_cannot_be_recorded_is_not_called_recorded(models: Path) -> None:
    session = open_model(load_model(ModelRef(f"{models}:unwatched")))
    assert "by the weights alone" in str(session.precision_evidence)
    session.close()


def test_a_flag_that_the_model_sets_is_doubted(models: Path) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        doubt = _opened(models, "flag")[1]
    finally:
        torch.set_float32_matmul_precision(before)
    assert doubt is not None
    assert "mkldnn.matmul.fp32_precision is bf16" in doubt


def test_a_tune_refuses_a_reference_that_a_variable_lets_round(models: Path, tmp_path: Path) -> None:
    # In a process of its own: oneDNN reads the variable once.
    command = [sys.executable, "-m", "redline", "tune", f"{models}:plain", "--out", str(tmp_path / "run")]
    run = subprocess.run(
        [*command, "--variant", "onnxruntime-fp32"],
        env=os.environ | {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "ONEDNN_DEFAULT_FPMATH_MODE=BF16" in run.stderr
    assert "is the FP32 reference" in run.stderr


def test_verify_refuses_it_too(models: Path) -> None:
    with pytest.raises(InputError, match="of its 2 layers 2 in bf16"):
        verify(f"{models}:autocast", [f"{models}:plain"])


def test_a_model_without_layers_is_nobodys_fault() -> None:
    require_fp32("nothing", Layers.of({}))
    with pytest.raises(InputError, match="3 in int8"):
        require_fp32("it", Layers.of({"int8": 3, "fp32": 1}))
