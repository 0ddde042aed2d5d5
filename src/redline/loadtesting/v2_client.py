"""What a load test asks a server besides the load: its models, their inputs, its statistics, single answers."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.core.errors import InputError, WorkerError
from redline.core.plain import from_plain
from redline.core.tensor import Array, Signature, TensorSpec
from redline.loadtesting.results import ServerSplit

#: NumPy's names of what the protocol can carry, by the protocol's.
DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    **{name.upper(): name for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_PHASES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and the model and version of it that a URL named."""

    host: str
    port: int
    model: str | None = None
    version: str | None = None

    @property
    def url(self) -> str:
        """The server's URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """A server from ``http://HOST:PORT`` or ``http://HOST:PORT/v2/models/NAME[/versions/N]``.

    >>> parse_url("http://localhost:8000/v2/models/resnet/versions/2")
    Address(host='localhost', port=8000, model='resnet', version='2')

    Raises:
        InputError: any other URL.
    """
    parts = urllib.parse.urlsplit(url)
    found = re.fullmatch(r"(?:/v2/models/([^/]+)(?:/versions/(\d+))?)?/?", parts.path)
    try:
        port = parts.port or 80
    except ValueError:
        found, port = None, 0
    if parts.scheme != "http" or not parts.hostname or found is None or parts.query:
        raise InputError(f"got URL {url!r}, expected http://HOST:PORT or http://HOST:PORT/v2/models/NAME")
    model = urllib.parse.unquote(found[1]) if found[1] else None
    return Address(parts.hostname, port, model, found[2])


class V2Client:
    """Asks one model of one server; a new connection each time, so that it holds none during the load."""

    def __init__(self, address: Address, *, timeout_s: float = 30.0) -> None:
        self._address, self._timeout_s = address, timeout_s

    def ready(self) -> bool:
        """Whether the server says that it is ready."""
        try:
            return self._ask("GET", "/v2/health/ready")[0] == 200
        except WorkerError:
            return False

    def model(self) -> tuple[str, str]:
        """The model's name and version: those of the URL, or the only model that the server has ready.

        Raises:
            InputError: the server has none or several.
        """
        name = self._address.model
        if name is None:
            index = self._json("POST", "/v2/repository/index", b"{}")
            names = sorted({one["name"] for one in index if one.get("state", "READY") == "READY"})
            if len(names) != 1:
                told = ", ".join(names) or "no model"
                raise InputError(f"{self._address.url} has {told}; name one: {self._address.url}/v2/models/NAME")
            name = str(names[0])
        versions = [str(one) for one in self._metadata(model_path(name, None)).versions or ("1",)]
        return name, self._address.version or max(versions, key=lambda one: int(one) if one.isdigit() else 0)

    def signature(self, path: str) -> Signature:
        """What the model at ``path`` takes and gives.

        Raises:
            InputError: an input of a type that cannot be made.
        """
        told = self._metadata(path)
        return Signature(tuple(one.spec() for one in told.inputs), tuple(one.spec() for one in told.outputs))

    def split(self, path: str) -> ServerSplit | None:
        """The server's statistics of the model at ``path`` so far; None where it has none."""
        try:
            status, _, body = self._ask("GET", f"{path}/stats")
            if status != 200:
                return None
            found = json.loads(body)["model_stats"]
            phases = {phase: sum(one["inference_stats"][phase]["ns"] for one in found) / 1e9 for phase in _PHASES}
            return ServerSplit(
                **{f"{phase}_s": seconds for phase, seconds in phases.items()},
                inferences=sum(int(one["inference_count"]) for one in found),
                executions=sum(int(one["execution_count"]) for one in found),
            )
        except (WorkerError, ValueError, KeyError, TypeError):
            return None

    def precision(self, model: str) -> str | None:
        """What ``redline serve`` says of the model in its metrics; None of another server."""
        try:
            status, _, body = self._ask("GET", "/metrics")
        except WorkerError:
            return None
        for line in body.decode(errors="replace").splitlines() if status == 200 else ():
            if line.startswith("redline_model_info{") and f'model="{model}"' in line:
                found = re.search(r'precision="([^"]+)"', line)
                return found[1] if found else None
        return None

    def infer(self, path: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One answer, in binary both ways.

        Raises:
            WorkerError: the server refused; says what it said.
        """
        body, length = binary_body(inputs)
        headers = {"Inference-Header-Content-Length": str(length), "Content-Type": "application/octet-stream"}
        status, got, content = self._ask("POST", f"{path}/infer", body, headers)
        if status != 200:
            raise WorkerError(f"{self._address.url}{path}/infer answered {status}: {_told(content)}")
        return _outputs(content, got.get("inference-header-content-length"))

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Send one request of the load's kind; the status, and what the server said."""
        status, _, content = self._ask("POST", path, body, headers)
        return status, _told(content)

    def _metadata(self, path: str) -> _Metadata:
        return from_plain(_Metadata, self._json("GET", path), where=f"{self._address.url}{path}")

    def _json(self, method: str, path: str, body: bytes | None = None) -> Any:
        status, _, content = self._ask(method, path, body)
        if status != 200:
            raise InputError(f"{self._address.url}{path} answered {status}: {_told(content)}; expected a V2 server")
        try:
            return json.loads(content)
        except ValueError as error:
            raise InputError(f"{self._address.url}{path} answered no JSON; expected a V2 server") from error

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        except (OSError, http.client.HTTPException) as error:
            told = str(error) or type(error).__name__
            raise WorkerError(f"{self._address.url} does not answer ({told}); is the server running?") from error
        finally:
            connection.close()


def model_path(model: str, version: str | None) -> str:
    """Where a V2 server has a model.

    >>> model_path("resnet", "1")
    '/v2/models/resnet/versions/1'
    """
    return f"/v2/models/{urllib.parse.quote(model, safe='')}" + (f"/versions/{version}" if version else "")


def binary_body(inputs: Mapping[str, Array]) -> tuple[bytes, int]:
    """A request with its tensors in binary, and the length of its JSON header."""
    raw = {name: np.ascontiguousarray(array).tobytes() for name, array in inputs.items()}
    told = [_described(name, array) | {"parameters": {"binary_data_size": len(raw[name])}}
            for name, array in inputs.items()]  # fmt: skip
    header = json.dumps({"inputs": told, "parameters": {"binary_data_output": True}}).encode()
    return header + b"".join(raw.values()), len(header)


def json_body(inputs: Mapping[str, Array]) -> bytes:
    """The same request as JSON.

    Raises:
        InputError: a type that JSON does not have.
    """
    told = []
    for name, array in inputs.items():
        if array.dtype == np.float16:
            raise InputError(f"input {name!r} is FP16, which V2 does not have in JSON; send --body binary")
        # float32's shortest text, not float64's: half the bytes.
        values: Any = array.ravel().tolist()
        if array.dtype == np.float32:
            values = [float(str(value)) for value in array.ravel()]
        told.append(_described(name, array) | {"data": values})
    return json.dumps({"inputs": told}).encode()


def _described(name: str, array: Array) -> dict[str, str | list[int]]:
    return {"name": name, "shape": list(array.shape), "datatype": _NAMES[str(array.dtype)]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    name: str
    datatype: str
    shape: tuple[int | str, ...]

    def spec(self) -> TensorSpec:
        if self.datatype not in DATATYPES:
            raise InputError(f"tensor {self.name!r} is {self.datatype}; a load test knows numbers and booleans only")
        shape = tuple(size if size >= 0 else ("batch" if place == 0 else f"{self.name}_{place}")
                      for place, size in enumerate(map(int, self.shape)))  # fmt: skip
        return TensorSpec(self.name, shape, DATATYPES[self.datatype])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    """What a server says of a model; what other servers leave out is empty."""

    versions: tuple[str | int, ...] | None = None
    inputs: tuple[_Tensor, ...] = ()
    outputs: tuple[_Tensor, ...] = ()


def _outputs(content: bytes, length: str | None) -> dict[str, Array]:
    try:
        end = int(length) if length else len(content)
        outputs = {}
        for one in json.loads(content[:end])["outputs"]:
            dtype = np.dtype(DATATYPES[one["datatype"]])
            size = one.get("parameters", {}).get("binary_data_size")
            if size is None:
                array = np.array(one["data"], dtype)
            else:
                array = np.frombuffer(content[end : end + size], dtype)
                end += size
            outputs[str(one["name"])] = array.reshape(one["shape"])
    except (KeyError, ValueError, TypeError) as error:
        raise WorkerError(f"the server's answer is not V2 ({type(error).__name__}: {error})") from error
    return outputs


def _told(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace") or "nothing"
