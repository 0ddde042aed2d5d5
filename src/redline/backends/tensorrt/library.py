"""One TensorRT library in hand: which generation it is, what it can do, what it said.

Names that every generation has are used plainly, wherever they are needed. A name that only some have is asked for
here and nowhere else.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, Literal

from redline.core.errors import MissingDependencyError

Flavour = Literal["tensorrt", "tensorrt-rtx"]
# The wheels of TensorRT-RTX's bindings come without the package that gives them their usual name.
_MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_logger = logging.getLogger("redline.tensorrt")
_LAYER_REPORT = "Layers:\n"
_KEPT_ERRORS = 20


@dataclass(slots=True)
class Told:
    """What the library said since it was last cleared.

    Attributes:
        errors: Its errors, oldest first.
        warnings: Its warnings.
        layers: The builder's list of the engine's layers, where it printed one.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    layers: str | None = None

    def clear(self) -> None:
        """Forget all of it."""
        self.errors.clear()
        self.warnings.clear()
        self.layers = None

    def reason(self, otherwise: str) -> str:
        """The last error in one line."""
        return " ".join(self.errors[-1].split()) if self.errors else otherwise


class Library:
    """A TensorRT module with its logger."""

    def __init__(self, flavour: Flavour, module: ModuleType) -> None:
        self.flavour = flavour
        self.module: Any = module
        self.version: str = module.__version__
        self.told = Told()
        self.logger = _make_logger(module, self.told)
        self._builders: dict[int, Any] = {}

    @property
    def title(self) -> str:
        """Its name and version in words."""
        return f"{_TITLES[self.flavour]} {self.version}"

    @property
    def weak_typing(self) -> bool:
        """Whether the builder takes precision flags and calibrators: TensorRT 10 and older."""
        return hasattr(self.module.BuilderFlag, "FP16")

    @property
    def strong_typing(self) -> bool:
        """Whether the builder can follow the types of the graph: TensorRT 9 and newer."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def highest_opset(self) -> int | None:
        """The newest opset that its ONNX parser reads, where that is too old for today's exporters."""
        return 17 if int(self.version.split(".")[0]) < 10 and self.flavour == "tensorrt" else None

    def network_flags(self, *, strong: bool) -> int:
        """What ``create_network`` wants: explicit batch where it is a choice, strong typing where it is one.

        The value of STRONGLY_TYPED is 0 in TensorRT 11, where there is no other typing, and its position before.
        """
        flags = self.module.NetworkDefinitionCreationFlag
        explicit = getattr(flags, "EXPLICIT_BATCH", None)
        value = 1 << int(explicit) if explicit is not None and int(self.version.split(".")[0]) < 10 else 0
        if strong and self.weak_typing:
            value |= 1 << int(flags.STRONGLY_TYPED)
        return value

    def builder_for(self, device: int) -> Any:
        """The builder of this process for a GPU: making one loads every kernel there is to choose from."""
        if device not in self._builders:
            self._builders[device] = self.module.Builder(self.logger)
        return self._builders[device]

    def create_context(self, engine: Any) -> Any:
        """An execution context that is given its memory by :meth:`set_memory`."""
        strategy = getattr(self.module, "ExecutionContextAllocationStrategy", None)
        if strategy is not None:
            return engine.create_execution_context(strategy.USER_MANAGED)
        return engine.create_execution_context_without_device_memory()

    def memory_size(self, engine: Any) -> int:
        """Bytes that a context needs for its activations."""
        newer = getattr(engine, "device_memory_size_v2", None)
        return int(newer if newer is not None else engine.device_memory_size)

    def set_memory(self, context: Any, pointer: int, size: int) -> None:
        """Give a context the memory for its activations."""
        newer = getattr(context, "set_device_memory", None)
        if newer is not None:
            newer(pointer, size)
        else:
            context.device_memory = pointer

    def share_profiles(self, config: Any) -> None:
        """Let several contexts use one optimization profile: a preview in 8.6, a matter of course later."""
        feature = getattr(getattr(self.module, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
        if feature is not None:
            config.set_preview_feature(feature, True)


@cache
def load_library(flavour: Flavour) -> Library:
    """Import it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    # Before CUDA starts: without it TensorRT 8.6 loads every kernel that it has, seconds for each process.
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    for name in _MODULES[flavour]:
        try:
            return Library(flavour, importlib.import_module(name))
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != name:
                raise
    raise MissingDependencyError(_MODULES[flavour][0], extra=flavour)


def _make_logger(module: Any, told: Told) -> Any:
    class Log(module.ILogger):  # type: ignore[misc]
        """Keeps errors and the layer report, passes the rest on to :mod:`logging`."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            levels = module.ILogger.Severity
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                told.errors.append(message)
                del told.errors[:-_KEPT_ERRORS]
                _logger.debug("%s", message)
            elif severity == levels.WARNING:
                told.warnings.append(message)
                del told.warnings[:-_KEPT_ERRORS]
                _logger.debug("%s", message)
            elif _LAYER_REPORT in message[:200]:
                told.layers = message

    return Log()
