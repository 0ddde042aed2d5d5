"""A small network for scikit-learn's 8x8 handwritten digits, and how it was trained.

Training needs the extra ``train``; it takes seconds and writes the weights, and the images that it was tested on.

    python -m redline.networks.digits
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from redline.core.files import whole_file
from redline.core.packages import missing
from redline.core.tensor import Array
from redline.networks.seeded import seed_weights
from redline.networks.table import MODELS

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_TEST_SHARE = 1 / 3
_CALIBRATION = 256


def digits(num_classes: int = 10) -> nn.Sequential:
    """Gray images of shape (batch, 1, 8, 8), light ink on a dark ground: three 3x3 convolutions, then a head."""
    model = nn.Sequential()
    channels_in = 1
    for stage, channels in enumerate((16, 32, 64), start=1):
        model.add_module(f"conv{stage}", nn.Conv2d(channels_in, channels, 3, padding=1, bias=False))
        model.add_module(f"bn{stage}", nn.BatchNorm2d(channels))
        model.add_module(f"relu{stage}", nn.ReLU())
        if stage > 1:
            model.add_module(f"pool{stage}", nn.MaxPool2d(2))
        channels_in = channels
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(64 * 2 * 2, num_classes))
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images (uint8, shape (samples, 8, 8)) with labels, in a part for training and one for testing."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def load_digits() -> Digits:
    """scikit-learn's 1797 digits; a third, drawn evenly from every class, is held out.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise missing("scikit-learn") from error
    bunch = datasets.load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    random = np.random.RandomState(0)
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = random.permutation(np.flatnonzero(labels == label))
        test[members[: round(len(members) * _TEST_SHARE)]] = True
    order = random.permutation(len(labels))
    train, held_out = order[~test[order]], order[test[order]]
    return Digits(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[held_out],
        test_labels=labels[held_out],
    )


def to_input(images: Array) -> Tensor:
    """Images as the model takes them: shape (samples, 1, 8, 8)."""
    preprocess = MODELS["digits"].preprocess
    scaled = (torch.from_numpy(images).float() / 255 - preprocess.mean[0]) / preprocess.std[0]
    return scaled[:, None]


def train(data: Digits, *, epochs: int = 60, seed: int = 0) -> nn.Sequential:
    """A trained network in evaluation mode; images are shifted by up to a pixel while it learns."""
    model = digits()
    seed_weights(model, seed)
    random = torch.Generator().manual_seed(seed)
    images, labels = to_input(data.train_images), torch.from_numpy(data.train_labels)
    dark = float(images.min())
    batch_size = 64
    steps = epochs * (len(labels) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for chosen in order[: len(labels) // batch_size * batch_size].view(-1, batch_size):
            padded = functional.pad(images[chosen], (1, 1, 1, 1), value=dark)
            y, x = (int(shift) for shift in torch.randint(0, 3, (2,), generator=random))
            loss = functional.cross_entropy(model(padded[:, :, y : y + 8, x : x + 8]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Array, labels: Array) -> float:
    """The share of images that get their label."""
    return float((model(to_input(images)).argmax(1) == torch.from_numpy(labels)).float().mean())


def main() -> None:
    """Train, test on what was held out, write the weights and the data."""
    parser = argparse.ArgumentParser(
        prog="python -m redline.networks.digits", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--weights", type=Path, default=_HERE / "assets" / "digits.safetensors")
    parser.add_argument("--data", type=Path, default=_HERE.parent / "data" / "assets" / "digits.npz")
    parser.add_argument("--threads", type=int, default=1, help="the weights depend on it in their last bits")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    data = load_digits()
    model = train(data)
    score = accuracy(model, data.test_images, data.test_labels)
    log.info(
        "accuracy %.4f on %d training images, %.4f on %d held out",
        accuracy(model, data.train_images, data.train_labels),
        len(data.train_labels),
        score,
        len(data.test_labels),
    )
    with whole_file(arguments.weights) as scratch:
        save_file(model.state_dict(), scratch, {"test_accuracy": f"{score:.4f}"})
    with whole_file(arguments.data) as scratch:
        np.savez_compressed(
            scratch,
            calibration_images=data.train_images[:_CALIBRATION],
            calibration_labels=data.train_labels[:_CALIBRATION].astype(np.uint8),
            test_images=data.test_images,
            test_labels=data.test_labels.astype(np.uint8),
        )


if __name__ == "__main__":
    main()
