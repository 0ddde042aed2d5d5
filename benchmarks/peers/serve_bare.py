"""Bare ONNX Runtime sessions and no server: calls a second of so many threads, one intra-op thread each.

python serve_bare.py MODEL.onnx BATCH,C,H,W THREADS       then a number of seconds on each line of standard input
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
array = np.random.default_rng(0).standard_normal([int(d) for d in sys.argv[2].split(",")]).astype(np.float32)
print("ready", flush=True)
for line in sys.stdin:
    end = time.perf_counter() + float(line)
    counts = [0] * int(sys.argv[3])

    def work(place: int) -> None:
        while time.perf_counter() < end:  # noqa: B023
            session.run(None, {name: array})
            counts[place] += 1  # noqa: B023

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(counts))]
    before, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - before
    print(sum(counts), seconds, time.process_time() - cpu, flush=True)
