"""Whether the shapes that a request names are ones that a model takes."""

from __future__ import annotations

from redline.core.errors import RequestError
from redline.core.tensor import Signature, TensorSpec
from redline.serving.datatypes import protocol_shape
from redline.serving.limits import Limits
from redline.serving.tensors_json import quote

# No body has as many elements: a product beyond it never becomes an allocation.
_MOST_ELEMENTS = 1 << 40


class Shapes:
    """Checks the shapes of one request, input by input.

    Attributes:
        rows: The size of the batch; the fixed one, or 1, for a model that has no dynamic batch.
    """

    def __init__(self, signature: Signature, limits: Limits, of_model: str) -> None:
        self.rows = signature.fixed_batch or 1
        self._first = signature.inputs[0] if signature.dynamic_batch else None
        self._limits = limits
        self._of_model = of_model
        self._sizes: dict[str, int] = {}

    def check(self, spec: TensorSpec, shape: tuple[int, ...]) -> None:
        """Take the shape of one input.

        Raises:
            RequestError: it is not one that the model takes, or its batch is too large.
        """
        if len(shape) != len(spec.shape):
            raise self._unexpected(spec, shape)
        if self._first is not None:
            self._check_batch(shape[0])
            if spec is self._first:
                self.rows = shape[0]
        elements = 1
        for got, expected in zip(shape, spec.shape, strict=True):
            wanted = expected if isinstance(expected, int) else self._sizes.setdefault(expected, got)
            elements *= got
            if got != wanted or got < 1:
                raise self._unexpected(spec, shape)
        if elements > _MOST_ELEMENTS:
            raise self._unexpected(spec, shape)

    def of_raw(self, spec: TensorSpec, itemsize: int, size_bytes: int) -> tuple[int, ...]:
        """The shape of an input that came without one: a batch of one, and one more dynamic size at most.

        Raises:
            RequestError: the bytes are not those of such a shape.
        """
        sizes = [1 if place == 0 and isinstance(size, str) else size for place, size in enumerate(spec.shape)]
        known = itemsize
        for size in sizes:
            known *= size if isinstance(size, int) else 1
        unknown = [place for place, size in enumerate(sizes) if isinstance(size, str)]
        if len(unknown) > 1:
            raise RequestError(
                f"input {quote(spec.name)}{self._of_model} has several dynamic sizes, so its shape must be given: "
                "send the JSON header"
            )
        if unknown and known and size_bytes % known == 0:
            sizes[unknown[0]] = size_bytes // known
        return tuple(size if isinstance(size, int) else 1 for size in sizes)

    def _check_batch(self, rows: int) -> None:
        if not 1 <= rows <= self._limits.batch_rows:
            bound = f"<= {self._limits.batch_rows}" if rows else ">= 1"
            raise RequestError(f"inference request batch-size must be {bound}{self._of_model}")

    def _unexpected(self, spec: TensorSpec, shape: tuple[int, ...]) -> RequestError:
        got = ",".join(str(size) for size in shape)
        expected = ",".join(str(size) for size in protocol_shape(spec))
        return RequestError(
            f"unexpected shape for input {quote(spec.name)}{self._of_model}. Expected [{expected}], got [{got}]"
        )
