"""Does `scale` find the same with PyTorch, ONNX Runtime and OpenVINO? One model, windows of a real slide, box by box.

Each model is opened as `scale` opens it: a `.pt` file by PyTorch, its ONNX export by ONNX Runtime and, where it is
installed, by OpenVINO, all on the CPU. Two kinds of models:

- Ultralytics' (AGPL-3.0, which Redline does not need), of random weights that `ultralytics_parity.py` makes: hundreds
  of boxes a window that overlap, of many classes; saved and exported by Ultralytics. A dual head is opened and
  exported by Ultralytics' default as one that wants suppression; `yolov10n, end to end` was saved with its other head
  alone. Run it with the Python of an environment that has ultralytics, or leave it out with `--only ours`.
- Redline's own, from its PyTorch sessions and from the files that `redline export` writes.

    PYTHONPATH=src python benchmarks/runtimes_agree.py [--only ours] [-o results/cpu/runtimes_agree.json]

OpenVINO runs twice: in FP32, and by its default, which is what `scale` opens and which is BF16 where the processor has
it; the precision is read from what it compiled, and a pair that is not FP32 on both sides is shown and not judged. Of
Redline's own, ONNX Runtime also runs the file that Redline makes in FP16.

A pair agrees where each has the other's boxes, with their scores and outlines, within the tolerance. Boxes that one
alone has are counted, and how many of these are ties: with a score within the tolerance of the threshold, of the last
of a full list, or of a box of the other's that suppression takes to be the same object. Where all scores of a model
lie nearly that close together, as those of `yolo_n` do, every such box is one. Ends with 1 where a judged pair does
not agree, ties or not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import gpu_agreement
import numpy as np
from ultralytics_parity import random_model, threshold_for

import redline
import scale
from redline.backends import load_backend
from redline.commands.export import export
from redline.core.artifact import OnnxModel
from redline.core.files import sha256_of, write_whole
from redline.core.plain import to_plain
from redline.core.tensor import Array
from redline.detection.detector import Detector
from redline.detection.nms import MAX_DETECTIONS
from redline.detection.results import Detections
from redline.formats.onnx_file import read_onnx
from redline.measurement.environment import fingerprint, installed
from redline.opening.opening import open_any
from redline.opening.sessions import open_onnx
from redline.transforms.half import to_half
from scale.models.loaded import OpenModel
from scale.models.opening import open_model
from scale.models.spec import ModelSpec
from scale.regions.grid import Grid, Region
from scale.slides.opening import open_slide

SLIDE = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"
KINDS = ("yolov5nu", "yolov8n", "yolo11n", "yolov8n-seg", "yolo11n-seg", "yolov10n", "yolov10n, end to end")
# With their confidence; None takes one that hundreds of boxes of a window are above.
OWN = {"nuclei": 0.25, "yolo_n": None}
HALF = "onnxruntime-fp16"
OPENVINO = {"openvino-fp32": {"precision": "f32"}, "openvino-default": {}}
BATCH = 4
WINDOW_PX = 640
IOU = 0.7
TOLERANCE = {"box_px": 0.01, "score": 1e-4, "outline_iou": 0.99}
# Boxes that share this much are one that was rounded differently; less, and each is counted as only one's.
SAME_IOU = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What every runtime found with one model: by runtime, for each window."""

    window_px: int
    confidence: float
    precision: dict[str, str]
    found: dict[str, list[Detections]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("ultralytics", "ours"))
    parser.add_argument("--kinds", nargs="*", default=KINDS, help="Of Ultralytics' models.")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    models: dict[str, Any] = {}
    for name in () if args.only == "ours" else args.kinds:
        models[name] = told(name, ultralytics_found(name))
    for name in () if args.only == "ultralytics" else OWN:
        models[name] = told(name, own_found(name))
    document = {
        "benchmark": "runtimes_agree",
        "command": "python benchmarks/runtimes_agree.py",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint()),
        "packages": installed(("ultralytics", "torch", "onnxruntime", "openvino", "numpy", "opencv-python-headless")),
        "settings": {
            "slide": {"name": SLIDE.name, "sha256": sha256_of(SLIDE)},
            "iou": IOU,
            "tolerance": TOLERANCE,
        },
        "models": models,
        "conclusion": {
            "ultralytics": conclude([model for name, model in models.items() if name not in OWN]),
            "ours": conclude([model for name, model in models.items() if name in OWN]),
        },
    }
    passed = all(part["passed"] for part in document["conclusion"].values() if part)
    print(json.dumps(document["conclusion"], indent=1))
    if args.out:
        write_whole(args.out, compact(document) + "\n")
    return 0 if passed else 1


def told(name: str, answers: Found) -> dict[str, Any]:
    """The pairs of one model in numbers."""
    pairs = {}
    scores = np.concatenate([one.scores for one in answers.found["torch"]])
    for one, other in combinations(answers.found, 2):
        if one in OPENVINO or (one != "torch" and {one, other} & {"openvino-default", HALF}):
            continue
        judged = {answers.precision[one], answers.precision[other]} == {"fp32"}
        pair = compare(answers.found[one], answers.found[other], answers.confidence)
        pairs[f"{one} | {other}"] = {"judged": judged, **pair}
        print(f"{name}: {one} | {other}: {pair}", flush=True)
    return {
        "windows": len(answers.found["torch"]),
        "window_px": answers.window_px,
        "confidence": answers.confidence,
        "scores": [rounded(scores.min()), rounded(scores.max())],
        "precision": answers.precision,
        "pairs": pairs,
    }


def compare(truth: Sequence[Detections], found: Sequence[Detections], confidence: float) -> dict[str, Any]:
    """Two runtimes on the same windows."""
    boxes, scores, outlines = [], [], []
    only, ties = [0, 0], 0
    for one, other in zip(truth, found, strict=True):
        own = gpu_agreement.matches(one, other, SAME_IOU)
        both = np.flatnonzero(own >= 0)
        boxes += np.abs(other.boxes[both] - one.boxes[own[both]]).max(axis=1, initial=0).tolist()
        scores += np.abs(other.scores[both] - one.scores[own[both]]).tolist()
        if one.polygons is not None and other.polygons is not None:
            outlines += [outline_iou(one.polygons.ring(own[at]), other.polygons.ring(at)) for at in both]
        missing = one.take(np.setdiff1d(np.arange(len(one)), own[both]))
        extra = other.take(own < 0)
        only = [only[0] + len(missing), only[1] + len(extra)]
        ties += count_ties(missing, other, confidence) + count_ties(extra, one, confidence)
    numbers = {
        "boxes": [sum(map(len, truth)), sum(map(len, found))],
        "matched": len(boxes),
        "box_difference_px": {"median": rounded(np.median(boxes)), "largest": rounded(max(boxes))},
        "box_beyond": int(np.sum(np.array(boxes) > TOLERANCE["box_px"])),
        "largest_score_difference": rounded(max(scores)),
        "score_beyond": int(np.sum(np.array(scores) > TOLERANCE["score"])),
        "only_one_has": only,
        "of_these_ties": ties,
        "map50": round(gpu_agreement.mean_precision(truth, found)["map50"], 6),
    }
    if outlines:
        below = np.array(outlines) < TOLERANCE["outline_iou"]
        same = int(np.sum(np.array(outlines) == 1))
        numbers["outlines"] = {"same": same, "beyond": int(below.sum()), "lowest_iou": rounded(min(outlines))}
    beyond = numbers["box_beyond"] + numbers["score_beyond"] + sum(only) + numbers.get("outlines", {}).get("beyond", 0)
    return {"agrees": beyond == 0, **numbers}


def count_ties(lonely: Detections, others: Detections, confidence: float) -> int:
    """How many boxes that the others lack are as good as the threshold, or as what the others have instead."""
    if not len(lonely):
        return 0
    near = np.abs(lonely.scores[:, None] - others.scores[None]) <= TOLERANCE["score"]
    same = gpu_agreement.ious(lonely.boxes, others.boxes) > IOU - 1e-3
    instead = (near & same & (lonely.classes[:, None] == others.classes[None])).any(axis=1)
    last = others.scores.min() if len(others) == MAX_DETECTIONS else confidence
    return int(np.sum(instead | (np.abs(lonely.scores - last) <= TOLERANCE["score"])))


def outline_iou(one: Array, other: Array) -> float:
    """Of the pixels that two outlines enclose, their own included."""
    if np.array_equal(one, other):
        return 1.0
    low = np.minimum(one.min(axis=0), other.min(axis=0))
    width, height = (np.maximum(one.max(axis=0), other.max(axis=0)) - low + 2).astype(int).tolist()
    masks = []
    for ring in (one, other):
        mask = np.zeros((height, width), np.uint8)
        masks.append(cv2.fillPoly(mask, [np.rint(ring - low).astype(np.int32)], 1) > 0)
    return float(np.sum(masks[0] & masks[1]) / np.sum(masks[0] | masks[1]))


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def compact(document: dict[str, Any]) -> str:
    """JSON with a line for each pair, so that a person can read it."""
    text = json.dumps(document, indent=1)
    for model in document["models"].values():
        for pair in model["pairs"].values():
            lines = json.dumps(pair, indent=1).replace("\n", "\n    ")
            text = text.replace(lines, json.dumps(pair))
    return text


def conclude(models: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Sums over the pairs that are judged, in which a box counts once for each pair; none without a model."""
    if not models:
        return None
    pairs = [pair for model in models for pair in model["pairs"].values()]
    judged = [pair for pair in pairs if pair["judged"]]
    other = [pair["map50"] for pair in pairs if not pair["judged"]]
    return {
        "pairs": len(judged),
        "pairs_that_agree": sum(pair["agrees"] for pair in judged),
        "boxes_compared": sum(pair["boxes"][0] for pair in judged),
        "box_beyond": sum(pair["box_beyond"] for pair in judged),
        "largest_box_difference_px": max(pair["box_difference_px"]["largest"] for pair in judged),
        "score_beyond": sum(pair["score_beyond"] for pair in judged),
        "largest_score_difference": max(pair["largest_score_difference"] for pair in judged),
        "only_one_has": sum(sum(pair["only_one_has"]) for pair in judged),
        "of_these_ties": sum(pair["of_these_ties"] for pair in judged),
        "outlines_compared": sum(pair["matched"] for pair in judged if "outlines" in pair),
        "outlines_beyond": sum(pair["outlines"]["beyond"] for pair in judged if "outlines" in pair),
        "lowest_map50": min(pair["map50"] for pair in judged),
        "not_judged": {"pairs": len(other), "lowest_map50": min(other, default=None)},
        "passed": all(pair["agrees"] for pair in judged),
    }


def windows_of(side_px: int) -> list[Array]:
    """All windows of the slide that ships, side by side."""
    with open_slide(SLIDE) as slide:
        level = slide.levels[0]
        whole = Region(name="slide", x0=0, y0=0, width_px=level.width_px, height_px=level.height_px)
        grid = Grid(region=whole, window_px=side_px, overlap_px=0)
        return [slide.read(window.x0, window.y0, side_px, side_px) for window in grid]


def ultralytics_found(name: str) -> Found:
    """A model of Ultralytics' in every runtime."""
    images = windows_of(WINDOW_PX)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = ultralytics_files(name, images, Path(folder))
        confidence = threshold_for(opened(files["onnx"], "onnxruntime", stack).detector, images)
        model, found, precision = read_onnx(files["onnx"]), {}, {}
        for runtime in runtimes():
            if runtime == "openvino-default":  # scale itself asks for FP32
                session = open_onnx(model, backend="openvino", options=OPENVINO[runtime])
                stack.callback(session.close)
                found[runtime] = in_slices(Detector(session, model.usage, confidence=confidence, iou=IOU), images)
            else:
                answers = opened(files["torch" if runtime == "torch" else "onnx"], runtime, stack, confidence)
                found[runtime], precision[runtime] = answers(images), answers.precision
        precision |= {name: openvino_precision(model, name) for name in OPENVINO if name in found}
    return Found(window_px=WINDOW_PX, confidence=confidence, precision=precision, found=found)


def opened(path: Path, runtime: str, stack: ExitStack, confidence: float = 0.25) -> OpenModel:
    """The model as `scale` opens it, which is refused where another runtime or file answers."""
    spec = ModelSpec(name=path.stem, path=path, confidence=confidence, iou=IOU, batch=BATCH)
    wanted = runtime.removesuffix("-fp32")
    model = open_model(spec, device="cpu", engine="never", onnx_runtime="auto" if wanted == "torch" else wanted)
    stack.callback(model.close)
    if (model.runtime, model.origin.path) != (wanted, path):
        raise SystemExit(f"{path.name} was opened by {model.runtime}, expected {wanted}: {model.notes}")
    return model


def ultralytics_files(name: str, images: Sequence[Array], folder: Path) -> dict[str, Path]:
    """The `.pt` file and its export, each alone in a folder so that neither stands in for the other."""
    from ultralytics import YOLO

    kind, _, form = name.partition(", ")
    model = random_model(kind.removesuffix("u") if kind == "yolov5nu" else kind, list(images))
    if form == "end to end":
        model.model.end2end = True
        model.model.fuse(verbose=False)  # drops the head that wants suppression
    files = {"torch": folder / "torch" / f"{kind}.pt", "onnx": folder / "onnx" / f"{kind}.onnx"}
    for path in files.values():
        path.parent.mkdir()
    model.save(str(files["torch"]))
    exported = YOLO(str(files["torch"])).export(
        format="onnx", imgsz=WINDOW_PX, simplify=False, dynamic=False, opset=17, device="cpu", verbose=False
    )
    Path(exported).replace(files["onnx"])
    return files


def own_found(name: str) -> Found:
    """A network of Redline's in every runtime."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = export(name, Path(folder) / f"{name}.onnx").model
        torch = open_any(name)
        sessions = {"torch": torch.session, "onnxruntime": open_onnx(model)}
        half = to_half(model, Path(folder) / f"{name}_fp16.onnx")
        sessions |= {one: open_onnx(model, backend="openvino", options=OPENVINO[one]) for one in runtimes()[2:]}
        sessions[HALF] = open_onnx(half)
        for session in sessions.values():
            stack.callback(session.close)
        window_px = model.usage.preprocess.width_px
        images = windows_of(window_px)
        confidence = OWN[name] or threshold_for(Detector(sessions["onnxruntime"], model.usage), images)
        found = {}
        for runtime, session in sessions.items():
            usage = torch.usage if runtime == "torch" else model.usage
            found[runtime] = in_slices(Detector(session, usage, confidence=confidence, iou=IOU), images)
        precision = {"torch": torch.precision, "onnxruntime": model.layers.describe(), HALF: half.layers.describe()}
        precision |= {one: openvino_precision(model, one) for one in runtimes()[2:]}
    return Found(window_px=window_px, confidence=confidence, precision=precision, found=found)


def in_slices(detector: Detector, images: Sequence[Array]) -> list[Detections]:
    return [one for start in range(0, len(images), BATCH) for one in detector(images[start : start + BATCH])]


def runtimes() -> list[str]:
    """Those that are installed; the first is the truth of the pairs that it is in."""
    return ["torch", "onnxruntime", *(OPENVINO if find_spec("openvino") else [])]


def openvino_precision(model: OnnxModel, runtime: str) -> str:
    """What OpenVINO computes most layers in on this processor, as it says itself."""
    with tempfile.TemporaryDirectory() as folder:
        return load_backend("openvino", OPENVINO[runtime]).compile(model, Path(folder)).layers.describe()


if __name__ == "__main__":
    raise SystemExit(main())
