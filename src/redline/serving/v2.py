"""The routes of the Open Inference Protocol: https://github.com/kserve/open-inference-protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import orjson

from redline.core.errors import RedlineError, RequestError
from redline.core.plain import Json, JsonObject
from redline.core.tensor import Array
from redline.serving import protocol
from redline.serving.answers import Call, Reply, empty_reply, json_reply
from redline.serving.image_inputs import ImageInputs
from redline.serving.inference import Asked, Inference, Spent, limits_of
from redline.serving.limits import Limits
from redline.serving.models import Models
from redline.serving.versions import Version

_LONGEST_CONTROL_BYTES = 1 << 16
_log = logging.getLogger(__name__)


class V2:
    """Answers what the protocol defines, less health and who may ask."""

    def __init__(self, models: Models, inference: Inference, images: ImageInputs, limits: Limits) -> None:
        self._models = models
        self._inference = inference
        self._images = images
        self._limits = limits

    def server(self) -> Reply:
        """Which server this is and what it can."""
        return json_reply(protocol.server_metadata())

    def model_ready(self, name: str, version: str | None) -> Reply:
        """200 with nothing where the model answers."""
        self._models.get(name, version)
        return empty_reply()

    def model(self, name: str, version: str | None) -> Reply:
        """What it takes and gives."""
        loaded = self._models.get(name, version).loaded
        versions = self._models.versions(name)
        return json_reply(protocol.model_metadata(name, versions, loaded.platform, loaded.signature))

    def config(self, name: str, version: str | None) -> Reply:
        """How it is run, in the words of Triton's configuration."""
        served = self._models.get(name, version)
        loaded = served.loaded
        most_rows = limits_of(served, self._limits).batch_rows if loaded.signature.dynamic_batch else 0
        return json_reply(
            protocol.model_config(
                name, loaded.platform, loaded.signature, most_rows, served.batching is not None, len(loaded.runs)
            )
        )

    def all_statistics(self) -> Reply:
        """What every version of every model has done."""
        return self._statistics_of(self._models.names)

    def statistics(self, name: str, version: str | None) -> Reply:
        """What one model, or one version of it, has done."""
        served = self._models.get(name, version)
        if version is not None:
            return json_reply({"model_stats": [served.statistics.to_v2()]})
        return self._statistics_of([name])

    def index(self, body: bytes) -> Reply:
        """Every model and version there is, or only what is ready."""
        ready = _control_of(body).get("ready", False)
        if not isinstance(ready, bool):
            raise RequestError("'ready' is no boolean, expected true or false")
        return json_reply([one for one in self._models.index() if not ready or one["state"] == "READY"])

    def load(self, name: str, body: bytes) -> Reply:
        """Load a model, or load it again, from where it was found; nothing in a request says from where."""
        if _control_of(body).get("parameters"):
            raise RequestError("load takes no parameters: a model comes from the server's own files only")
        with _told(f"failed to load '{name}'"):
            self._models.load(name)
        return empty_reply()

    def unload(self, name: str, body: bytes) -> Reply:
        """Stop answering for a model."""
        _control_of(body)
        with _told(f"failed to unload '{name}'"):
            self._models.unload(name)
        return empty_reply()

    def infer(self, call: Call, name: str, version: str | None) -> Reply:
        """Run the model."""
        return self._inference.answer(name, version, lambda served: self._decode(call, served))

    def _statistics_of(self, names: Iterable[str]) -> Reply:
        found = []
        for name in names:
            with suppress(RequestError):  # unloaded since it was listed
                found += [self._models.get(name, version) for version in self._models.versions(name)]
        return json_reply({"model_stats": [served.statistics.to_v2() for served in found]})

    def _decode(self, call: Call, served: Version) -> Asked:
        limits = limits_of(served, self._limits)
        body = protocol.inflate(call.body, call.headers.get("content-encoding"), limits)
        header_length = protocol.header_length_of(call.headers.get("inference-header-content-length"), len(body))
        body, header_length = self._images.replaced(served, body, header_length)
        request = protocol.parse_infer(body, header_length, served.loaded.signature, limits, model=served.name)

        def encode(outputs: Mapping[str, Array], _: Spent) -> Reply:
            encoded = protocol.encode_infer(served.name, served.number, request, outputs, served.loaded.class_names)
            headers = {"Content-Type": encoded.content_type}
            if encoded.header_length is not None:
                headers["Inference-Header-Content-Length"] = str(encoded.header_length)
            return Reply(status=200, headers=headers, body=encoded.body)

        return Asked(inputs=request.inputs, rows=request.rows, encode=encode, deadline_s=request.deadline_s)


@contextmanager
def _told(failed: str) -> Iterator[None]:
    """Whatever goes wrong with a model's files is the log's: it may name a path."""
    try:
        yield
    except RequestError:
        raise
    except RedlineError as error:
        _log.exception("%s", failed)
        raise RequestError(f"{failed}; the server's log says why") from error


def _control_of(body: bytes) -> JsonObject:
    """The small JSON object that a control request may carry."""
    if not body:
        return {}
    if len(body) > _LONGEST_CONTROL_BYTES:
        raise RequestError(f"the body is too long, expected at most {_LONGEST_CONTROL_BYTES} bytes", status=413)
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError("the body is no JSON, expected an object or nothing") from error
    if not isinstance(value, dict):
        raise RequestError("the body is no JSON object, expected one or nothing")
    return value
