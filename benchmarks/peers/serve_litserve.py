"""The same model behind LitServe, as its documentation shows it.

python serve_litserve.py MODEL.onnx PORT WORKERS
"""

import io
import sys

import litserve as ls
import numpy as np
import onnxruntime as ort
from fastapi import Request
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


class Model(ls.LitAPI):
    """Three forms of a request, one session."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def decode_request(self, request: Request) -> np.ndarray:  # what comes is its JSON or its form
        if "inputs" in request:
            tensor = request["inputs"][0]
            return np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        if "tensor" in request:
            data = np.frombuffer(request["tensor"].file.read(), np.float32)
            return data.reshape(1, *self.session.get_inputs()[0].shape[1:])
        image = Image.open(io.BytesIO(request["image"].file.read())).convert("RGB")
        side = 256 / min(image.size)
        image = image.resize((round(image.width * side), round(image.height * side)), Image.Resampling.BILINEAR)
        x, y = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((x, y, x + 224, y + 224)), np.float32).transpose(2, 0, 1) / 255
        return ((pixels - MEAN) / STD)[None]

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run([self.output], {self.input: x})[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"outputs": [{"shape": list(output.shape), "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    server = ls.LitServer(Model(), accelerator="cpu", workers_per_device=int(sys.argv[3]), timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
