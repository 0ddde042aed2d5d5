"""Train the tiny detector of nuclei that ships, on labels of :mod:`redline.networks.nuclei_labels`.

It learns to answer as image processing of the classical kind does, on one slide: it is a thing to try the machinery
on, no instrument. A band of the slide is held out: no pixel of it is trained on. Needs the extras ``train`` and
``scale``; takes minutes on one core. On one machine two runs give the same weights.

    python -m redline.networks.nuclei
    redline export nuclei -o src/scale/assets/nuclei.onnx --opset 17
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from redline.core.files import whole_file
from redline.core.tensor import Array
from redline.detection.decoding import Decoder
from redline.detection.letterbox import identity
from redline.networks.nuclei_labels import SLIDE, Part, read_parts
from redline.networks.seeded import seed_weights
from redline.networks.table import MODELS
from redline.networks.yolo import Yolo, nuclei
from redline.networks.yolo_loss import detection_loss

log = logging.getLogger(__name__)

WINDOW_PX = MODELS["nuclei"].preprocess.width_px
CONFIDENCE = 0.25
NEAR_PX = 6.0
_SEED = 0
_LEAST_VISIBLE = 0.4
_LIGHT = 225


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long to train, on crops of which size."""

    steps: int = 1400
    batch_size: int = 8
    size_px: int = 160
    rate: float = 4e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many detections and labels were paired, one with one.

    Attributes:
        found: Detections.
        labels: Labels.
        overlapping: Pairs that share at least half of their union.
        near: Pairs whose centres are at most :data:`NEAR_PX` apart, 3 micrometres.
    """

    found: int
    labels: int
    overlapping: int
    near: int

    @property
    def f1_overlap(self) -> float:
        """Twice the overlapping pairs for each detection and each label."""
        return 2 * self.overlapping / max(1, self.found + self.labels)

    @property
    def f1_near(self) -> float:
        """Twice the near pairs for each detection and each label."""
        return 2 * self.near / max(1, self.found + self.labels)


def train(parts: Sequence[Part], schedule: Schedule | None = None, *, seed: int = _SEED) -> Yolo:
    """A trained network in evaluation mode: the running mean of the weights that it had on the way."""
    schedule = schedule or Schedule()
    model = nuclei()
    seed_weights(model, seed)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.rate)
    mean = torch.optim.swa_utils.get_ema_multi_avg_fn(0.98)  # type: ignore[no-untyped-call]
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
    for step, (images, boxes) in enumerate(training_batches(parts, schedule, np.random.default_rng(seed))):
        share = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / schedule.steps)))
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * share
        classes = [torch.zeros(len(own), dtype=torch.long) for own in boxes]
        loss = detection_loss(model.raw(images), boxes, classes)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        averaged.update_parameters(model)
        if step % 50 == 0 or step == schedule.steps - 1:
            log.info("step %d: loss %.4f", step, loss.item())
    model.load_state_dict(averaged.module.state_dict())
    return model.eval()


def training_batches(
    parts: Sequence[Part], schedule: Schedule, random: np.random.Generator
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Crops that are turned, mirrored and stained a little otherwise, with their boxes."""
    shares = np.array([part.pixels.shape[0] for part in parts], np.float64)
    for _ in range(schedule.steps):
        images, boxes = [], []
        for chosen in random.choice(len(parts), schedule.batch_size, p=shares / shares.sum()):
            pixels, own = _crop(parts[chosen], schedule.size_px, random)
            pixels, own = _turned(pixels, own, random)
            images.append(torch.from_numpy(_stained(pixels, random)))
            boxes.append(torch.from_numpy(own))
        yield torch.stack(images).to(memory_format=torch.channels_last), boxes


def _crop(part: Part, size_px: int, random: np.random.Generator) -> tuple[Array, Array]:
    """A square of the part; of three tries the first that is not mostly glass, else the last."""
    height, width = part.pixels.shape[:2]
    for _ in range(3):
        x0, y0 = int(random.integers(0, width - size_px + 1)), int(random.integers(0, height - size_px + 1))
        pixels = part.pixels[y0 : y0 + size_px, x0 : x0 + size_px]
        if (pixels.min(axis=2) < _LIGHT).mean() > 0.3:
            break
    return pixels, visible(part.boxes, x0, y0, size_px)


def visible(boxes: Array, x0: int, y0: int, size_px: int) -> Array:
    """Boxes in pixels of a window, cut at its edges; those of which less than two fifths is in it are left out."""
    moved = boxes - np.array([x0, y0, x0, y0], np.float32)
    cut = moved.clip(0, size_px)
    areas = [(some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1]) for some in (cut, moved)]
    kept: Array = cut[areas[0] >= _LEAST_VISIBLE * areas[1]]
    return kept


def _turned(pixels: Array, boxes: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """By a quarter as often as chance has it, and mirrored by half."""
    size = np.float32(pixels.shape[0])
    for _ in range(int(random.integers(4))):
        pixels = np.rot90(pixels)
        x0, y0, x1, y1 = boxes.T
        boxes = np.stack([y0, size - x1, y1, size - x0], axis=1)
    if random.random() < 0.5:
        x0, y0, x1, y1 = boxes.T
        pixels, boxes = pixels[:, ::-1], np.stack([size - x1, y0, size - x0, y1], axis=1)
    return pixels, boxes


def _stained(pixels: Array, random: np.random.Generator) -> Array:
    """CHW float32 from 0 to 1: each channel's absorption a little stronger or weaker, all of it lighter or darker."""
    light = (pixels.astype(np.float32) + 1) / 256
    toned = light ** random.uniform(0.88, 1.14, 3).astype(np.float32) * np.float32(random.uniform(0.93, 1.05))
    return np.ascontiguousarray(toned.clip(0, 1).transpose(2, 0, 1))


@torch.no_grad()
def agreement(model: nn.Module, part: Part) -> Agreement:
    """How far detections in windows side by side agree with the labels of a part."""
    entry = MODELS["nuclei"]
    decode = Decoder(detection=entry.detection, class_count=len(entry.classes), confidence=CONFIDENCE)
    height, width = part.pixels.shape[:2]
    counts = np.zeros(4, np.int64)
    for y0 in range(0, height - WINDOW_PX + 1, WINDOW_PX):
        for x0 in range(0, width - WINDOW_PX + 1, WINDOW_PX):
            window = part.pixels[y0 : y0 + WINDOW_PX, x0 : x0 + WINDOW_PX]
            images = torch.from_numpy(window.transpose(2, 0, 1).astype(np.float32) / 255)[None]
            size = (WINDOW_PX, WINDOW_PX)
            found = decode({"output": model(images).numpy()}, [identity(size)], size).detections.boxes
            labels = visible(part.boxes, x0, y0, WINDOW_PX)
            overlaps, near = _likeness(found, labels)
            counts += (len(found), len(labels), _pairs(overlaps, 0.5), _pairs(near, 1 - NEAR_PX / WINDOW_PX))
    return Agreement(found=int(counts[0]), labels=int(counts[1]), overlapping=int(counts[2]), near=int(counts[3]))


def _likeness(found: Array, labels: Array) -> tuple[Array, Array]:
    """Of every detection and every label: intersection over union, and how near the centres are (1: at one place)."""
    low = np.maximum(found[:, None, :2], labels[None, :, :2])
    high = np.minimum(found[:, None, 2:], labels[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, labels)]
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (found, labels)]
    apart = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-7), 1 - apart / WINDOW_PX


def _pairs(likeness: Array, least: float) -> int:
    """How many pairs are at least so alike, the most alike first, each of both sides in one pair only."""
    pairs = np.argwhere(likeness >= least)
    order = np.argsort(-likeness[tuple(pairs.T)], kind="stable")
    taken: tuple[set[int], set[int]] = (set(), set())
    count = 0
    for one, other in pairs[order]:
        if one not in taken[0] and other not in taken[1]:
            taken[0].add(int(one))
            taken[1].add(int(other))
            count += 1
    return count


def save(model: Yolo, path: Path, *, held_out: Agreement) -> None:
    """Write the weights, with how far they agree with labels that they were not trained on."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    metadata = {
        "labels": "classical image processing, see redline.networks.nuclei_labels",
        "held_out_f1_iou50": f"{held_out.f1_overlap:.4f}",
        "held_out_f1_near": f"{held_out.f1_near:.4f}",
    }
    with whole_file(path) as scratch:
        save_file(kept, scratch, metadata)


def main() -> None:
    """Label, train, test on what was held out, write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m redline.networks.nuclei", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--slide", type=Path, default=SLIDE)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "assets" / "nuclei.safetensors")
    parser.add_argument("--steps", type=int, default=Schedule().steps)
    parser.add_argument("--threads", type=int, default=1, help="the weights depend on it in their last bits")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    parts, held_out = read_parts(arguments.slide)
    log.info("%d labels to train on, %d held out", sum(len(part.boxes) for part in parts), len(held_out.boxes))
    model = train(parts, Schedule(steps=arguments.steps))
    for name, part in (("trained on", parts[0]), ("held out", held_out)):
        found = agreement(model, part)
        log.info(
            "%s: %d labels, %d found; F1 %.3f at IoU 0.5, %.3f within %g pixels",
            *(name, found.labels, found.found, found.f1_overlap, found.f1_near, NEAR_PX),
        )
    save(model, arguments.weights, held_out=found)


if __name__ == "__main__":
    main()
