"""Whether a machine of a cluster answers as this one does: its software, its models, its view of a slide."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import redline
from redline.core.files import sha256_of
from redline.core.host import cpu_identity
from redline.measurement.environment import installed

# What reads pixels, prepares them, runs models and draws outlines.
_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "torch",
    "ultralytics",
    "opencv-python-headless",
    "imagecodecs",
    "tifffile",
    "openslide-python",
    "openslide-bin",
    "pillow",
)
_ROOMS = ("redline.core", "redline.detection", "redline.backends", "scale.models", "scale.pipeline", "scale.slides")
_DIGITS = 12


def software() -> dict[str, str]:
    """What is installed here now and decides what is found, by name; loads no runtime."""
    return {"redline": redline.__version__, "the code": _code(), **installed(_PACKAGES)}


@cache
def processor() -> dict[str, str]:
    """The processor, whose kind decides the last digits of what a model on it says."""
    return cpu_identity()


@cache
def digest_of(path: Path) -> str:
    """A model file's digest, worked out once."""
    return sha256_of(path)


def why_other(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """In which software another machine differs; what is not installed here does not count.

    >>> why_other({"numpy": "2.0", "redline": "0.1"}, {"numpy": "2.1", "redline": "0.1", "torch": "2.6"})
    'numpy is 2.1 there and 2.0 here'
    """
    told = [
        f"{name} is {there.get(name, 'not installed')} there and {version} here"
        for name, version in here.items()
        if there.get(name) != version
    ]
    return "; ".join(told) or None


def other_file(name: str, path: str, sha256: str) -> str | None:
    """How a model's file on another machine differs from the one that is under the same path here, if one is."""
    file = Path(path)
    if not file.is_file() or digest_of(file) == sha256:
        return None
    told = f"{path} of model {name} has the digest {sha256[:_DIGITS]} there and {digest_of(file)[:_DIGITS]} here"
    return f"{told}; copy the same file to every machine"


def told_differences(texts: list[str]) -> str:
    """Differences between two workers, as :func:`scale.pipeline.shards.differences` gives them."""
    return "; ".join(text.replace(", now ", " on another worker, here ") for text in texts)


def _code() -> str:
    """A digest of the code that decides what is found: two checkouts may have one version."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        root = Path(str(import_module(room).__file__)).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{room} {file.relative_to(root)}".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:_DIGITS]
