"""A small detector of the YOLO family, without anchors, whose answer is finished boxes in pixels of the input.

Written for Redline from the papers: residual units that are split and joined (Wang et al., CSPNet, 2019), pyramid
pooling (He et al., 2014), features passed down and up again (Liu et al., Path Aggregation Network, 2018), a head with
a branch for boxes and one for classes (Ge et al., YOLOX, 2021), sides as the mean of a distribution (Li et al.,
Generalized Focal Loss, 2020). The answer has the layout that YOLOv8 made common; no code or weights are Ultralytics'.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn import functional

from redline.core.errors import InputError

# A network that says nothing believes in one place of a hundred (Lin et al., Focal Loss, 2017). It is a constant and
# no bias, so that weights drawn from a seed find next to nothing as well.
_PRIOR_LOGIT = math.log(0.01 / 0.99)
_NO_LOGIT = -20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloPlan:
    """How wide and deep a detector is.

    Attributes:
        widths: Channels at strides 2, 4, 8 and so on.
        depths: Residual units at strides 4, 8 and so on: one number less than ``widths``.
        strides: Of the grids that boxes are read from, the finest first; each is one of the strides of ``widths``.
        box_width: Channels of the branch that says boxes.
        class_width: Channels of the branch that says classes.
        bins: A side of a box lies up to ``bins - 1`` strides from its cell's centre.
        peaks: Whether a cell is silent where one beside it is surer of the same class (Zhou et al., Objects as
            Points, 2019): fewer boxes for one thing, and none of two things whose centres lie in neighbouring cells.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    box_width: int
    class_width: int
    bins: int = 16
    peaks: bool = False

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths) - 1:
            raise InputError(
                f"got {len(self.depths)} depths for {len(self.widths)} widths, expected one for each stride from 4 on"
            )
        coarser = [2 ** (level + 1) for level in range(1, len(self.widths))]
        first = coarser.index(self.strides[0]) if self.strides and self.strides[0] in coarser else len(coarser)
        if not self.strides or list(self.strides) != coarser[first : first + len(self.strides)]:
            raise InputError(f"got strides {self.strides}, expected neighbours of {coarser}, the finest first")


class Unit(nn.Sequential):
    """A convolution, its normalization and SiLU."""

    def __init__(self, channels_in: int, channels: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(channels_in, channels, size, stride, size // 2, bias=False))
        self.add_module("bn", nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03))
        self.add_module("act", nn.SiLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions, with their input added where ``shortcut`` says so."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.first = Unit(channels, channels, 3)
        self.second = Unit(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, height, width) in and out."""
        y = cast("Tensor", self.second(self.first(x)))
        return x + y if self.shortcut else y


class Stage(nn.Module):
    """Half of the channels goes through residual units; the answers of all of them are joined."""

    def __init__(self, channels_in: int, channels: int, depth: int, *, shortcut: bool) -> None:
        super().__init__()
        half = channels // 2
        self.halves = (half, half)
        self.split = Unit(channels_in, 2 * half)
        self.units = nn.ModuleList(Residual(half, shortcut=shortcut) for _ in range(depth))
        self.join = Unit((2 + depth) * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels_in, height, width) in, ``channels`` out."""
        parts = list(self.split(x).split(self.halves, dim=1))
        for unit in self.units:
            parts.append(unit(parts[-1]))
        return cast("Tensor", self.join(torch.cat(parts, dim=1)))


class Pooling(nn.Module):
    """The largest of ever wider surroundings, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = Unit(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = Unit(4 * (channels // 2), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, height, width) in and out."""
        parts = [self.narrow(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return cast("Tensor", self.join(torch.cat(parts, dim=1)))


class Neck(nn.Module):
    """Coarse features go down to the finest grid that is read, and from there up to the coarsest one."""

    def __init__(self, plan: YoloPlan) -> None:
        super().__init__()
        widths = plan.widths[plan.strides[0].bit_length() - 2 :]
        self.down = nn.ModuleList(
            Stage(coarse + fine, fine, plan.depths[0], shortcut=False)
            for fine, coarse in reversed(list(pairwise(widths)))
        )
        read = widths[: len(plan.strides)]
        self.shrink = nn.ModuleList(Unit(fine, fine, 3, 2) for fine in read[:-1])
        self.up = nn.ModuleList(
            Stage(fine + coarse, coarse, plan.depths[0], shortcut=False) for fine, coarse in pairwise(read)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features from the finest grid that is read to the coarsest there are; those that are read come back."""
        found = [features[-1]]
        for stage, finer in zip(self.down, reversed(features[:-1]), strict=True):
            enlarged = functional.interpolate(found[-1], scale_factor=2.0, mode="nearest")
            found.append(stage(torch.cat([enlarged, finer], dim=1)))
        found.reverse()
        read = [found[0]]
        for shrink, stage, coarser in zip(self.shrink, self.up, found[1:], strict=False):
            read.append(stage(torch.cat([shrink(read[-1]), coarser], dim=1)))
        return read


class Branch(nn.Sequential):
    """Two 3x3 convolutions and what is read from them."""

    def __init__(self, channels_in: int, channels: int, channels_out: int) -> None:
        super().__init__()
        self.add_module("first", Unit(channels_in, channels, 3))
        self.add_module("second", Unit(channels, channels, 3))
        self.add_module("last", nn.Conv2d(channels, channels_out, 1))


@dataclass(frozen=True, slots=True)
class Raw:
    """What the head says of every cell, before it is laid out.

    Attributes:
        centres: Of the cells, in pixels of the input: shape (cells, 2).
        strides: Of the cells' grids, in pixels: shape (cells,).
        sides: Distances of the left, upper, right and lower side from the centre, in strides: (batch, cells, 4).
        logits: Of the classes: shape (batch, cells, classes).
    """

    centres: Tensor
    strides: Tensor
    sides: Tensor
    logits: Tensor

    def corners(self) -> Tensor:
        """Boxes (batch, cells, 4): x0, y0, x1, y1 in pixels of the input."""
        reach = self.sides * self.strides[:, None]
        return torch.cat([self.centres - reach[..., :2], self.centres + reach[..., 2:]], dim=-1)


class Yolo(nn.Module):
    """A backbone, a neck and a head for each grid.

    The answer for images of shape (batch, 3, height, width), values from 0 to 1 and sides that the coarsest stride
    divides, is (batch, 4 + num_classes, cells): centre x and y, width and height in pixels of the input, then the
    probability of each class.
    """

    bins: Tensor

    def __init__(self, plan: YoloPlan, *, num_classes: int) -> None:
        super().__init__()
        self.plan = plan
        self.stem = Unit(3, plan.widths[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(Unit(before, width, 3, 2), Stage(width, width, depth, shortcut=True))
            for (before, width), depth in zip(pairwise(plan.widths), plan.depths, strict=True)
        )
        self.pooling = Pooling(plan.widths[-1])
        self.neck = Neck(plan)
        read = [plan.widths[stride.bit_length() - 2] for stride in plan.strides]
        self.boxes = nn.ModuleList(Branch(width, plan.box_width, 4 * plan.bins) for width in read)
        self.classes = nn.ModuleList(Branch(width, plan.class_width, num_classes) for width in read)
        self.register_buffer("bins", torch.arange(plan.bins, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images in, boxes with probabilities out."""
        raw = self.raw(images)
        reach = raw.sides * raw.strides[:, None]
        centres = raw.centres + (reach[..., 2:] - reach[..., :2]) / 2
        sizes = reach[..., :2] + reach[..., 2:]
        return torch.cat([centres, sizes, raw.logits.sigmoid()], dim=-1).transpose(1, 2)

    def raw(self, images: Tensor) -> Raw:
        """What training compares with its labels."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features[-1] = self.pooling(x)
        read = self.neck(features[self.plan.strides[0].bit_length() - 3 :])
        places = [_centres(grid, stride) for grid, stride in zip(read, self.plan.strides, strict=True)]
        boxes = [_rows(head(grid)) for head, grid in zip(self.boxes, read, strict=True)]
        logits = [head(grid) for head, grid in zip(self.classes, read, strict=True)]
        if self.plan.peaks and not self.training:
            logits = [_peaks_of(grid) for grid in logits]
        said = torch.cat(boxes, dim=1)
        shares = said.reshape(-1, _number(said.shape[1]), 4, self.plan.bins).softmax(dim=-1)
        return Raw(
            centres=torch.cat(places),
            strides=torch.cat([torch.full_like(c[:, 0], s) for c, s in zip(places, self.plan.strides, strict=True)]),
            sides=(shares * self.bins).sum(dim=-1),
            logits=torch.cat([_rows(grid) for grid in logits], dim=1) + _PRIOR_LOGIT,
        )


def _rows(grid: Tensor) -> Tensor:
    """Shape (batch, channels, height, width) becomes (batch, height * width, channels)."""
    channels, height, width = (_number(size) for size in grid.shape[1:])
    return grid.reshape(-1, channels, height * width).transpose(1, 2)


def _number(size: int) -> int:
    """A size as a plain number also where an export traces: else its file works out shapes whenever it runs."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return int(size)


def _centres(grid: Tensor, stride: int) -> Tensor:
    """Of the cells of one grid, row by row, in pixels of the input."""
    height, width = (_number(size) for size in grid.shape[2:])
    y, x = (torch.arange(size, device=grid.device, dtype=grid.dtype) for size in (height, width))
    across, along = x.expand(height, -1), y[:, None].expand(-1, width)
    return (torch.stack([across, along], dim=-1).reshape(-1, 2) + 0.5) * stride


def _peaks_of(logits: Tensor) -> Tensor:
    """Logits (batch, classes, rows, columns) that are certainly no where one of the eight beside them is higher."""
    highest = functional.max_pool2d(logits, 3, 1, 1)
    return torch.where(logits >= highest, logits, torch.full_like(logits, _NO_LOGIT))


def yolo_n(num_classes: int = 80) -> Yolo:
    """A detector of the size that is called n: three grids, about 3 million parameters, 9e9 operations at 640x640."""
    plan = YoloPlan(
        widths=(16, 32, 64, 128, 256),
        depths=(1, 2, 2, 1),
        strides=(8, 16, 32),
        box_width=64,
        class_width=80,
    )
    return Yolo(plan, num_classes=num_classes)


def nuclei(num_classes: int = 1) -> Yolo:
    """A tiny detector of small things that lie close together: one grid of cells of 4 pixels."""
    plan = YoloPlan(
        widths=(16, 32, 64, 96),
        depths=(1, 1, 1),
        strides=(4,),
        box_width=32,
        class_width=32,
        bins=10,
        peaks=True,
    )
    return Yolo(plan, num_classes=num_classes)
