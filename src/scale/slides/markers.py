"""What the markers of JPEG and JPEG 2000 data say, read without decoding them."""

from __future__ import annotations

_START_OF_FRAME = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_WITHOUT_LENGTH = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None where the data are not those of a JPEG image.

    >>> jpeg_size(bytes.fromhex("ffd8 ffc0 0011 08 0020 0040 03"))
    (64, 32)
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if marker == _START_OF_SCAN:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def jpeg_is_whole(data: bytes) -> bool:
    r"""Whether the data reach their end marker: a decoder fills up what is cut off with gray, and says nothing.

    >>> jpeg_is_whole(b"...\xff\xd9"), jpeg_is_whole(b"...\xff\xd9\0\0"), jpeg_is_whole(b"...")
    (True, True, False)
    """
    return data.endswith(_END_OF_IMAGE) or data.rstrip(b"\0").endswith(_END_OF_IMAGE)


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a raw codestream; None where the data are not one.

    >>> jpeg2000_size(bytes.fromhex("ff4fff51 0029 0000 00000100 00000080 00000000 00000000"))
    (256, 128)
    """
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 24:
        return None
    right, bottom, left, top = (int.from_bytes(data[at : at + 4]) for at in (8, 12, 16, 20))
    return right - left, bottom - top
