"""The table tells the truth about every model that it names."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import redline.networks.zoo
from redline.networks.table import MODELS
from redline.networks.zoo import build


@pytest.mark.parametrize("name", MODELS)
def test_an_entry_says_what_is_built(name):
    entry = MODELS[name]
    model = build(name)
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    size = (entry.preprocess.channels, entry.preprocess.height_px, entry.preprocess.width_px)
    assert size == entry.shape
    with torch.inference_mode():
        answer = model(torch.ones(2, *entry.shape))
    assert answer.isfinite().all()
    if entry.detection is None:
        assert answer.shape == (2, len(entry.classes) or answer.shape[1])
    else:
        assert answer.ndim == 3
        assert answer.shape[:2] == (2, 4 + (len(entry.classes) or 80))


def test_shipped_weights_are_small_and_there():
    for entry in MODELS.values():
        assert (entry.weights is None) == (not entry.classes)
        assert entry.detection or (entry.weights is None) == (entry.data is None)  # a detector's labels are no classes
        if entry.weights:
            path = Path(redline.networks.zoo.__file__).parent / "assets" / entry.weights
            assert path.stat().st_size < 1_500_000


def test_the_table_does_not_import_torch():
    code = "import sys, redline.networks.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
