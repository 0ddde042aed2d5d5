"""What a file is by its first bytes, before any reader touches it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from redline.core.errors import DataError, InputError

Kind = Literal["tiff", "jpeg", "png", "bmp", "dicom", "other"]

_HEAD_BYTES = 132
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Names that promise a slide whose first bytes are those of a TIFF or DICOM file.
_PROMISED = {".svs": "an Aperio slide, which is a tiled TIFF"} | dict.fromkeys(
    (".ndpi", ".scn", ".bif", ".svslide"), "a slide, which is a tiled TIFF"
)
_PROMISED[".dcm"] = "a DICOM file"


def sniff(path: Path) -> Kind:
    """What ``path`` holds.

    Raises:
        InputError: it is not there, is no plain file, or may not be read.
        DataError: it is empty, or its name promises a slide and its bytes are those of a plain image.
    """
    head = _head(path)
    if not head:
        raise DataError(f"{path} is empty (0 bytes); expected a slide or an image")
    kind = _kind(head)
    promised = _PROMISED.get(path.suffix.lower())
    if promised and kind in ("jpeg", "png", "bmp"):
        raise DataError(
            f"{path} holds a plain {kind.upper()} image, by its name expected {promised}; "
            f"name it *.{kind} to read it as an image"
        )
    return kind


def shown(path: Path) -> str:
    """The first bytes of a file, for a message."""
    return repr(_head(path)[:8])


def _kind(head: bytes) -> Kind:
    if head.startswith(_TIFF_STARTS):
        return "tiff"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"BM"):
        return "bmp"
    return "dicom" if head[128:132] == b"DICM" else "other"


def _head(path: Path) -> bytes:
    # A pipe would be waited for without end, so what it is comes first.
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(
                f"{path} is a folder; expected one slide file (of a DICOM slide, any of its .dcm files; "
                "of a MIRAX slide, the .mrxs file beside its folder)"
            )
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a plain file; expected a slide or an image")
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"{path} is a link to {path.readlink()}, which is not there; expected a slide") from None
        raise InputError(f"{path} is not there; expected a slide or an image") from None
    except PermissionError:
        raise InputError(f"{path} may not be read by this user; expected a slide; type: chmod u+r {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); expected a slide or an image") from error
    try:
        return os.pread(descriptor, _HEAD_BYTES, 0)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a slide or an image") from error
    finally:
        os.close(descriptor)
