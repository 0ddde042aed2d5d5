"""What a careful tutorial's server looks like: Flask, orjson, one ONNX Runtime session, waitress.

python serve_plain.py MODEL.onnx PORT THREADS
"""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import onnxruntime as ort
import orjson
import waitress
from flask import Flask, Response, request
from PIL import Image

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
INPUT, OUTPUT = session.get_inputs()[0].name, session.get_outputs()[0].name
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
app = Flask(__name__)


@app.get("/ready")
def ready() -> str:
    return ""


@app.post("/json")
def as_json() -> Response:
    tensor = orjson.loads(request.get_data())["inputs"][0]
    array = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    found = session.run([OUTPUT], {INPUT: array})[0]
    output = {"name": OUTPUT, "shape": found.shape, "datatype": "FP32", "data": found.ravel()}
    return Response(orjson.dumps({"outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY), mimetype="application/json")


@app.post("/binary")
def binary() -> Response:
    body = request.get_data()
    length = int(request.headers["Inference-Header-Content-Length"])
    tensor = orjson.loads(body[:length])["inputs"][0]
    array = np.frombuffer(body, np.float32, offset=length).reshape(tensor["shape"])
    found = session.run([OUTPUT], {INPUT: array})[0]
    output = {"name": OUTPUT, "shape": list(found.shape), "datatype": "FP32"}
    head = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": found.nbytes}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Response(head + found.tobytes(), headers=headers, mimetype="application/octet-stream")


@app.post("/jpeg")
def jpeg() -> Response:
    image = Image.open(io.BytesIO(request.get_data())).convert("RGB")
    side = 256 / min(image.size)
    image = image.resize((round(image.width * side), round(image.height * side)), Image.Resampling.BILINEAR)
    x, y = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((x, y, x + 224, y + 224)), np.float32).transpose(2, 0, 1) / 255
    scores = session.run([OUTPUT], {INPUT: ((pixels - MEAN) / STD)[None]})[0][0]
    best = np.argsort(-scores)[:5]
    answer = {"top": [{"class": int(i), "score": float(scores[i])} for i in best]}
    return Response(orjson.dumps(answer), mimetype="application/json")


waitress.serve(app, host="127.0.0.1", port=int(sys.argv[2]), threads=int(sys.argv[3]), inbuf_overflow=64 << 20)
