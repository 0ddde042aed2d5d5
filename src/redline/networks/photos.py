"""Train ResNet-18 to tell which photograph a crop was cut from; shipped so that the benchmark's answers mean something.

A network with random weights gives one class for every image, and any two such networks agree on everything, so a
benchmark needs a trained one. This one is trained for minutes and shipped in less than a megabyte: the convolutions
from the second stage on stay as :mod:`redline.networks.seeded` draws them; those before, the normalizations and the
head are trained (after Frankle, Schwab, Morcos: Training BatchNorm and Only BatchNorm, 2020).

About three fifths of every photograph are for training and calibration, the rest for testing: no pixel is in both.
Needs the extra ``train``, whose packages carry the photographs. On one machine two runs give the same weights; another
processor rounds differently.

    python -m redline.networks.photos
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from redline.core.errors import MissingDependencyError
from redline.core.files import whole_file, whole_folder
from redline.core.preprocess import Preprocess
from redline.core.tensor import Array
from redline.networks.resnet import ResNet, resnet18
from redline.networks.seeded import digest_of, seed_weights

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photograph: where its file is, whose it is, how it is divided.

    Attributes:
        border: The share of its sides to leave out all around.
        cut: Where the two parts meet, as a share of the width.
        training: Which of them is trained on. Where a photograph shows its subject once, both parts show some of it.
    """

    name: str
    package: str
    file: str
    licence: str
    credit: str
    border: float = 0.0
    cut: float = 0.6
    training: Literal["left", "right"] = "left"


_SKIMAGE = "CC0 1.0"
PHOTOS = (
    Photo(name="brick", package="skimage", file="data/brick.png", licence=_SKIMAGE, credit="CC0Textures, Bricks25"),
    Photo(name="cat", package="skimage", file="data/chelsea.png", licence=_SKIMAGE, credit="Stefan van der Walt"),
    Photo(name="coffee", package="skimage", file="data/coffee.png", licence=_SKIMAGE, credit="Rachel Michetti"),
    Photo(
        name="coins",
        package="skimage",
        file="data/coins.png",
        licence="no known copyright restrictions",
        credit="Brooklyn Museum Collection, image 51611",
        cut=0.4,
        training="right",
    ),
    Photo(
        name="flower",
        package="sklearn",
        file="datasets/images/flower.jpg",
        licence="CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/); cropped and scaled",
        credit="vultilion, https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/",
    ),
    Photo(
        name="galaxies",
        package="skimage",
        file="data/hubble_deep_field.jpg",
        licence="public domain (NASA)",
        credit="NASA, ESA, Hubble eXtreme Deep Field",
        border=0.02,
    ),
    Photo(name="grass", package="skimage", file="data/grass.png", licence=_SKIMAGE, credit="linolafett, Grass-01"),
    Photo(name="gravel", package="skimage", file="data/gravel.png", licence=_SKIMAGE, credit="CC0Textures, Gravel04"),
    Photo(
        name="retina",
        package="skimage",
        file="data/retina.jpg",
        licence=_SKIMAGE,
        credit="Mikael Häggström, Medical gallery, WikiJournal of Medicine 1 (2), 2014",
        border=0.12,
    ),
    Photo(name="rocket", package="skimage", file="data/rocket.jpg", licence="public domain", credit="SpaceX"),
    Photo(
        name="tissue",
        package="skimage",
        file="data/ihc.png",
        licence="no known copyright restrictions",
        credit="Center for Microscopy and Molecular Imaging (CMMI)",
    ),
)
CLASSES = tuple(photo.name for photo in PHOTOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long to train at which size."""

    size_px: int
    batch_size: int
    steps: int
    rate: float


SCHEDULES = (
    Schedule(size_px=96, batch_size=64, steps=320, rate=8e-3),
    Schedule(size_px=224, batch_size=26, steps=80, rate=3e-3),
)
SETTLING = Schedule(size_px=224, batch_size=26, steps=40, rate=5e-4)
_TRAINED = ("conv1.", "layer1.", "fc.")
_ESTIMATING = Schedule(size_px=224, batch_size=26, steps=25, rate=0)


@dataclass(frozen=True, slots=True)
class Regions:
    """The two parts of one photograph, RGB."""

    training: Image.Image
    test: Image.Image
    side_px: float


def load_regions() -> list[Regions]:
    """Both parts of every photograph, in the order of :data:`PHOTOS`."""
    return [_regions(photo) for photo in PHOTOS]


def _regions(photo: Photo) -> Regions:
    spec = importlib.util.find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError({"skimage": "scikit-image"}.get(photo.package, "scikit-learn"), extra="train")
    with Image.open(Path(next(iter(spec.submodule_search_locations)), photo.file)) as opened:
        image = opened.convert("RGB")
    x, y = round(image.width * photo.border), round(image.height * photo.border)
    image = image.crop((x, y, image.width - x, image.height - y))
    cut = round(image.width * photo.cut)
    left, right = image.crop((0, 0, cut, image.height)), image.crop((cut, 0, image.width, image.height))
    training, test = (left, right) if photo.training == "left" else (right, left)
    return Regions(training, test, float(min(test.width, test.height)))


def random_crop(image: Image.Image, side_px: float, size_px: int, random: np.random.Generator) -> Image.Image:
    """A square of about ``side_px`` somewhere in ``image``, resized to ``size_px``."""
    side = min(side_px, image.width, image.height)
    x, y = random.uniform(0, image.width - side), random.uniform(0, image.height - side)
    box = (x, y, min(x + side, image.width), min(y + side, image.height))
    return image.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)


def _jittered(image: Image.Image, preprocess: Preprocess, random: np.random.Generator) -> Array:
    """CHW float32, as the model takes it; mirrored by half, and a little lighter or darker, flatter or harder."""
    pixels = np.asarray(image, dtype=np.float32)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    mean = pixels.mean()
    pixels = (pixels - mean) * random.uniform(0.8, 1.2) + mean * random.uniform(0.85, 1.15)
    return _normalized(pixels.clip(0, 255), preprocess)


def _normalized(pixels: Array, preprocess: Preprocess) -> Array:
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    scaled: Array = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def training_batches(
    regions: list[Regions], schedule: Schedule, random: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in which every photograph comes equally often."""
    preprocess = Preprocess(height_px=schedule.size_px, width_px=schedule.size_px)
    for _ in range(schedule.steps):
        labels = random.permutation(np.arange(schedule.batch_size) % len(regions))
        crops = []
        for label in labels:
            region = regions[label]
            # Evaluation sees the inner 224/256 of a crop that is 0.7 to 1 of the test region's side.
            crop = random_crop(region.training, region.side_px * random.uniform(0.5, 1.0), schedule.size_px, random)
            crops.append(_jittered(crop, preprocess, random))
        images = torch.from_numpy(np.stack(crops)).to(memory_format=torch.channels_last)
        yield images, torch.from_numpy(labels)


def train(regions: list[Regions], *, seed: int = _SEED) -> ResNet:
    """A trained network in evaluation mode, of which all that is not trained is as :func:`seed_weights` left it.

    The normalizations first use the statistics of each batch, as usual, then those of many batches, which stay as
    they are while the rest settles on them: what is evaluated is what was trained.
    """
    model = resnet18(len(regions))
    seed_weights(model, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.ndim == 1 or name.startswith(_TRAINED))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    random = np.random.default_rng(seed)
    for schedule in SCHEDULES:
        _train_at(model.train(), regions, schedule, random)
    _estimate_statistics(model, regions, random)
    _train_at(model.eval(), regions, SETTLING, random)
    return model.eval()


def _train_at(model: ResNet, regions: list[Regions], schedule: Schedule, random: np.random.Generator) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Convolutions have weights of a few hundredths, the scales of normalizations are near one.
    rates = {True: 0.1 * schedule.rate, False: schedule.rate}
    groups = [{"params": [p for p in trained if (p.ndim == 4) is convolution]} for convolution in rates]
    optimizer = torch.optim.Adam(groups)
    for step, (images, labels) in enumerate(training_batches(regions, schedule, random)):
        share = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = rate * share
        logits = model(images)
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 25 == 0 or step == schedule.steps - 1:
            accuracy = (logits.argmax(1) == labels).float().mean().item()
            log.info("%d px, step %d: loss %.4f, accuracy %.3f", schedule.size_px, step, loss.item(), accuracy)


@torch.no_grad()
def _estimate_statistics(model: ResNet, regions: list[Regions], random: np.random.Generator) -> None:
    """Replace the running averages by plain ones over fresh batches at the final size."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    for images, _ in training_batches(regions, _ESTIMATING, random):
        model(images)


def write_crops(regions: list[Regions], folder: Path, *, calibration: int, test: int) -> None:
    """Write JPEG crops of every photograph with ``labels.csv`` (file, label, split) and ``LICENSES.md``."""
    random = np.random.default_rng(_SEED + 1)
    with whole_folder(folder) as scratch:
        rows = []
        for photo, region in zip(PHOTOS, regions, strict=True):
            parts = (("calibration", region.training, calibration), ("test", region.test, test))
            for split, image, count in parts:
                for index in range(count):
                    name = f"{split}_{photo.name}_{index:02d}.jpg"
                    side = region.side_px * random.uniform(0.7, 1.0)
                    crop = random_crop(image, side, min(256, round(side)), random)
                    crop.save(scratch / name, quality=88)
                    rows.append((name, photo.name, split))
        with (scratch / "labels.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("file", "label", "split"), *rows])
        (scratch / "LICENSES.md").write_text(_licences(), encoding="utf-8")


def _licences() -> str:
    lines = [
        "# Photographs: sources and licences",
        "Crops of photographs, as scikit-image and scikit-learn carry them: `python -m redline.networks.photos`.",
        "",
        "| label | from | by | licence |",
        "|---|---|---|---|",
    ]
    packages = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
    lines += [f"| {p.name} | {packages[p.package]}, {Path(p.file).name} | {p.credit} | {p.licence} |" for p in PHOTOS]
    return "\n".join(lines) + "\n"


@torch.no_grad()
def logits_of(model: nn.Module, folder: Path, split: str) -> tuple[Array, Array]:
    """Logits and labels of one split of the written crops, prepared as ImageNet evaluation does."""
    preprocess = Preprocess(height_px=224, width_px=224)
    with (folder / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    answers = []
    for row in rows:
        with Image.open(folder / row["file"]) as image:
            pixels = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240)))
        answers.append(model(torch.from_numpy(_normalized(pixels, preprocess))[None])[0].numpy())
    return np.stack(answers), np.array([CLASSES.index(row["label"]) for row in rows])


def save(model: ResNet, path: Path, *, accuracy: float) -> None:
    """Write what was trained, with what is needed to draw the rest again."""
    state = model.state_dict()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    kept = {
        name: tensor.contiguous()
        for name, tensor in state.items()
        if name not in frozen and not name.endswith("num_batches_tracked")
    }
    metadata = {
        "seed": str(_SEED),
        "seeded_sha256": digest_of({name: state[name] for name in frozen}),
        "classes": ",".join(CLASSES),
        "test_accuracy": f"{accuracy:.4f}",
    }
    with whole_file(path) as scratch:
        save_file(kept, scratch, metadata)


def main() -> None:
    """Write the crops, train, test on what was not trained on, write the weights."""
    parser = argparse.ArgumentParser(prog="python -m redline.networks.photos", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=_HERE / "assets" / "resnet18_photos.safetensors")
    parser.add_argument("--crops", type=Path, default=_HERE.parent / "data" / "assets" / "photos")
    parser.add_argument("--threads", type=int, default=1, help="the weights depend on it in their last bits")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    regions = load_regions()
    write_crops(regions, arguments.crops, calibration=6, test=14)
    model = train(regions)
    logits, labels = logits_of(model, arguments.crops, "test")
    right = logits.argmax(1) == labels
    best = np.sort(logits, axis=1)
    log.info("test accuracy %.4f of %d; classes answered %d", right.mean(), len(right), len(set(logits.argmax(1))))
    log.info("margins: 1 %% %.2f, median %.2f", *np.percentile(best[:, -1] - best[:, -2], [1, 50]))
    for index in np.flatnonzero(~right):
        log.info("wrong: %s taken for %s", CLASSES[labels[index]], CLASSES[logits[index].argmax()])
    save(model, arguments.weights, accuracy=float(right.mean()))


if __name__ == "__main__":
    main()
