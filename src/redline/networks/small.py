"""Two small networks to try things on."""

from __future__ import annotations

from torch import nn


def mlp(num_classes: int = 10) -> nn.Sequential:
    """Gray images of shape (batch, 1, 28, 28), flattened to 784, then 512, 256 and ``num_classes``."""
    model = nn.Sequential()
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc1", nn.Linear(784, 512))
    model.add_module("relu1", nn.ReLU())
    model.add_module("fc2", nn.Linear(512, 256))
    model.add_module("relu2", nn.ReLU())
    model.add_module("fc", nn.Linear(256, num_classes))
    return model


def convnet(num_classes: int = 10) -> nn.Sequential:
    """RGB images of shape (batch, 3, 32, 32): three pairs of 3x3 convolutions with pooling, an average, a head."""
    model = nn.Sequential()
    channels_in = 3
    for stage, channels in enumerate((32, 64, 128), start=1):
        for half in ("a", "b"):
            model.add_module(f"conv{stage}{half}", nn.Conv2d(channels_in, channels, 3, padding=1, bias=False))
            model.add_module(f"bn{stage}{half}", nn.BatchNorm2d(channels))
            model.add_module(f"relu{stage}{half}", nn.ReLU())
            channels_in = channels
        if stage < 3:
            model.add_module(f"pool{stage}", nn.MaxPool2d(2))
    model.add_module("average", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(128, num_classes))
    return model
