import numpy as np
import pytest

from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.verification.dependence import dependence


def samples_of(values: Array) -> Samples:
    return Samples(inputs={"x": values}, labels=None, names=tuple(map(str, range(len(values)))), source="test")


NOISE = np.random.default_rng(0).normal(size=(32, 8))


def test_constant_model():
    found = dependence({"y": np.tile(np.arange(5.0), (32, 1))}, samples_of(NOISE))
    assert not found.depends
    assert found.classes == 1
    assert "proves nothing" in str(found.warning)


def test_random_weights_answer_nearly_the_same():
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=0.164, size=1000) + rng.normal(scale=0.003, size=(32, 1000))
    assert not dependence({"y": logits}, samples_of(NOISE)).depends


def test_answers_that_follow_the_input():
    found = dependence({"y": NOISE}, samples_of(NOISE))
    assert found.depends
    assert found.warning is None
    assert found.classes == 8


def test_one_class_for_samples_that_move_is_a_warning():
    logits = NOISE.copy()
    logits[:, 0] = 3 + np.abs(NOISE[:, 0]) * 3
    logits[:, 1:] *= 3 / 8
    found = dependence({"y": logits * np.linspace(0.2, 3, 32)[:, None]}, samples_of(NOISE))
    assert found.classes == 1
    assert found.depends
    assert "same class" in str(found.warning)


def test_without_classes_any_movement_counts():
    assert dependence({"y": 40 + NOISE[:, :1]}, samples_of(NOISE)).depends
    assert not dependence({"y": np.full((32, 1), 40.0)}, samples_of(NOISE)).depends


def test_equal_samples_or_one_sample_cannot_tell():
    zeros = np.zeros((4, 8))
    assert "are equal" in str(dependence({"y": zeros}, samples_of(zeros)).warning)
    assert "1 sample" in str(dependence({"y": zeros[:1]}, samples_of(zeros[:1])).warning)


def test_no_inputs():
    nothing = Samples(inputs={}, labels=None, names=("0",), source="test")
    assert not dependence({"y": np.zeros((1, 3))}, nothing).depends


def test_real_networks():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3 if i == 0 else 32, 32, 3, padding=1) for i in range(8)]
    blocks = [block for layer in layers for block in (layer, torch.nn.ReLU())]
    network = torch.nn.Sequential(*blocks, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10))
    images = torch.rand(16, 3, 16, 16)
    with torch.inference_mode():
        found = dependence({"y": network(images).numpy()}, samples_of(images.numpy()))
    assert not found.depends
