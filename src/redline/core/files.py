"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def text_of(path: Path) -> str | None:
    """The text of a file that may not be there, such as one of ``/proc``, stripped; None where there is none."""
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside ``path``; on success it is flushed to disk and renamed onto ``path``.

    On any exception the scratch file is removed and ``path`` keeps what it had, so that a full disk, Ctrl-C or
    a kill never leaves a half-written file under the final name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=f".partial{path.suffix}")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        flush(scratch)
        scratch.chmod(0o666 & ~umask())
        scratch.replace(path)
        flush(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder beside ``path`` that replaces ``path`` on success and vanishes on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-", suffix=".partial"))
    try:
        yield scratch
        for item in scratch.rglob("*"):
            if item.is_file():
                flush(item)
        scratch.chmod(0o777 & ~umask())
        _swap(scratch, path)
        flush(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _swap(scratch: Path, path: Path) -> None:
    # Moved aside and then removed: a folder that is being removed would look whole for a while.
    if not path.exists():
        scratch.replace(path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-", suffix=".partial") as old:
        path.replace(Path(old) / path.name)
        scratch.replace(path)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) so that ``path`` is either the old file or the whole new one."""
    with whole_file(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before this returns."""
    flags = os.O_RDONLY
    if path.is_dir() and os.name == "nt":  # pragma: no cover
        return
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def stem_of(model: str) -> str:
    """A file name for a model's name.

    >>> stem_of("nets/small.py:make"), stem_of("out/model.onnx"), stem_of("torchvision:vgg16")
    ('small_make', 'model', 'torchvision_vgg16')
    """
    name = model.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".onnx", ".pt2", ".pt", ".pth", ".ts"):
        name = name.removesuffix(suffix)
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name.replace(".py:", "_")) or "model"
