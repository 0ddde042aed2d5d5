"""The table of built-in models: one line of facts each, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redline.core.preprocess import Detection, Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """What a built-in model is.

    Attributes:
        factory: ``module:function`` with the one keyword ``num_classes``.
        shape: Of one sample, without the batch.
        parameters: How many numbers it learns, with its default weights.
        description: One line.
        weights: The file shipped with Redline that is loaded by default; None for weights drawn from a seed.
        preprocess: How an image becomes a sample.
        data: Labelled data shipped with Redline that nobody trained on, as ``redline.data`` names it.
        classes: Names of the classes of the default weights; empty where they mean nothing.
        detection: What its outputs mean, for a detector.
    """

    factory: str
    shape: tuple[int, ...]
    parameters: int
    description: str
    preprocess: Preprocess
    weights: str | None = None
    data: str | None = None
    classes: tuple[str, ...] = ()
    detection: Detection | None = None


_PHOTOS = (
    "brick",
    "cat",
    "coffee",
    "coins",
    "flower",
    "galaxies",
    "grass",
    "gravel",
    "retina",
    "rocket",
    "tissue",
)
_RANDOM = "random weights: its answers mean nothing"
_IMAGENET = Preprocess(height_px=224, width_px=224)


def _letterbox(side_px: int) -> Preprocess:
    return Preprocess(
        height_px=side_px, width_px=side_px, mean=(0.0,) * 3, std=(1.0,) * 3, color="rgb", resize="letterbox"
    )


MODELS: Mapping[str, ZooEntry] = {
    "resnet18": ZooEntry(
        factory="redline.networks.resnet:resnet18",
        shape=(3, 224, 224),
        parameters=11_182_155,
        description="ResNet-18, trained to tell which of 11 photographs a crop was cut from",
        preprocess=_IMAGENET,
        weights="resnet18_photos.safetensors",
        data="photos",
        classes=_PHOTOS,
    ),
    "resnet34": ZooEntry(
        factory="redline.networks.resnet:resnet34",
        shape=(3, 224, 224),
        parameters=21_797_672,
        description=f"ResNet-34; {_RANDOM}",
        preprocess=_IMAGENET,
    ),
    "resnet50": ZooEntry(
        factory="redline.networks.resnet:resnet50",
        shape=(3, 224, 224),
        parameters=25_557_032,
        description=f"ResNet-50 v1.5; {_RANDOM}",
        preprocess=_IMAGENET,
    ),
    "mlp": ZooEntry(
        factory="redline.networks.small:mlp",
        shape=(1, 28, 28),
        parameters=535_818,
        description=f"Three linear layers over 28x28 gray pixels; {_RANDOM}",
        preprocess=Preprocess(height_px=28, width_px=28, mean=(0.1307,), std=(0.3081,), color="gray", resize="stretch"),
    ),
    "convnet": ZooEntry(
        factory="redline.networks.small:convnet",
        shape=(3, 32, 32),
        parameters=288_746,
        description=f"Six convolutions with batch normalization over 32x32 pixels; {_RANDOM}",
        preprocess=Preprocess(
            height_px=32,
            width_px=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            resize="stretch",
        ),
    ),
    "digits": ZooEntry(
        factory="redline.networks.digits:digits",
        shape=(1, 8, 8),
        parameters=25_978,
        description="Three convolutions, trained on scikit-learn's handwritten digits",
        preprocess=Preprocess(height_px=8, width_px=8, mean=(0.3,), std=(0.37,), color="gray", resize="stretch"),
        weights="digits.safetensors",
        data="digits.npz",
        classes=tuple("0123456789"),
    ),
    "nuclei": ZooEntry(
        factory="redline.networks.yolo:nuclei",
        shape=(3, 256, 256),
        parameters=287_097,
        description="A tiny detector, trained on where classical image processing sees nuclei on one slide",
        preprocess=_letterbox(256),
        weights="nuclei.safetensors",
        classes=("nucleus",),
        detection=Detection(task="detect", head="v8", stride=4),
    ),
    "yolo_n": ZooEntry(
        factory="redline.networks.yolo:yolo_n",
        shape=(3, 640, 640),
        parameters=3_157_184,
        description=f"A detector of the YOLO family, size n, at 640x640; {_RANDOM}",
        preprocess=_letterbox(640),
        detection=Detection(task="detect", head="v8", stride=32),
    ),
}
