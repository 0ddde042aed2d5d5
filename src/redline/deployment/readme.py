"""The README of a model repository: how to run it and how to ask it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from redline.deployment.kubernetes import PORT, Workload, render
from redline.deployment.triton import TritonModel, warm_up_shapes

HEADING = "# A model repository of Redline\n"


def readme(models: Mapping[str, Sequence[int]], shown: TritonModel, workload: Workload) -> str:
    """The text.

    Args:
        models: Every model that is in there, with its versions.
        shown: The one that the examples ask.
        workload: What the Dockerfile and the manifests run.
    """
    return render("README.md", workload, heading=HEADING, models=models, shown=shown, ask=_ask(shown))


def _ask(model: TritonModel) -> str:
    """A request of zeros in the raw form of the protocol, where a model has one input of a known size."""
    shapes = warm_up_shapes(model)
    if shapes is None or len(model.signature.inputs) != 1 or model.signature.inputs[0].numpy_dtype.kind in "OUS":
        return ""
    spec = model.signature.inputs[0]
    size = math.prod(shapes[spec.name]) * spec.numpy_dtype.itemsize
    return (
        f"\n# One row of zeros for {spec.name!r}, {size} bytes; the answer's sizes and types are in its first line\n"
        f"head -c {size} /dev/zero | curl -fsS -H 'Content-Type: application/octet-stream' \\\n"
        "    -H 'Inference-Header-Content-Length: 0' --data-binary @- -o answer.bin \\\n"
        f"    localhost:{PORT}/v2/models/{model.name}/infer"
    )
