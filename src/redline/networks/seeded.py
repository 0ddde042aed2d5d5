"""Weights drawn from a seed, the same bits on every machine and with every version."""

from __future__ import annotations

import hashlib
import math
import zlib

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def seed_weights(module: nn.Module, seed: int) -> None:
    """Draw every weight of two or more dimensions anew; biases become zero, normalizations the identity.

    Convolutions get He's uniform initialization over the outputs (as torchvision's ResNets, but uniform), matrices
    one over the inputs. ``numpy.random.RandomState`` has a stream that NumPy promises to keep, and its uniform
    numbers need integer arithmetic and one exact division only: no mathematical library can round them differently.
    Every tensor has a stream of its own name, so that a head of another size changes no other weight.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        random = np.random.RandomState([seed, zlib.crc32(name.encode())])
        receptive = math.prod(parameter.shape[2:])
        fan = parameter.shape[0] * receptive if parameter.ndim > 2 else parameter.shape[1]
        bound = math.sqrt((6.0 if parameter.ndim > 2 else 3.0) / fan)
        values = (random.random_sample(tuple(parameter.shape)) * 2.0 - 1.0) * bound
        parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """The SHA-256 of tensors by name, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
