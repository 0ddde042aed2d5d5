"""The model of the CPU benchmark for peers that start from PyTorch, whose environments do not have Redline.

The variable ``REDLINE_BENCHMARK_STATE`` names the state dict.
"""

import importlib.util
import os
import sys
from pathlib import Path

import torch
from torch import nn

_DEFINITION = Path(__file__).resolve().parents[1] / "src" / "redline" / "networks" / "resnet.py"


def resnet18() -> nn.Module:
    """ResNet-18 with the weights that ship with Redline."""
    spec = importlib.util.spec_from_file_location("resnet", _DEFINITION)
    assert spec is not None
    assert spec.loader is not None
    definition = sys.modules["resnet"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(definition)
    state = torch.load(os.environ["REDLINE_BENCHMARK_STATE"], weights_only=True)
    model: nn.Module = definition.resnet18(num_classes=len(state["fc.bias"]))
    model.load_state_dict(state)
    return model.eval()
