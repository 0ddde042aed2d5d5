"""SAHI's sliced prediction of a picture in memory by a YOLOv8-style ONNX model, in an environment that has sahi.

    .peers/sahi_ultralytics/bin/python benchmarks/peers/with_sahi_slices.py picture.npy model.onnx --overlap 0.2
    .peers/sahi/bin/python benchmarks/peers/with_sahi_slices.py picture.npy model.onnx --by onnxruntime
    python benchmarks/peers/with_sahi_slices.py picture.npy model.engine --by scale --batch 32

SAHI's own class for ONNX files goes through Ultralytics (AGPL-3.0: installed apart, nothing of it is copied). With
`--by onnxruntime` a class of ours calls ONNX Runtime directly and decodes with NumPy, the least that such a class can
do: what SAHI itself costs. `--by scale` calls a model as `scale` opens it, a TensorRT engine too, with all of its
decoding; SAHI and Redline share an environment then. Only slicing, inference, merging and their objects are timed, not
loading the picture, which must fit into memory. A line of JSON says how long it took.

torchvision's wheel is built for CUDA and does not load beside a CPU build of torch unless operators that are not called
here are declared; Ultralytics' own suppression, which is what it takes without torchvision, stands in for one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import sahi
from sahi import AutoDetectionModel
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction


class OnnxYolo(DetectionModel):
    """A YOLOv8-style model, whose square input is as large as the slices."""

    iou = 0.7
    threads = 0

    def load_model(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.model = onnxruntime.InferenceSession(self.model_path, options, providers=["CPUExecutionProvider"])
        self.input_name = self.model.get_inputs()[0].name

    def perform_inference(self, image: np.ndarray) -> None:
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        batch = np.stack([image.transpose(2, 0, 1) for image in images]).astype(np.float32) / 255
        outputs = self.model.run(None, {self.input_name: batch})[0]
        self._original_shapes = [image.shape for image in images]
        self._original_predictions = [self._decoded(output) for output in outputs]

    def _decoded(self, output: np.ndarray) -> np.ndarray:
        classes = output[4:].argmax(axis=0)
        scores = output[4:].max(axis=0)
        keep = np.flatnonzero(scores > self.confidence_threshold)
        x, y, width, height = output[:4, keep]
        boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
        chosen = suppressed(boxes + classes[keep][:, None] * 7680.0, scores[keep], self.iou)
        return np.concatenate([boxes, scores[keep][:, None], classes[keep][:, None]], axis=1)[chosen]

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: list | None = None, full_shape_list: list | None = None
    ) -> None:
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=row[:4].clip(0).tolist(),
                    score=float(row[4]),
                    category_id=int(row[5]),
                    category_name=str(int(row[5])),
                    shift_amount=list(shift),
                    full_shape=list(full),
                )
                for row in rows
                if row[2] > max(row[0], 0) and row[3] > max(row[1], 0)
            ]
            for rows, shift, full in zip(self._original_predictions, shift_amount_list, full_shape_list, strict=True)
        ]


class OpenedByScale(OnnxYolo):
    """Whatever `scale` can open."""

    window = 640
    classes = 0

    def load_model(self) -> None:
        from scale.models.opening import open_model
        from scale.models.spec import ModelSpec

        spec = ModelSpec(
            name="m",
            path=Path(self.model_path),
            window_px=self.window,
            confidence=self.confidence_threshold,
            class_names={number: f"class {number}" for number in range(self.classes)},
        )
        self.model = open_model(spec, threads=self.threads)

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        self._original_shapes = [image.shape for image in images]
        self._original_predictions = [
            np.concatenate([found.boxes, found.scores[:, None], found.classes[:, None]], axis=1)
            for found in self.model(images)
        ]


def by_ultralytics(args: argparse.Namespace) -> DetectionModel:
    """SAHI's own class, as its documentation opens an ONNX file."""
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true")
    import torch

    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
    from ultralytics.utils.nms import TorchNMS

    torchvision.ops = SimpleNamespace(nms=TorchNMS.nms)
    if args.threads:
        torch.set_num_threads(args.threads)
    return AutoDetectionModel.from_pretrained(
        model_type="ultralytics",
        model_path=args.model,
        task="detect",
        confidence_threshold=args.confidence,
        device="cpu",
        image_size=args.window,
    )


def suppressed(boxes: np.ndarray, scores: np.ndarray, iou: float) -> list[int]:
    order, kept = np.argsort(-scores, kind="stable"), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    while len(order) and len(kept) < 300:
        best, order = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = sides.clip(0).prod(axis=1)
        order = order[shared <= iou * (areas[best] + areas[order] - shared)]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("model")
    parser.add_argument("--window", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--confidence", type=float, default=0.25)
    parser.add_argument("--classes", type=int, default=0, help="of a model whose file names none; for --by scale")
    parser.add_argument("--by", choices=("ultralytics", "onnxruntime", "scale"), default="ultralytics")
    args = parser.parse_args()
    picture = np.load(args.picture)
    OnnxYolo.threads, OpenedByScale.window = args.threads, args.window
    OpenedByScale.classes = args.classes
    if args.by == "ultralytics":
        model = by_ultralytics(args)
    else:
        kind = OnnxYolo if args.by == "onnxruntime" else OpenedByScale
        model = kind(model_path=args.model, device="cpu", confidence_threshold=args.confidence)
    model.perform_batch_inference([picture[: args.window, : args.window]] * args.batch)
    start = time.perf_counter()
    result = get_sliced_prediction(
        picture,
        model,
        slice_height=args.window,
        slice_width=args.window,
        overlap_height_ratio=args.overlap,
        overlap_width_ratio=args.overlap,
        perform_standard_pred=False,
        batch_size=args.batch,
        verbose=0,
    )
    seconds = time.perf_counter() - start
    step = args.window - int(args.overlap * args.window)
    rows, columns = (max(1, -(-(side - args.window) // step) + 1) for side in picture.shape[:2])
    document = {
        "windows": rows * columns,
        "seconds": seconds,
        "detections": len(result.object_prediction_list),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "version": sahi.__version__,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
