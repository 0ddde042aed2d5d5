"""The trained models give right answers on what they were not trained on, and not one answer to everything."""

import numpy as np
import pytest
import torch

from redline.data.sources import load_asset
from redline.networks.photos import CLASSES
from redline.networks.table import MODELS
from redline.networks.zoo import build


@pytest.mark.parametrize(("name", "every", "least"), [("digits", 1, 0.98), ("resnet18", 4, 0.9)])
def test_held_out_accuracy(name, every, least):
    entry = MODELS[name]
    _, verification = load_asset(entry.data, entry.preprocess)
    some = verification.take(range(0, len(verification), every))
    with torch.inference_mode():
        answers = build(name)(torch.from_numpy(some.inputs["input"])).argmax(1).numpy()
    assert (answers == some.labels).mean() >= least
    assert set(answers) == set(range(len(entry.classes)))


def test_shipped_photographs():
    entry = MODELS["resnet18"]
    calibration, verification = load_asset(entry.data, entry.preprocess, input_name="image")
    assert np.bincount(calibration.labels).tolist() == [6] * 11
    assert np.bincount(verification.labels).tolist() == [14] * 11
    assert verification.inputs["image"].shape == (154, 3, 224, 224)
    assert entry.classes == CLASSES
    named = [name.split("_")[1] for name in verification.names]
    assert named == [entry.classes[label] for label in verification.labels]
