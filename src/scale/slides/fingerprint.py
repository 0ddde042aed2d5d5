"""What tells one slide file from another without reading gigabytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

_END_BYTES = 1 << 20
#: A MIRAX slide keeps its pixels in a folder of its name.
_MIRAX = ".mrxs"


def fingerprint_of(path: Path) -> dict[str, str]:
    """Size and a digest of the first and last megabyte; of a MIRAX slide also of its parts' names and sizes."""
    size_bytes = path.stat().st_size
    digest = hashlib.sha256(str(size_bytes).encode())
    with path.open("rb") as file:
        digest.update(file.read(_END_BYTES))
        if size_bytes > _END_BYTES:
            file.seek(max(_END_BYTES, size_bytes - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    found = {"size_bytes": str(size_bytes), "sha256_of_ends": digest.hexdigest()}
    if path.suffix.lower() == _MIRAX:
        parts = sorted(part for part in path.with_suffix("").glob("*") if part.is_file())
        listed = "\n".join(f"{part.name} {part.stat().st_size}" for part in parts)
        found["sha256_of_parts"] = hashlib.sha256(listed.encode()).hexdigest()
    return found
