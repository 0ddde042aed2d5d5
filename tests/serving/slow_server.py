"""A server as a process of its own, whose model adds 1 and takes as long as it is told; tests signal and attack it.

python slow_server.py RUNNER SECONDS RUNS DRAIN_DELAY_S LIMITS_AS_JSON
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.app import create_app
from redline.serving.core import Server
from redline.serving.limits import Limits
from redline.serving.models import Loaded, Models, ModelSource, Settings
from redline.serving.runners import Listening, choose, serve_on


def main(runner: str, seconds: str, runs: str, drain_delay_s: str, limits_json: str) -> None:
    limits = Limits(**json.loads(limits_json))

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].any():  # warming up is done with zeros
            time.sleep(float(seconds))
        return {"y": inputs["x"] + 1}

    def opener(path: Path) -> Loaded:
        signature = Signature((TensorSpec("x", ("n", 2), "float32"),), (TensorSpec("y", ("n", 2), "float32"),))
        return Loaded(
            runs=(run,) * int(runs), signature=signature, precision="fp32", backend="fake", platform="redline",
            size_bytes=1, close=lambda: None,
        )  # fmt: skip

    models = Models(opener, Settings(batching=None, queue=limits.queue))
    models.add(ModelSource(name="m", versions={"1": Path("m.onnx")}))
    server = Server(models, limits=limits)
    done = serve_on(
        choose(runner),  # type: ignore[arg-type]
        create_app(server),
        server,
        Listening("127.0.0.1", 0),
        limits=limits,
        drain_delay_s=float(drain_delay_s),
        on_ready=lambda url: print(url, flush=True),
    )
    sys.stdout.flush()
    if not done:
        os._exit(9)  # a model still runs
    models.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
