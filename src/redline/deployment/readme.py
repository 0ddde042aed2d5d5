"""The README of a model repository: how to run it and how to ask it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from redline.deployment.kubernetes import PORT, TRITON_IMAGE, Workload
from redline.deployment.triton import TritonModel, warm_up_shapes

HEADING = "# A model repository of Redline\n"


def readme(repository: Path, models: Mapping[str, Sequence[int]], shown: TritonModel, workload: Workload) -> str:
    """The text.

    Args:
        repository: Its folder.
        models: Every model that is in there, with its versions.
        shown: The one that the examples ask.
        workload: What the Dockerfile and the manifests run.
    """
    gpus = " --gpus all" if workload.gpus else ""
    rows = "".join(f"| `{name}` | {', '.join(str(one) for one in versions)} |\n" for name, versions in models.items())
    return _TEXT.format(
        heading=HEADING,
        rows=rows,
        triton=TRITON_IMAGE,
        gpus=gpus,
        port=PORT,
        python=_PYTHON if shown.backend == "python" else "",
        own=_OWN.format(name=workload.name, port=PORT) if workload.server == "redline" else "",
        name=shown.name,
        ask=_ask(shown),
        folder=repository.resolve().name,
    )


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


_TEXT = """\
{heading}
| model | versions |
|---|---|
{rows}
Each model has a `config.pbtxt` (batching, instances, warm-up: yours to edit) and a folder for each version. Triton
serves the newest. `redline.json` in a version says where it came from; Triton ignores it.

## Run it in Triton

```bash
docker run --rm{gpus} -p {port}:{port} -v "$PWD":/models:ro {triton} \\
    tritonserver --model-repository=/models
```
{python}{own}
## Ask it

```bash
curl -fsS localhost:{port}/v2/health/ready
curl -fsS localhost:{port}/v2/models/{name}{ask}
```
"""

_PYTHON = """
The models with a `model.py` run in Triton's Python backend. Its Python needs two packages:

```dockerfile
FROM nvcr.io/nvidia/tritonserver:26.09-py3
RUN pip install numpy onnxruntime
```
"""

_OWN = """
## Run it with Redline's own server

```bash
redline serve . --port {port}
```

The same protocol, and pages, limits and metrics of its own. `Dockerfile`, where it is there, builds that server with
these models in it: `docker build -t {name}:1 .`
"""
