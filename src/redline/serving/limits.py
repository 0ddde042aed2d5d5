"""How much one client may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from redline.core.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a server takes; all of them are on by default.

    Attributes:
        body_bytes: Of one request as it was sent.
        inflated_bytes: Of one request after gzip or deflate.
        image_pixels: Width times height of one image.
        json_depth: Arrays and objects of JSON inside each other.
        batch_rows: Of one request.
        queue: Requests that wait for one model.
        deadline_s: The longest that a request waits and runs, whatever it asks for.
        header_timeout_s: For all headers of a request to arrive.
        body_timeout_s: For the body of a request to arrive.
        outputs: Names that one request may ask for.
        id_length: Characters in the ``id`` of a request.
        reject_nonfinite: Refuse NaN and infinity in the inputs.
    """

    body_bytes: int = 32 << 20
    inflated_bytes: int = 64 << 20
    image_pixels: int = 16_000_000
    json_depth: int = 32
    batch_rows: int = 256
    queue: int = 256
    deadline_s: float = 30.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    outputs: int = 64
    id_length: int = 256
    reject_nonfinite: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "reject_nonfinite" and not value > 0:
                raise InputError(f"the limit {field.name} is {value}, expected more than 0")
