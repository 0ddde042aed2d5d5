"""SAHI's postprocessing of given boxes, in an environment that has sahi: what it leaves, or how long it takes.

    .peers/sahi/bin/python benchmarks/peers/with_sahi_merge.py boxes.npz --post-process nms IOU 0.4 --out left.npz

boxes.npz has boxes (n, 4) and scores (n,). With --arrays only the function on arrays is run, without SAHI's objects
for each prediction, and a line of JSON says how long it took: the shortest that SAHI can be.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import sahi
from sahi.postprocess import combine
from sahi.prediction import ObjectPrediction
from timed_call import timed_call

CLASSES = {"nms": combine.NMSPostprocess, "greedy_nmm": combine.GreedyNMMPostprocess}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boxes", type=Path)
    parser.add_argument("--post-process", nargs=3, metavar=("NAME", "METRIC", "THRESHOLD"), required=True)
    parser.add_argument("--arrays", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with np.load(args.boxes) as arrays:
        boxes, scores = arrays["boxes"], arrays["scores"]
    name, metric, threshold = args.post_process
    if args.arrays:
        print(json.dumps(timed(boxes, scores, name, metric, float(threshold))))
        return 0
    process = CLASSES[name](match_threshold=float(threshold), match_metric=metric, class_agnostic=False)
    left = process(
        [
            ObjectPrediction(bbox=box, score=score, category_id=0, category_name="cell")
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        ]
    )
    np.savez(
        args.out,
        boxes=np.array([one.bbox.to_xyxy() for one in left], np.float64),
        scores=np.array([one.score.value for one in left], np.float32),
    )
    return 0


def timed(boxes: np.ndarray, scores: np.ndarray, name: str, metric: str, threshold: float) -> dict[str, object]:
    function = {"nms": combine.nms, "greedy_nmm": combine.greedy_nmm}[name]
    given = np.concatenate([boxes, scores[:, None], np.zeros((len(boxes), 1))], axis=1).astype(np.float32)
    function(given[:500], metric, threshold)
    return {**timed_call(lambda: function(given, metric, threshold)), "version": sahi.__version__}


if __name__ == "__main__":
    sys.exit(main())
