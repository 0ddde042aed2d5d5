"""The model of the CPU benchmark for the peers that start from PyTorch."""

from torch import nn

from redline.networks.zoo import build


def resnet18() -> nn.Module:
    """ResNet-18 with the weights that ship with Redline."""
    return build("resnet18")
