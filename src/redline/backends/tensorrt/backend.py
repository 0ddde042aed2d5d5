"""TensorRT and TensorRT-RTX as backends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from redline.backends.cuda import use_device
from redline.backends.nvidia import device_count, identity
from redline.backends.tensorrt.build import Built, Progress, build_plan, calibration_file
from redline.backends.tensorrt.engine import LoadedEngine
from redline.backends.tensorrt.engine_cache import built_before
from redline.backends.tensorrt.library import Flavour, Library, load_library
from redline.backends.tensorrt.options import TensorRtOptions
from redline.backends.tensorrt.pool import SessionPool
from redline.backends.tensorrt.session import EngineSession
from redline.core.artifact import Engine, OnnxModel, Step
from redline.core.errors import DeviceError, EngineMismatchError, UnsupportedError
from redline.core.files import sha256_of, write_whole


def create(options: Mapping[str, Any]) -> TensorRt:
    """TensorRT with those options (the table calls this)."""
    return TensorRt("tensorrt", TensorRtOptions(**options))


def create_rtx(options: Mapping[str, Any]) -> TensorRt:
    """TensorRT-RTX with those options (the table calls this)."""
    return TensorRt("tensorrt-rtx", TensorRtOptions(**options))


class TensorRt:
    """Builds serialized engines for this GPU and runs them."""

    def __init__(self, flavour: Flavour, options: TensorRtOptions | None = None) -> None:
        self.name: str = flavour
        self.options = options or TensorRtOptions()
        self.library: Library = load_library(flavour)

    @property
    def typings(self) -> tuple[str, ...]:
        """``weak`` and ``strong``, as far as this generation has them; ``auto`` takes the first."""
        known = {"weak": self.library.weak_typing, "strong": self.library.strong_typing}
        return tuple(name for name, there in known.items() if there)

    def platform(self) -> dict[str, str]:
        """Library version, and the GPU (where one is here) with its driver."""
        here = {self.name: self.library.version}
        if device_count() > self.options.device:
            here |= identity(self.options.device)
        return here

    def compile(self, model: OnnxModel, directory: Path, *, progress: Progress | None = None) -> Engine:
        """Build a plan in ``directory``; the precision is read from the engine.

        An engine that is there already, whole and of the same model, options and platform, is not built again.
        """
        if device_count() > self.options.device:
            use_device(self.options.device)
        elif self.name == "tensorrt":
            raise DeviceError(
                f"{self.library.title} builds on the GPU that it builds for, and there is none here; "
                "the backend tensorrt-rtx builds without one: --target sm89"
            )
        elif not self.options.target:
            raise UnsupportedError(
                f"{self.library.title} builds for any GPU that is named, and there is none here; name one by its "
                "compute capability: --target sm89 for an RTX 4060"
            )
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.options.name or model.path.stem}.plan"
        if not self.options.rebuild and path.is_file():
            calibrated = calibration_file(self.library, model, self.options)
            found = built_before(path, model, asdict(self.options), self._made_for(), calibrated)
            if found is not None:
                return found
        built = build_plan(self.library, model, self.options, directory, progress)
        write_whole(path, built.plan)
        engine = self._describe(model, path, built)
        engine.save()
        return engine

    def _describe(self, model: OnnxModel, path: Path, built: Built) -> Engine:
        arguments = {
            **asdict(self.options),
            "precision": built.precision,
            "typing": built.typing,
            "layers_read_from": built.layer_source,
            "calibration": built.calibration,
            "calibration_cache": built.calibration_cache.name if built.calibration_cache else None,
            "model_file": os.path.relpath(model.path, path.parent),
            "build_s": round(built.seconds, 3),
            "profiles": "; ".join(
                ", ".join(f"{name} {limits}" for name, limits in profile.items()) for profile in built.profiles
            ),
        }
        return Engine(
            path=path,
            sha256=sha256_of(path),
            backend=self.name,
            signature=model.signature,
            usage=model.usage,
            layers=built.layers,
            platform=self._made_for(),
            options=dict(asdict(self.options)),
            provenance=(
                *model.provenance,
                Step(
                    step=f"compile {self.name}",
                    arguments=arguments,
                    parent_sha256=model.sha256,
                    versions={self.name: self.library.version},
                ),
            ),
        )

    def _made_for(self) -> dict[str, str]:
        if not self.options.target:
            return self.platform()
        digits = self.options.target.removeprefix("sm")
        return {self.name: self.library.version, "compute_capability": f"{digits[:-1]}.{digits[-1]}"}

    def load(self, engine: Engine) -> EngineSession:
        """Load an engine that was built for this GPU and this TensorRT."""
        return self._session(self._loaded(engine), engine, owner=True)

    def load_pool(self, engine: Engine, size: int) -> SessionPool:
        """Load an engine once, for ``size`` callers at a time."""
        loaded = self._loaded(engine)
        return SessionPool(loaded, lambda: self._session(loaded, engine, owner=False), size)

    def _session(self, loaded: LoadedEngine, engine: Engine, *, owner: bool) -> EngineSession:
        options = self.options
        return EngineSession(loaded, engine.signature, record=options.cuda_graph, device=options.device, owner=owner)

    def _loaded(self, engine: Engine) -> LoadedEngine:
        self._check(engine)
        use_device(self.options.device)
        return LoadedEngine(
            self.library,
            engine.path.read_bytes(),
            name=engine.path.name,
            version_compatible=bool(engine.options.get("version_compatible")),
        )

    def _check(self, engine: Engine) -> None:
        """Refuse an engine of another library, or of another GPU than this one.

        Raises:
            EngineMismatchError: names what differs.
        """
        here = self.platform()
        if "gpu" not in here and engine.platform.get(self.name) == here[self.name]:
            target = engine.platform.get("gpu") or f"compute capability {engine.platform.get('compute_capability')}"
            raise EngineMismatchError(f"{engine.path.name} was compiled for {target}, and there is no GPU here")
        for key in (self.name, *(() if engine.options.get("hardware_compatible") else ("compute_capability", "gpu"))):
            made_for, found = engine.platform.get(key), here.get(key)
            if key == "gpu" and made_for is None:
                continue  # built for every GPU of a compute capability
            same_major = (made_for or "").split(".")[0] == (found or "").split(".")[0]
            if key == self.name and engine.options.get("version_compatible") and same_major:
                continue
            if made_for != found:
                raise EngineMismatchError(
                    f"{engine.path.name} was compiled for {key} {made_for!r}, this is {found!r}; build it again"
                )
