"""A request for inference out of its bytes; nothing is allocated before its size is known to be right."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from redline.core.errors import RequestError
from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving import tensors_json
from redline.serving.datatypes import BYTES, DATATYPES, ONLY_BINARY, datatype_of
from redline.serving.limits import Limits
from redline.serving.messages import InferRequest, Wanted
from redline.serving.shapes import Shapes
from redline.serving.tensors_binary import raw_text, read_bytes, read_packed
from redline.serving.tensors_json import MOST_DIMS, Document, elements, is_array, is_object, members, quote, read_json

if TYPE_CHECKING:
    from simdjson import SimValue

_REQUEST = frozenset({"id", "parameters", "inputs", "outputs"})
_INPUT = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT = frozenset({"name", "parameters"})
_REQUEST_PARAMETERS = frozenset({"binary_data_output", "timeout"})
_INPUT_PARAMETERS = frozenset({"binary_data_size", "shared_memory_region"})
_OUTPUT_PARAMETERS = frozenset({"binary_data", "classification", "shared_memory_region"})
_TENSORS = frozenset({"inputs", "instances"})


def parse_infer(
    body: bytes, header_length: int | None, signature: Signature, limits: Limits, *, model: str | None = None
) -> InferRequest:
    """A request of the Open Inference Protocol.

    Args:
        body: After inflating.
        header_length: Of the JSON in front of binary tensors; None where there are none, 0 for a raw request, whose
            body is the model's only input.
        signature: What the model takes and gives.
        limits: What one request may ask for.
        model: Its name, for messages.

    Raises:
        RequestError: what is wrong with it; the client's fault, always.
    """
    parsing = _Parsing(body, header_length or 0, signature, limits, _of_model(model))
    if header_length == 0:
        return parsing.raw()
    text = body if header_length is None else body[:header_length]
    return _read_json(text, parsing.request, limits)


def parse_tensors(body: bytes, signature: Signature, limits: Limits, *, model: str | None = None) -> InferRequest:
    """Tensors as plain nested lists: ``{"inputs": {"x": [[1, 2]], "y": [[3]]}}``, or without names for one input.

    ``instances`` stands for ``inputs`` too, as TensorFlow Serving calls them.

    Raises:
        RequestError: what is wrong with it.
    """
    parsing = _Parsing(body, 0, signature, limits, _of_model(model))
    return _read_json(body, parsing.plain, limits)


def _read_json(text: bytes, read: Callable[[Document], InferRequest], limits: Limits) -> InferRequest:
    # Numbers in JSON take many times their text in memory: what was inflated may be larger only if it is binary.
    if len(text) > limits.body_bytes:
        raise RequestError(f"the JSON is too large, expected at most {limits.body_bytes} bytes", status=413)
    return read_json(text, read, depth=limits.json_depth)


@dataclass(slots=True, kw_only=True)
class _Input:
    """One input of a request before its data is read."""

    spec: TensorSpec
    shape: tuple[int, ...]
    data: Any = None
    size_bytes: int | None = None

    @property
    def what(self) -> str:
        return _what(self.spec.name)


@dataclass(slots=True)
class _Parsing:
    """One request while it is read."""

    body: bytes
    at: int
    signature: Signature
    limits: Limits
    of_model: str
    shapes: Shapes = field(init=False)
    seen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.shapes = Shapes(self.signature, self.limits, self.of_model)

    def request(self, document: Document) -> InferRequest:
        """All of a request from its JSON."""
        found = members(document.root, _REQUEST, "the request")
        if "inputs" not in found:
            raise RequestError("the request has no 'inputs'")
        parameters = self._parameters(found, _REQUEST_PARAMETERS, "the request")
        binary = _flag(parameters, "binary_data_output")
        inputs = self._inputs(found["inputs"])
        # The array of inputs, and the shape of each.
        arrays = self._read(inputs, document.arrays - 1 - len(inputs) - is_array(found.get("outputs")))
        return InferRequest(
            id=self._id(found.get("id")),
            inputs=arrays,
            outputs=self._outputs(found.get("outputs"), binary=binary),
            binary_output=binary,
            deadline_s=_deadline_s(parameters.get("timeout")),
            rows=self.shapes.rows,
        )

    def raw(self) -> InferRequest:
        """A request whose body is the model's only input."""
        specs = self.signature.inputs
        if len(specs) != 1:
            raise RequestError(
                f"a raw request is for a model with one input, but {len(specs)} are expected{self.of_model}"
            )
        spec, size = specs[0], len(self.body)
        what = _what(spec.name)
        if datatype_of(spec.numpy_dtype) == BYTES:
            shape = (1,) * len(spec.shape)
            self.shapes.check(spec, shape)
            array = raw_text(self.body, what).reshape(shape)
        else:
            shape = self.shapes.of_raw(spec, spec.numpy_dtype.itemsize, size)
            self.shapes.check(spec, shape)
            array = read_bytes(self.body, 0, size, spec.numpy_dtype, shape, what)
        return InferRequest(
            inputs={spec.name: self._finite(array, what)},
            outputs=self._outputs(None, binary=True),
            binary_output=True,
            rows=self.shapes.rows,
        )

    def plain(self, document: Document) -> InferRequest:
        """Nested lists, whose shapes are their own."""
        found = members(document.root, _TENSORS, "the request")
        if len(found) != 1:
            raise RequestError('expected {"inputs": {"name": [[…]]}}, or {"inputs": [[…]]} for a model with one input')
        (given,) = found.values()
        specs = {spec.name: spec for spec in self.signature.inputs}
        if is_object(given):
            tensors = members(given, frozenset(specs), "'inputs'")
            self._check_names(len(given), tensors)
        else:
            tensors = dict.fromkeys(list(specs)[:1], given)
            self._check_names(1, tensors)
        inputs = []
        for name, data in tensors.items():
            shape = tensors_json.nested_shape(data, _what(name))
            self.shapes.check(specs[name], shape)
            inputs.append(_Input(spec=specs[name], shape=shape, data=data))
        return InferRequest(
            inputs=self._read(inputs, document.arrays), outputs=self._outputs(None, binary=False), rows=self.shapes.rows
        )

    def _inputs(self, given: Any) -> list[_Input]:
        specs = {spec.name: spec for spec in self.signature.inputs}
        if is_array(given) and len(given) > len(specs):
            raise self._wrong_number(len(given))
        found = self._named(elements(given, len(specs), "'inputs'"), _INPUT, "input", specs)
        self._check_names(len(found), found)
        return [self._input(specs[name], described) for name, described in found.items()]

    def _named(
        self, listed: list[Any], wanted: frozenset[str], kind: str, names: Collection[str]
    ) -> dict[str, dict[str, SimValue]]:
        """The members of each input or output by its name, which is one of ``names``."""
        found: dict[str, dict[str, SimValue]] = {}
        for place, one in enumerate(listed):
            described = members(one, wanted, f"{kind} {place}")
            name = described.get("name")
            if not isinstance(name, str):
                raise RequestError(f"{kind} {place} has no 'name', expected a text")
            if name in found:
                raise RequestError(f"{kind} {quote(name)} already exists in request")
            if name not in names:
                raise RequestError(f"unexpected inference {kind} {quote(name)}{self.of_model}")
            found[name] = described
        return found

    def _check_names(self, count: int, found: Collection[str]) -> None:
        missing = [spec.name for spec in self.signature.inputs if spec.name not in found]
        if missing:
            raise RequestError(
                f"expected {len(self.signature.inputs)} inputs but got {count} inputs{self.of_model}. "
                f"Missing required input(s) {missing}"
            )
        if count > len(found):
            raise self._wrong_number(count)

    def _wrong_number(self, count: int) -> RequestError:
        expected = len(self.signature.inputs)
        return RequestError(f"expected {expected} inputs but got {count} inputs{self.of_model}")

    def _input(self, spec: TensorSpec, described: dict[str, SimValue]) -> _Input:
        what = _what(spec.name)
        self._check_datatype(spec, described.get("datatype"))
        if "shape" not in described:
            raise RequestError(f"{what} has no 'shape'")
        sizes = elements(described["shape"], MOST_DIMS, f"the shape of {what}")
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise RequestError(f"the shape of {what} holds something else than whole numbers of 0 or more")
        shape = tuple(sizes)
        self.shapes.check(spec, shape)
        parameters = self._parameters(described, _INPUT_PARAMETERS, what)
        size_bytes, data = parameters.get("binary_data_size"), described.get("data")
        if size_bytes is None:
            if described["datatype"] in ONLY_BINARY:
                raise RequestError(
                    f"{what} is {described['datatype']}, which the protocol's JSON cannot carry; use binary data"
                )
            return _Input(spec=spec, shape=shape, data=data)
        if type(size_bytes) is not int or size_bytes < 0:
            raise RequestError(f"the binary_data_size of {what} is no whole number of 0 or more")
        if "data" in described:
            raise RequestError(f"{what} has both 'data' and 'binary_data_size', expected one of them")
        return _Input(spec=spec, shape=shape, size_bytes=size_bytes)

    def _check_datatype(self, spec: TensorSpec, given: Any) -> None:
        expected = datatype_of(spec.numpy_dtype)
        if given == expected:
            return
        what = _what(spec.name)
        if not isinstance(given, str):
            raise RequestError(f"{what} has no 'datatype', expected a text")
        if given not in DATATYPES:
            raise RequestError(f"{what} has the unknown datatype {quote(given)}")
        model = self.of_model.removeprefix(" for ") or "the model"
        raise RequestError(f"inference {what} data-type is '{given}', but {model} expects '{expected}'")

    def _read(self, inputs: list[_Input], arrays: int) -> dict[str, Array]:
        """The data of all inputs.

        ``arrays`` is how many of the document's are left for data: where there are more than the shapes explain, some
        may be hidden between the numbers.
        """
        read = {one.spec.name: self._tensor(one) for one in inputs}
        if self.at and self.at != len(self.body):
            raise RequestError(
                f"unexpected additional input data{self.of_model}: "
                f"{len(self.body) - self.at} bytes follow the last input"
            )
        if arrays > self.seen:
            for one in inputs:
                if one.size_bytes is None:
                    tensors_json.refuse_hidden(one.data, one.shape, one.what)
        return read

    def _tensor(self, one: _Input) -> Array:
        spec, what = one.spec, one.what
        datatype = datatype_of(spec.numpy_dtype)
        if one.size_bytes is not None:
            return self._finite(self._binary(one, one.size_bytes, datatype), what)
        if one.data is None:
            raise RequestError(f"{what} has neither 'data' nor 'binary_data_size'")
        self.seen += tensors_json.count_arrays(one.data, one.shape, what)
        if datatype == BYTES:
            return tensors_json.read_texts(one.data, one.shape, what)
        if datatype == "BOOL":
            return tensors_json.read_bools(one.data, one.shape, what)
        return tensors_json.read_numbers(one.data, one.shape, spec.numpy_dtype, what)

    def _binary(self, one: _Input, size: int, datatype: str) -> Array:
        start, self.at = self.at, self.at + size
        if start == 0:
            raise RequestError(f"{one.what} is binary, but the request has no Inference-Header-Content-Length")
        if self.at > len(self.body):
            raise RequestError(f"{one.what}: got {len(self.body) - start} bytes of binary data, expected {size}")
        if datatype == BYTES:
            return read_packed(self.body, start, size, one.shape, one.what)
        return read_bytes(self.body, start, size, one.spec.numpy_dtype, one.shape, one.what)

    def _finite(self, array: Array, what: str) -> Array:
        if self.limits.reject_nonfinite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RequestError(f"{what} holds NaN or infinity, which this server refuses")
        return array

    def _outputs(self, given: Any, *, binary: bool) -> tuple[Wanted, ...]:
        names = [spec.name for spec in self.signature.outputs]
        listed = [] if given is None else elements(given, self.limits.outputs, "'outputs'")
        found: dict[str, Wanted] = {}
        for name, described in self._named(listed, _OUTPUT, "output", names).items():
            what = f"output {quote(name)}"
            parameters = self._parameters(described, _OUTPUT_PARAMETERS, what)
            classes = parameters.get("classification", 0)
            if type(classes) is not int or classes < 0:
                raise RequestError(f"the classification of {what} is no whole number of 0 or more")
            asked = _flag(parameters, "binary_data") if "binary_data" in parameters else binary
            found[name] = Wanted(name=name, binary=asked, classes=classes)
        return tuple(found.values()) or tuple(Wanted(name=name, binary=binary) for name in names)

    def _parameters(self, described: dict[str, SimValue], wanted: frozenset[str], what: str) -> dict[str, SimValue]:
        if described.get("parameters") is None:
            return {}
        found = members(described["parameters"], wanted, f"'parameters' of {what}")
        if "shared_memory_region" in found:
            raise RequestError(f"{what} is in shared memory, which this server does not use; send its data")
        return found

    def _id(self, given: Any) -> str | None:
        if given is None:
            return None
        if not isinstance(given, str) or len(given) > self.limits.id_length or not given.isprintable():
            raise RequestError(f"'id' is no printable text of at most {self.limits.id_length} characters")
        return given


@lru_cache(maxsize=256)  # of names that models have, never of a client's
def _what(name: str) -> str:
    return f"input {quote(name)}"


@lru_cache(maxsize=256)
def _of_model(name: str | None) -> str:
    return f" for model {quote(name)}" if name else ""


def _flag(parameters: dict[str, SimValue], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"the parameter '{name}' is no boolean, expected true or false")
    return value


def _deadline_s(timeout_us: Any) -> float | None:
    if timeout_us is None:
        return None
    if type(timeout_us) is not int or timeout_us < 0:
        raise RequestError("the parameter 'timeout' is no whole number of microseconds")
    return timeout_us * 1e-6 or None
