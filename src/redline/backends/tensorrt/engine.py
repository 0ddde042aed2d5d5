"""A deserialized engine: its tensors, its profiles and the contexts that run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from redline.backends.cuda import DeviceMemory, Stream
from redline.backends.tensorrt.library import Library
from redline.backends.tensorrt.profiles import Range
from redline.core.errors import EngineMismatchError, InputError, SignatureError, UnsupportedError

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
_BY_VALUES = (
    "depends on the values of the inputs (a NonZero or NMS in the graph), which engine sessions do not handle; cut it "
    "off before the export"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output of an engine.

    Attributes:
        shape: -1 is a dynamic size.
        dtype: As the engine has it; TensorRT before 10 turns int64 into int32.
    """

    name: str
    is_input: bool
    shape: Shape
    dtype: np.dtype[Any]


class LoadedEngine:
    """An engine on the GPU, shared by the sessions that run it."""

    def __init__(self, library: Library, plan: bytes, *, name: str, version_compatible: bool = False) -> None:
        """Deserialize it.

        Raises:
            EngineMismatchError: TensorRT refused it.
            UnsupportedError: it has a tensor of a kind that sessions do not handle.
        """
        self.library, self.name = library, name
        module = library.module
        library.told.clear()
        self._runtime = module.Runtime(library.logger)
        if version_compatible:
            self._runtime.engine_host_code_allowed = True
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise EngineMismatchError(
                f"{name}: TensorRT {library.version} cannot load it: {library.told.reason('no reason given')}; "
                "build it again"
            )
        self.tensors = tuple(
            self._tensor(self.engine.get_tensor_name(index)) for index in range(self.engine.num_io_tensors)
        )
        self.inputs = tuple(tensor for tensor in self.tensors if tensor.is_input)
        self.outputs = tuple(tensor for tensor in self.tensors if not tensor.is_input)
        self.profiles = tuple(self._profile(index) for index in range(self.engine.num_optimization_profiles))
        self.scratch_size = library.memory_size(self.engine)

    def _tensor(self, name: str) -> Tensor:
        module, engine = self.library.module, self.engine
        dtype = _NUMPY.get(engine.get_tensor_dtype(name).name)
        if dtype is None:
            raise UnsupportedError(f"{self.name}: {name} is {engine.get_tensor_dtype(name).name}, which NumPy has not")
        if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise UnsupportedError(f"{self.name}: {name} is a shape tensor on the host, which sessions do not handle")
        return Tensor(
            name=name,
            is_input=engine.get_tensor_mode(name) == module.TensorIOMode.INPUT,
            shape=self._shape(name, engine.get_tensor_shape(name)),
            dtype=np.dtype(dtype),
        )

    def _shape(self, name: str, told: Any) -> Shape:
        try:
            return tuple(told)
        except ValueError as error:  # TensorRT 8.6 gives a shape of -1 dimensions where a size is not known before
            raise UnsupportedError(f"{self.name}: the shape of {name} {_BY_VALUES}") from error

    def _profile(self, index: int) -> dict[str, Range]:
        found = {}
        for tensor in self.inputs:
            low, usual, high = self.engine.get_tensor_profile_shape(tensor.name, index)
            found[tensor.name] = Range(smallest=tuple(low), usual=tuple(usual), largest=tuple(high))
        return found

    def profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """The profile whose usual shape is nearest above, of those that take the shapes.

        Raises:
            SignatureError: no profile takes them; names the input, its shape and every profile's range.
        """
        fitting = [
            index
            for index, profile in enumerate(self.profiles)
            if all(profile[name].holds(shape) for name, shape in shapes.items())
        ]
        if not fitting:
            self._refuse(shapes)
        return min(fitting, key=lambda index: self._distance(index, shapes))

    def _distance(self, index: int, shapes: Mapping[str, Shape]) -> float:
        usual = (prod(self.profiles[index][name].usual) / max(prod(shape), 1) for name, shape in shapes.items())
        return max((max(ratio, 1 / ratio) for ratio in usual), default=0.0)

    def _refuse(self, shapes: Mapping[str, Shape]) -> None:
        for name, shape in shapes.items():
            if not any(profile[name].holds(shape) for profile in self.profiles):
                ranges = "; ".join(str(profile[name]) for profile in self.profiles)
                raise SignatureError(
                    f"input {name!r}: got shape {shape}, expected one that a profile of this engine takes ({ranges}); "
                    "build it with a wider --profile"
                )
        raise SignatureError(f"got shapes {dict(shapes)}, which no single profile of this engine takes")

    def context(self, profile: int, shapes: Mapping[str, Shape], scratch: DeviceMemory, stream: Stream) -> Any:
        """An execution context that is ready for these shapes, on memory that it is lent."""
        context = self.library.create_context(self.engine)
        if context is None:
            raise InputError(f"{self.name}: {self.library.told.reason('TensorRT made no execution context')}")
        self.library.set_memory(context, scratch.pointer, scratch.size)
        if len(self.profiles) > 1 and not context.set_optimization_profile_async(profile, stream.handle):
            raise InputError(f"{self.name}: {self.library.told.reason(f'TensorRT refused profile {profile}')}")
        stream.synchronize()
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise SignatureError(f"input {name!r}: {self.library.told.reason(f'TensorRT refused shape {shape}')}")
        return context

    def output_shapes(self, context: Any) -> dict[str, Shape]:
        """The shape of each output at the context's input shapes.

        Raises:
            UnsupportedError: an output's size depends on the values of the inputs.
        """
        shapes = {
            tensor.name: self._shape(tensor.name, context.get_tensor_shape(tensor.name)) for tensor in self.outputs
        }
        for name, shape in shapes.items():
            if any(size < 0 for size in shape):
                raise UnsupportedError(f"{self.name}: the shape of {name}, {shape}, {_BY_VALUES}")
        return shapes

    def capacities(self, scratch: DeviceMemory, stream: Stream) -> dict[str, int]:
        """Bytes of each tensor at the largest shapes of any profile."""
        found = dict.fromkeys((tensor.name for tensor in self.tensors), 0)
        for index, profile in enumerate(self.profiles or ({},)):
            largest = {name: limits.largest for name, limits in profile.items()}
            context = self.context(index, largest, scratch, stream)
            shapes = {**largest, **self.output_shapes(context)}
            for tensor in self.tensors:
                size = int(np.prod(shapes.get(tensor.name, tensor.shape), dtype=np.int64)) * tensor.dtype.itemsize
                found[tensor.name] = max(found[tensor.name], size)
        return found

    def close(self) -> None:
        """Free it; contexts must be gone by then."""
        self.engine = None
        self._runtime = None
