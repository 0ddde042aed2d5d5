"""Our ResNets have torchvision's parameters, by name and number."""

import pytest
import torch

from redline.networks.resnet import resnet18, resnet34, resnet50


def torchvision_names(depths, convolutions):
    """The state dict's keys as torchvision's source makes them, without a copy of it."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{one}" for one in norm)}
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                names |= {f"{prefix}.conv{number}.weight", *(f"{prefix}.bn{number}.{one}" for one in norm)}
            if block == 0 and (stage > 1 or convolutions == 3):
                names |= {f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{one}" for one in norm)}
    return names


@pytest.mark.parametrize(
    ("factory", "depths", "convolutions", "parameters"),
    [
        (resnet18, (2, 2, 2, 2), 2, 11_689_512),
        (resnet34, (3, 4, 6, 3), 2, 21_797_672),
        (resnet50, (3, 4, 6, 3), 3, 25_557_032),
    ],
)
def test_names_and_numbers(factory, depths, convolutions, parameters):
    with torch.device("meta"):
        model = factory()
    assert set(model.state_dict()) == torchvision_names(depths, convolutions)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_bottleneck_strides_in_its_3x3_convolution():
    with torch.device("meta"):
        block = resnet50().layer2[0]
    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)


def test_any_size_and_number_of_classes():
    assert resnet18(5).eval()(torch.zeros(1, 3, 70, 50)).shape == (1, 5)
