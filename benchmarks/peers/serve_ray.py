"""The same model behind Ray Serve, as its documentation shows it.

python serve_ray.py MODEL.onnx PORT REPLICAS
"""

from __future__ import annotations

import io
import signal
import sys

import numpy as np
import orjson
import ray
from PIL import Image
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


@serve.deployment(num_replicas=int(sys.argv[3]), max_ongoing_requests=32, ray_actor_options={"num_cpus": 0.5})
class Model:
    """Three forms of a request, one session."""

    def __init__(self, path: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.url.path == "/json":
            tensor = orjson.loads(body)["inputs"][0]
            x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        elif request.url.path == "/binary":
            length = int(request.headers["inference-header-content-length"])
            x = np.frombuffer(body, np.float32, offset=length).reshape(
                orjson.loads(body[:length])["inputs"][0]["shape"]
            )
        elif request.url.path == "/jpeg":
            image = Image.open(io.BytesIO(body)).convert("RGB")
            side = 256 / min(image.size)
            image = image.resize((round(image.width * side), round(image.height * side)), Image.Resampling.BILINEAR)
            left, top = (image.width - 224) // 2, (image.height - 224) // 2
            pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1) / 255
            x = ((pixels - MEAN) / STD)[None]
        else:
            return Response(b"")
        found = self.session.run([self.output], {self.input: x})[0]
        answer = {"outputs": [{"shape": found.shape, "data": found.ravel()}]}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


ray.init(include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(Model.bind(sys.argv[1]), name="model", route_prefix="/")
signal.sigwait({signal.SIGTERM, signal.SIGINT})
serve.shutdown()
