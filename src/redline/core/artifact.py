"""Model files and engines: what they are, where they came from, what precision is really in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from redline.core.errors import ArtifactError, EngineMismatchError
from redline.core.files import sha256_of, write_whole
from redline.core.plain import from_text, to_plain
from redline.core.preprocess import Usage
from redline.core.tensor import Signature

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8", "none"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Argument = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an artifact's provenance: what was done, to which file, with which versions."""

    step: str
    arguments: Mapping[str, Argument]
    parent_sha256: str | None
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """How many compute layers (convolutions, matrix products) run in each precision.

    >>> Layers(counts=(("int8", 20), ("fp32", 1))).describe()
    'int8 (20 of 21 layers)'
    >>> Layers(counts=(("fp32", 21),)).describe()
    'fp32'
    """

    counts: tuple[tuple[Precision, int], ...]

    @property
    def precision(self) -> Precision:
        """The precision of most compute layers; ``none`` where there are no such layers."""
        return max(self.counts, key=lambda pair: pair[1])[0] if self.counts else "none"

    def describe(self) -> str:
        """The precision in words, with the share of layers where it is not all of them."""
        total = sum(count for _, count in self.counts)
        if len(self.counts) < 2:
            return self.precision
        return f"{self.precision} ({dict(self.counts)[self.precision]} of {total} layers)"

    @classmethod
    def of(cls, counts: Mapping[Any, int]) -> Layers:
        """Layers from a mapping of precision to count, largest first; zero counts are dropped."""
        pairs = sorted(((p, n) for p, n in counts.items() if n), key=lambda pair: (-pair[1], pair[0]))
        for precision, _ in pairs:
            if precision not in PRECISIONS:
                raise ArtifactError(f"got precision {precision!r}, expected one of {', '.join(PRECISIONS)}")
        return cls(counts=tuple(cast("list[tuple[Precision, int]]", pairs)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """An ONNX file as it is on disk; ``layers`` is read from its graph, never copied from a request."""

    path: Path
    sha256: str
    signature: Signature
    opset: int
    layers: Layers
    size_bytes: int
    provenance: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)

    @property
    def precision(self) -> Precision:
        """The precision of most of its compute layers."""
        return self.layers.precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A model compiled for one platform; ``layers`` is read from what the runtime made of it.

    On disk it is ``path`` with a sidecar ``<path>.engine.json``; :meth:`save` and :meth:`read` go through it.
    """

    path: Path
    sha256: str
    backend: str
    signature: Signature
    layers: Layers
    platform: Mapping[str, str]
    options: Mapping[str, Argument]
    provenance: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)

    @property
    def precision(self) -> Precision:
        """The precision of most of its compute layers."""
        return self.layers.precision

    @property
    def sidecar(self) -> Path:
        """Where :meth:`save` writes the description."""
        return self.path.with_name(self.path.name + ".engine.json")

    def save(self) -> Path:
        """Write the sidecar beside the engine and return its path."""
        told = _Described(
            sha256=self.sha256,
            backend=self.backend,
            signature=self.signature,
            layers=self.layers.counts,
            platform=self.platform,
            options=self.options,
            provenance=self.provenance,
            usage=self.usage,
        )
        write_whole(self.sidecar, json.dumps(to_plain(told), indent=2) + "\n")
        return self.sidecar

    @classmethod
    def described(cls, path: Path) -> Engine:
        """Read an engine's sidecar (or the one beside an engine file), and nothing else.

        Raises:
            ArtifactError: the sidecar is missing or not readable.
        """
        sidecar = path if path.name.endswith(".engine.json") else path.with_name(path.name + ".engine.json")
        try:
            told = from_text(_Described, sidecar.read_bytes(), where=str(sidecar))
        except FileNotFoundError as error:
            raise ArtifactError(f"{sidecar} is not there; build the engine again") from error
        except ArtifactError as error:
            raise ArtifactError(f"{sidecar} is not an engine description ({error}); build it again") from error
        return cls(
            path=sidecar.with_name(sidecar.name.removesuffix(".engine.json")),
            sha256=told.sha256,
            backend=told.backend,
            signature=told.signature,
            layers=Layers.of(dict(told.layers)),
            platform=told.platform,
            options=told.options,
            provenance=told.provenance,
            usage=told.usage,
        )

    @classmethod
    def read(cls, path: Path) -> Engine:
        """Read an engine's sidecar and check the file against it.

        Raises:
            ArtifactError: the sidecar is missing or not readable.
            EngineMismatchError: the engine file is missing, or its bytes are not those that were saved.
        """
        engine = cls.described(path)
        if not engine.path.is_file():
            raise EngineMismatchError(f"{engine.path} is not there; build the engine again")
        found = sha256_of(engine.path)
        if found != engine.sha256:
            raise EngineMismatchError(
                f"{engine.path} has sha256 {found[:12]}…, expected {engine.sha256[:12]}…; build the engine again"
            )
        return engine


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """The sidecar of an engine."""

    format: int = 1
    sha256: str
    backend: str
    signature: Signature
    layers: tuple[tuple[Precision, int], ...]
    platform: Mapping[str, str]
    options: Mapping[str, Argument]
    provenance: tuple[Step, ...]
    usage: Usage = field(default_factory=Usage)
