"""A request for inference after it is parsed, and its answer before it is sent."""

from __future__ import annotations

from dataclasses import dataclass

from redline.core.tensor import Array


@dataclass(slots=True, kw_only=True)
class Wanted:
    """An output that a request asks for.

    Attributes:
        name: Of the model's output.
        binary: Bytes behind the JSON, else numbers within it.
        classes: How many of the highest scores with their classes; 0 for the tensor itself.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(slots=True, kw_only=True)
class InferRequest:
    """What a model is to be run on, and what the answer is to hold.

    Attributes:
        id: The client's own, for the answer.
        inputs: One array for each input of the signature, of its dtype and of a shape that fits it; contiguous and
            aligned. Those that came as bytes may be read-only views of the body; copy one before writing to it.
            BYTES are arrays of ``str``.
        outputs: In the order of the answer, at least one where the model has any.
        binary_output: Whether outputs are bytes where nothing else is said.
        deadline_s: How long the client is ready to wait; None where it does not say.
        rows: The size of the batch; 1 for a model without one.
    """

    id: str | None = None
    inputs: dict[str, Array]
    outputs: tuple[Wanted, ...]
    binary_output: bool = False
    deadline_s: float | None = None
    rows: int = 1


@dataclass(slots=True, kw_only=True)
class Encoded:
    """The body of an answer.

    Attributes:
        header_length: Bytes of JSON at its front where binary tensors follow, for the header
            ``Inference-Header-Content-Length``; None where all of it is JSON.
    """

    body: bytes
    header_length: int | None
    content_type: str
