"""Do detections here equal Ultralytics'? The same ONNX files and real images through both, box by box.

Run it with the Python of an environment that has ultralytics (AGPL-3.0, which Redline does not need):

    PYTHONPATH=src python benchmarks/ultralytics_parity.py [IMAGE ...] [--out results/cpu/ultralytics_parity.json]

Models are made from Ultralytics' own descriptions with random weights, their normalization fitted to the images and
their heads strengthened, so that every image has hundreds of boxes that overlap, of many classes: far more than a
trained model gives, and so far more to disagree on. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch

from redline.detection.detector import Detector
from redline.detection.letterbox import letterbox, placement_of, points_to_source
from redline.formats.onnx_file import read_onnx

MODELS = ("yolov8n", "yolov5n", "yolo11n", "yolo12n", "yolov8n-seg", "yolo11n-seg", "yolov10n", "yolo26n-seg")
SIZE_PX = 640
IOU = 0.7
SEED = 0
PHOTOS = Path(__file__).parents[1] / "src" / "redline" / "data" / "assets" / "photos"
# Of the photos that ship, shapes are changed so that padding lies on either side, and on none.
CROPS = ((0, 0, 1.0, 1.0), (0.1, 0.0, 0.6, 1.0), (0.0, 0.2, 1.0, 0.45))


class PlainSession:
    """ONNX Runtime with its defaults, as Ultralytics uses it."""

    def __init__(self, path: Path) -> None:
        self.signature = read_onnx(path).signature
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, inputs: dict[str, Any], /) -> dict[str, Any]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def close(self) -> None:
        pass


def images_of(paths: list[Path]) -> dict[str, np.ndarray]:
    """RGB arrays by name: some that ship, and those that were named."""
    found: dict[str, np.ndarray] = {}
    for path in [*sorted(PHOTOS.glob("*.jpg"))[::70], *paths]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            continue
        height, width = image.shape[:2]
        for at, (x, y, wide, high) in enumerate(CROPS):
            part = image[int(y * height) : int((y + high) * height), int(x * width) : int((x + wide) * width)]
            found[f"{path.name}#{at}"] = np.ascontiguousarray(part[:, :, ::-1])
    return found


def random_model(name: str, images: list[np.ndarray]) -> Any:
    """A model of Ultralytics' own class, of random weights, whose answers depend on the image."""
    from ultralytics import YOLO

    torch.manual_seed(SEED)
    model = YOLO(f"{name}.yaml", verbose=False)
    network = model.model
    batch = torch.from_numpy(np.stack([letterbox(image, (SIZE_PX, SIZE_PX)) for image in images])).permute(0, 3, 1, 2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        network.train()
        network(batch.float() / 255)
        network.eval()
        head = network.model[-1]
        for branch in ("cv3", "one2one_cv3"):
            for level in getattr(head, branch, None) or ():
                last = level[-1]
                last.weight.mul_(1.0 / max(float(last.weight.std()) * last.weight[0].numel() ** 0.5, 1e-6))
                last.bias.fill_(-3.0)
        for branch in ("cv2", "one2one_cv2", "cv4", "one2one_cv4"):
            for level in getattr(head, branch, None) or ():
                level[-1].weight.mul_(4.0)
        # Scores of exactly 1 would leave open which box is the better one.
        while best_scores(network, batch.float() / 255).quantile(0.95) > 0.8:
            for branch in ("cv3", "one2one_cv3"):
                for level in getattr(head, branch, None) or ():
                    level[-1].weight.mul_(0.7)
    return model


def make_model(name: str, images: list[np.ndarray], folder: Path) -> Path:
    """Export a model of random weights."""
    model = random_model(name, images)
    previous = Path.cwd()
    os.chdir(folder)  # it writes beside a file that does not exist
    try:
        exported = model.export(
            format="onnx", imgsz=SIZE_PX, simplify=False, dynamic=False, opset=17, verbose=False,
            nms=False if hasattr(model.model.model[-1], "one2one_cv2") else None,
        )  # fmt: skip
    finally:
        os.chdir(previous)
    return (folder / exported).resolve()


def best_scores(network: Any, batch: torch.Tensor) -> torch.Tensor:
    """The score of the best class of every box of a few images."""
    answers = network(batch)[0]
    answers = answers[0] if isinstance(answers, tuple) else answers
    return (answers[..., 4] if answers.shape[-1] in (6, 38) else answers[:, 4:84].amax(1)).flatten()


def threshold_for(detector: Detector, images: list[np.ndarray]) -> float:
    """A confidence above which the images have some 500 candidates each, between two scores so that none is at it."""
    scores = []
    for image in images:
        prepared = detector.prepare([image])
        outputs = detector.run(prepared)
        values = next(array for array in outputs.values() if array.ndim == 3)[0]
        best = values[:, 4] if values.shape[1] in (6, 38) else values[4:84].max(axis=0)
        scores.append(np.sort(best)[::-1][:500][-1])
    return float(np.median(scores))


def compare_letterbox(seed: int, count: int) -> dict[str, Any]:
    """The largest difference of a pixel over images of random sizes and of noise."""
    from ultralytics.data.augment import LetterBox

    rng = np.random.default_rng(seed)
    worst, shapes = 0, 0
    for _ in range(count):
        image = rng.integers(0, 256, (*rng.integers(3, 1400, 2), 3), dtype=np.uint8)
        size = (32 * int(rng.integers(2, 30)), 32 * int(rng.integers(2, 30)))
        theirs = LetterBox(size, auto=False, scaleup=True)(image=image)
        ours = letterbox(image, size)
        if theirs.shape != ours.shape:
            shapes += 1
            continue
        worst = max(worst, int(np.abs(theirs.astype(np.int16) - ours).max()))
    return {"images": count, "other_shapes": shapes, "largest_difference": worst}


def sorted_rows(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Rows of score, class and box in one order, whatever order they came in."""
    rows = np.concatenate([scores[:, None], classes[:, None], boxes], axis=1).astype(np.float64)
    return rows[np.lexsort(rows.T[::-1])]


def point_difference(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """The largest difference of a coordinate; none where theirs is no ring, infinite where the points are others."""
    if len(theirs) < 3:
        return None
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The outline of the largest part of a mask."""
    contours = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    return max(contours, key=cv2.contourArea).reshape(-1, 2).astype(np.float32)


def lend_suppression() -> str:
    """Where torchvision is a husk without operators, Ultralytics' own suppression, which equals it, stands in."""
    import torchvision
    from ultralytics.utils.nms import TorchNMS

    if hasattr(torchvision, "ops"):
        return f"torchvision {torchvision.__version__}"
    torchvision.ops = SimpleNamespace(nms=TorchNMS.nms)
    return "ultralytics' own"


def compare(path: Path, images: dict[str, np.ndarray]) -> dict[str, Any]:
    """One model on every image through both."""
    from ultralytics import YOLO

    usage = read_onnx(path).usage
    session = PlainSession(path)
    confidence = threshold_for(Detector(session, usage), list(images.values()))
    detector = Detector(session, usage, confidence=confidence, iou=IOU)
    theirs = YOLO(str(path), task=detector.task)
    outputs = [list(spec.shape) for spec in session.signature.outputs]
    found: dict[str, Any] = {
        "task": detector.task, "outputs": outputs, "confidence": confidence, "images": len(images)
    }  # fmt: skip
    boxes, other_counts, worst_px, worst_score = 0, 0, 0.0, 0.0
    differences: list[float | None] = []
    for image in images.values():
        ours = detector([image])[0]
        (result,) = theirs.predict(
            np.ascontiguousarray(image[:, :, ::-1]),
            conf=confidence, iou=IOU, imgsz=SIZE_PX, device="cpu", verbose=False, save=False,
        )  # fmt: skip
        told = result.boxes
        right = sorted_rows(told.xyxy.numpy(), told.conf.numpy(), told.cls.numpy())
        got = sorted_rows(ours.boxes, ours.scores, ours.classes)
        boxes += len(right)
        if len(got) != len(right) or not np.array_equal(got[:, 1], right[:, 1]):
            other_counts += 1
            continue
        if len(right):
            worst_px = max(worst_px, float(np.abs(got[:, 2:] - right[:, 2:]).max()))
            worst_score = max(worst_score, float(np.abs(got[:, 0] - right[:, 0]).max()))
        if ours.polygons is not None and result.masks is not None:
            for ring, mask in zip(ours.polygons.rings(), result.masks.data.numpy(), strict=True):
                place = placement_of(image.shape[:2], (SIZE_PX, SIZE_PX))
                points = largest_part(mask)
                right = points_to_source(points, [place], np.zeros(len(points), np.int64))  # within the image, as ours
                differences.append(point_difference(ring, right))
    found |= {
        "boxes": boxes,
        "images_with_other_boxes": other_counts,
        "largest_box_difference_px": worst_px,
        "largest_score_difference": worst_score,
    }
    if differences:
        told_px = [one for one in differences if one is not None]
        found["polygons"] = {
            "count": len(told_px),
            "with_other_points": sum(one == float("inf") for one in told_px),
            "largest_point_difference_px": max((one for one in told_px if one != float("inf")), default=0.0),
            "less_than_three_points_there": len(differences) - len(told_px),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    images = images_of(told.images)
    document: dict[str, Any] = {
        "about": "the same ONNX files and images through Ultralytics' predict and through redline.detection",
        "conditions": {
            "packages": {name: metadata.version(name) for name in ("ultralytics", "torch", "onnxruntime", "numpy")}
            | {"opencv": cv2.__version__},
            "machine": platform.processor() or platform.machine(),
            "images": {name: list(image.shape[:2]) for name, image in images.items()},
            "weights": "random, normalization fitted to the images",
            "suppression": lend_suppression(),
            "iou": IOU,
            "seed": SEED,
        },
        "letterbox": compare_letterbox(SEED, 200),
        "models": {},
    }
    print("letterbox", document["letterbox"])
    with tempfile.TemporaryDirectory() as folder:
        for name in told.models:
            path = make_model(name, list(images.values()), Path(folder))
            document["models"][name] = compare(path, images)
            print(name, document["models"][name], flush=True)
    if told.out:
        told.out.parent.mkdir(parents=True, exist_ok=True)
        told.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
