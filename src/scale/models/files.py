"""Which files there are of one model, and whether what was made of a file is still of that file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from redline.core.artifact import Step
from redline.core.errors import ArtifactError
from redline.core.files import sha256_of
from scale.models.spec import ENGINE_SUFFIXES, ONNX_SUFFIX, TORCH_SUFFIXES

#: The step of an ONNX file's provenance that holds the digest of its ``.pt``.
EXPORTED = "export ultralytics"


class MissingModelError(ArtifactError, FileNotFoundError):
    """No file of a model is there."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The files of one model that are there: those that share the named one's folder and stem.

    Attributes:
        named: What the user named, there or not.
        engines: A named engine first.
        onnx: None where there is none.
        torch: None where there is none.
    """

    named: Path
    engines: tuple[Path, ...]
    onnx: Path | None
    torch: Path | None

    @property
    def sources(self) -> tuple[Path, ...]:
        """What an engine may have been made of."""
        return tuple(path for path in (self.torch, self.onnx) if path is not None)


def find_files(named: Path) -> ModelFiles:
    """Look for the siblings of a model file."""
    engines = sorted((named.with_suffix(suffix) for suffix in ENGINE_SUFFIXES), key=lambda path: path != named)
    torch = next(_there(named.with_suffix(suffix) for suffix in TORCH_SUFFIXES), None)
    return ModelFiles(
        named=named,
        engines=tuple(_there(engines)),
        onnx=next(_there([named.with_suffix(ONNX_SUFFIX)]), None),
        torch=torch,
    )


def why_stale(made: Path, provenance: Sequence[Step], sources: Iterable[Path]) -> str | None:
    """Why a file is no longer of its sources, in words; None where it is.

    A digest that the file's history holds decides. Where it holds none for that kind of source, the time of the last
    change does.
    """
    ancestors = {step.parent_sha256 for step in provenance}
    exported = any(step.step == EXPORTED for step in provenance)
    for source in sources:
        recorded = bool(provenance) if source.suffix == ONNX_SUFFIX else exported
        if recorded and sha256_of(source) not in ancestors:
            return f"{made.name} was made of another {source.name} than the one beside it"
        if not recorded and made.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return f"{made.name} is older than {source.name}"
    return None


def _there(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if path.is_file())
