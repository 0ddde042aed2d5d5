"""Files out of a form, within limits."""

from __future__ import annotations

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from redline.core.errors import RequestError

_MOST_PARTS = 512
_LONGEST_BOUNDARY = 70  # RFC 2046, section 5.1.1


def files_of(body: bytes, content_type: str, *, most_files: int) -> list[bytes]:
    """The bytes of each file of a form, in their order, whatever their fields are called; other fields are skipped.

    Raises:
        RequestError: 400 for what is no whole form or has no file, 413 for more than ``most_files``.
    """
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    if not boundary or len(boundary) > _LONGEST_BOUNDARY or not boundary.isascii():
        raise RequestError("the multipart Content-Type has no usable boundary, expected one of 1 to 70 characters")
    decoder = MultipartDecoder(boundary.encode(), max_parts=_MOST_PARTS)
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        files = _collect(decoder, most_files)
    except RequestEntityTooLarge as error:
        raise RequestError(f"the form has too many parts, expected at most {_MOST_PARTS}", status=413) from error
    except RequestError:
        raise
    except Exception as error:  # of bytes that nobody vouches for the decoder raises several kinds
        raise RequestError("the body is no multipart form, or is cut off") from error
    if not files:
        raise RequestError("the form has no file, expected an image as one: curl -F image=@cat.jpg")
    return files


def _collect(decoder: MultipartDecoder, most_files: int) -> list[bytes]:
    files: list[bytearray] = []
    in_file = False
    while not isinstance(event := decoder.next_event(), Epilogue):
        if isinstance(event, NeedData):
            raise RequestError("the multipart form is cut off")
        if isinstance(event, File):
            if len(files) == most_files:
                raise RequestError(f"the form has too many files, expected at most {most_files}", status=413)
            files.append(bytearray())
            in_file = True
        elif isinstance(event, Field):
            in_file = False
        elif isinstance(event, Data) and in_file:
            files[-1] += event.data
    return [bytes(file) for file in files]
