"""How near the detections of one runtime are to another's: a part of `gpu_pipeline.py`.

On its own it holds what `gpu_pipeline.py --save` kept of a model that Redline has built in against its PyTorch module
in FP32, on the same windows, here:

    python benchmarks/gpu_agreement.py saved/yolo_n.npz --model yolo_n -o results/gpu/scale_agreement.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import redline
from redline.core.files import sha256_of, write_whole
from redline.core.plain import to_plain
from redline.core.tensor import Array
from redline.detection.detector import Detector
from redline.detection.results import Detections
from redline.measurement.environment import fingerprint

MATCHED_IOU = 0.5
THRESHOLDS = tuple(np.arange(0.5, 0.951, 0.05).round(2).tolist())


def ious(one: Array, other: Array) -> Array:
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def matches(truth: Detections, found: Detections, least: float) -> Array:
    """For each of ``found``, best first, the position of its own box of ``truth``, -1 where it has none."""
    overlap = ious(found.boxes, truth.boxes) * (found.classes[:, None] == truth.classes[None])
    own, free = np.full(len(found), -1, np.int64), np.ones(len(truth), bool)
    for index in np.argsort(-found.scores, kind="stable"):
        left = np.where(free, overlap[index], -1)
        best = int(left.argmax()) if len(left) else -1
        if best >= 0 and left[best] >= least:
            own[index], free[best] = best, False
    return own


def differences(truth: Sequence[Detections], found: Sequence[Detections]) -> dict[str, Any]:
    """Of the boxes that both have, and how many only one has."""
    boxes, scores, missing, extra = [], [], [], []
    for one, other in zip(truth, found, strict=True):
        own = matches(one, other, MATCHED_IOU)
        both = np.flatnonzero(own >= 0)
        boxes += np.abs(other.boxes[both] - one.boxes[own[both]]).max(axis=1, initial=0).tolist()
        scores += np.abs(other.scores[both] - one.scores[own[both]]).tolist()
        missing += np.delete(one.scores, own[both]).tolist()
        extra += other.scores[own < 0].tolist()
    return {
        "boxes": sum(map(len, truth)),
        "boxes_of_other": sum(map(len, found)),
        "matched": len(boxes),
        "missing": len(missing),
        "highest_missing_score": max(missing, default=None),
        "extra": len(extra),
        "highest_extra_score": max(extra, default=None),
        "largest_box_difference_px": max(boxes, default=None),
        "median_box_difference_px": float(np.median(boxes)) if boxes else None,
        "largest_score_difference": max(scores, default=None),
    }


def mean_precision(truth: Sequence[Detections], found: Sequence[Detections]) -> dict[str, float]:
    """Mean average precision at IoU 0.5, and that over 0.5 to 0.95, of all classes that ``truth`` has."""
    names = sorted({int(name) for one in truth for name in one.classes})
    if not names:
        raise ValueError("there is not one box to compare; are the model's weights random?")
    table = [[precision(truth, found, name, least) for name in names] for least in THRESHOLDS]
    return {"map50": float(np.mean(table[0])), "map50_95": float(np.mean(table)), "classes": len(names)}


def precision(truth: Sequence[Detections], found: Sequence[Detections], name: int, least: float) -> float:
    """Average precision of one class: the area under precision that never rises with recall."""
    total, rows = 0, []
    for one, other in zip(truth, found, strict=True):
        one, other = (each.take(np.flatnonzero(each.classes == name)) for each in (one, other))
        total += len(one)
        rows += list(zip(other.scores.tolist(), (matches(one, other, least) >= 0).tolist(), strict=True))
    hits = np.cumsum([hit for _, hit in sorted(rows, key=lambda row: -row[0])])
    if not len(hits):
        return 0.0
    exact = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(hits / total, prepend=0) * exact))


def save(path: Path, images: Sequence[Array], confidence: float, answers: Mapping[str, Sequence[Detections]]) -> None:
    """Windows, and what each runtime found in them."""
    arrays: dict[str, Array] = {"windows": np.stack(images), "confidence": np.array(confidence)}
    for name, found in answers.items():
        arrays[f"{name} counts"] = np.array([len(one) for one in found])
        for what in ("boxes", "scores", "classes"):
            arrays[f"{name} {what}"] = np.concatenate([getattr(one, what) for one in found])
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def saved(path: Path) -> tuple[list[Array], float, dict[str, list[Detections]]]:
    """What :func:`save` wrote."""
    with np.load(path) as arrays:
        answers = {}
        for name in [key.removesuffix(" counts") for key in arrays if key.endswith(" counts")]:
            borders = np.cumsum(arrays[f"{name} counts"])[:-1]
            parts = [np.split(arrays[f"{name} {what}"], borders) for what in ("boxes", "scores", "classes")]
            answers[name] = [Detections(boxes=b, scores=s, classes=c) for b, s, c in zip(*parts, strict=True)]
        return list(arrays["windows"]), float(arrays["confidence"]), answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved", type=Path)
    parser.add_argument("--model", required=True, help="as redline names it")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    from redline.opening.opening import open_any

    images, confidence, answers = saved(args.saved)
    opened = open_any(args.model)
    try:
        detector = Detector(opened.session, opened.usage, confidence=confidence)
        torch = [detector([image])[0] for image in images]
    finally:
        opened.session.close()
    document = {
        "benchmark": "gpu_agreement",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint()),
        "saved_sha256": sha256_of(args.saved),
        "model": args.model,
        "windows": len(images),
        "confidence": confidence,
        **{f"{name} against PyTorch": differences(torch, found) for name, found in answers.items()},
    }
    print(json.dumps(document, indent=1))
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
