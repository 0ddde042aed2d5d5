"""Every name that our TensorRT code takes exists in the bindings of every generation, or is known to be missing."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tests.backends.tensorrt_api.usage import HERE, MODULE, Reader, Surface, Use, problem

from redline.backends.tensorrt.library import Library

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/redline/backends/tensorrt"
EIGHT = ("8.6",)
TEN = ("10.0", "10.3", "10.16")
ELEVEN = ("11.1", "11.4")
RTX = ("rtx-1.7",)
GENERATIONS = (*EIGHT, *TEN, *ELEVEN, *RTX)
WEAK = (*EIGHT, *TEN)
NEWER = (*TEN, *ELEVEN, *RTX)
SURFACES = {name: Surface.read(name) for name in GENERATIONS}
ANY = Surface.union(list(SURFACES.values()))

# What not every generation has: those that have it, and why the others never get there.
ONLY = {
    "BuilderFlag.FP16": (WEAK, "asked for: it says whether there is weak typing"),
    "BuilderFlag.INT8": (WEAK, "asked for, with weak typing"),
    "BuilderFlag.FP8": (WEAK, "asked for, with weak typing"),
    "BuilderFlag.BF16": (TEN, "asked for; 8.6 says that it has no bf16"),
    "IInt8EntropyCalibrator2": (WEAK, "calibrators belong to weak typing"),
    "IInt8MinMaxCalibrator": (WEAK, "calibrators belong to weak typing"),
    "IBuilderConfig.int8_calibrator": (WEAK, "calibrators belong to weak typing"),
    "IBuilderConfig.set_calibration_profile": (WEAK, "calibrators belong to weak typing"),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": (WEAK, "asked for; wanted by 8.6 alone"),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": (NEWER, "asked for: it says whether there is strong typing"),
    "PreviewFeature.PROFILE_SHARING_0806": (WEAK, "asked for; later a matter of course"),
    "ExecutionContextAllocationStrategy": (NEWER, "asked for; 8.6 has a method of its own"),
    "ICudaEngine.create_execution_context": (NEWER, "takes a strategy where there are strategies"),
    "ICudaEngine.create_execution_context_without_device_memory": (WEAK, "used where there are no strategies"),
    "ICudaEngine.device_memory_size": (WEAK, "used where there is no device_memory_size_v2"),
    "ICudaEngine.device_memory_size_v2": (("10.3", "10.16", *ELEVEN, *RTX), "asked for"),
    "IExecutionContext.set_device_memory": (("10.3", "10.16", *ELEVEN, *RTX), "asked for"),
    "IExecutionContext.is_stream_capturable": (RTX, "asked for; elsewhere recording is tried"),
    "IProgressMonitor": (NEWER, "asked for"),
    "IBuilderConfig.progress_monitor": (NEWER, "used where there is an IProgressMonitor"),
    "ParserError.node_name": (NEWER, "taken where there is a node_operator"),
    "ParserError.node_operator": (NEWER, "asked for"),
    "ComputeCapability": (RTX, "a target is refused by all others"),
    "IBuilderConfig.num_compute_capabilities": (RTX, "a target is refused by all others"),
    "IBuilderConfig.set_compute_capability": (RTX, "a target is refused by all others"),
}
# Names that TensorRT has too, of objects that are not its own: paths, arrays, lists, our own classes.
OTHERS = {name for kind in (str, list, dict, set, deque, Path, np.ndarray) for name in dir(kind)}
OTHERS |= {"engine", "enqueue", "kind", "node", "precision", "read", "release", "tactic"}


def uses_in(folder: Path) -> list[Use]:
    found: set[Use] = set()
    for path in sorted(folder.glob("*.py")):
        found |= Reader(path.name, ANY).read(path.read_text()).uses
    return sorted(found, key=str)


def problems_in(folder: Path, generation: str) -> list[str]:
    """What does not fit a generation and is not known to be missing there."""
    excused = {name for name, (has, _) in ONLY.items() if generation not in has}
    excused_classes = tuple(f"{name}." for name in excused if "." not in name)
    return [
        told
        for use in uses_in(folder)
        if use.what not in excused and not use.what.startswith(excused_classes)
        if (told := problem(use, SURFACES[generation]))
    ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_name_parameter_and_setting_exists(generation: str) -> None:
    assert problems_in(SOURCES, generation) == []


@pytest.mark.parametrize("name", ONLY)
def test_what_some_generations_lack_is_where_we_think_it_is(name: str) -> None:
    uses = [use for use in uses_in(SOURCES) if use.what == name]
    assert uses, f"{name} is used no more: take it out of the table"
    has = tuple(g for g in GENERATIONS if not any(problem(use, SURFACES[g]) for use in uses))
    assert has == ONLY[name][0]
    if "asked for" in ONLY[name][1]:
        assert any(use.asked for use in uses)


def test_the_reader_sees_what_it_must() -> None:
    seen = {use.what for use in uses_in(SOURCES)}
    must = {
        *("Builder.build_serialized_network", "OnnxParser.parse_from_file", "Runtime.deserialize_cuda_engine"),
        *("ICudaEngine.get_tensor_profile_shape", "IExecutionContext.execute_async_v3", "ITimingCache.serialize"),
        *("IExecutionContext.set_tensor_address", "IOptimizationProfile.set_shape", "ILogger.log", "BuilderFlag.TF32"),
        *("IInt8EntropyCalibrator2.get_batch", "IProgressMonitor.step_complete", "ILogger.Severity.ERROR"),
        "EngineInspector.get_engine_information",
    }
    assert must <= seen
    assert len(seen) > 80


def test_no_name_of_tensorrts_is_taken_from_an_object_that_the_reader_does_not_know() -> None:
    for path in SOURCES.glob("*.py"):
        unknown = Reader(path.name, ANY).read(path.read_text()).unknown
        strange = [f"{path.name}:{line} {name}" for name, line in unknown if name in ANY.members - OTHERS]
        assert strange == [], "say in usage.SEEDS what it belongs to, or in OTHERS that it is none of TensorRT's"


@pytest.mark.parametrize(
    ("file", "right", "wrong", "told"),
    [
        ("build.py", "module.MemoryPoolType.WORKSPACE", "module.MemoryPoolType.WORK", "MemoryPoolType.WORK: "),
        ("build.py", "module.ProfilingVerbosity.DETAILED", "module.Verbosity.DETAILED", "Verbosity: "),
        ("build.py", "config.clear_flag(", "config.remove_flag(", "IBuilderConfig.remove_flag: "),
        (
            "build.py",
            "config.add_optimization_profile(profile)",
            "config.add_optimization_profile()",
            "takes (profile)",
        ),
        ("build.py", "config.builder_optimization_level =", "config.num_optimization_profiles =", "cannot be set"),
        ("build.py", "inspector.get_engine_information", "inspector.describe", "EngineInspector.describe: "),
        ("build.py", "cache.serialize()", "cache.to_bytes()", "ITimingCache.to_bytes: "),
        ("engine.py", "module.Runtime(library.logger)", "module.Runtime()", "takes (logger)"),
        ("engine.py", "engine.get_tensor_dtype(name)", "engine.get_binding_dtype(name)", "get_binding_dtype: "),
        ("lane.py", "context.execute_async_v3(", "context.execute_async_v2(", "IExecutionContext.execute_async_v2: "),
        ("session.py", "context.set_tensor_address(", "context.set_address(", "IExecutionContext.set_address: "),
        ("library.py", "def log(self", "def report(self", "ILogger.report: "),
    ],
)
def test_a_wrong_name_is_found(tmp_path: Path, file: str, right: str, wrong: str, told: str) -> None:
    text = (SOURCES / file).read_text()
    assert right in text
    (tmp_path / file).write_text(text.replace(right, wrong))
    line = next(number for number, one in enumerate((tmp_path / file).read_text().splitlines(), 1) if wrong in one)
    found = problems_in(tmp_path, "11.4")
    assert any(one.startswith(f"{file}:{line} ") and told in one for one in found), found


def module_of(surface: Surface) -> ModuleType:
    """A module with the enums and class names of a generation, to ask :class:`Library` what it makes of them."""
    module = ModuleType("tensorrt")
    module.__version__ = surface.version  # type: ignore[attr-defined]
    for name, found in surface.classes.items():
        if "." not in name:
            members = found.get("enum", {})
            setattr(module, name, enum.IntEnum(name, dict(members)) if members else type(name, (), {}))
    module.ILogger.Severity = SimpleNamespace()  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_library_knows_each_generations_typing(generation: str) -> None:
    surface = SURFACES[generation]
    flavour = "tensorrt-rtx" if generation in RTX else "tensorrt"
    library = Library(flavour, module_of(surface))
    assert library.weak_typing == (generation in WEAK)
    assert library.strong_typing == (generation in NEWER)
    assert library.highest_opset == (17 if generation in EIGHT else None)
    strong = surface.classes["NetworkDefinitionCreationFlag"]["enum"].get("STRONGLY_TYPED")
    if generation in EIGHT:
        assert library.network_flags(strong=False) == 1  # EXPLICIT_BATCH
    elif generation in TEN:
        assert library.network_flags(strong=False) == 0
        assert library.network_flags(strong=True) == 1 << int(strong or 0) == 2
    else:
        assert strong == 0
        assert library.network_flags(strong=True) == 0


@pytest.mark.parametrize("generation", RTX)
def test_the_written_surface_is_that_of_the_installed_bindings(generation: str) -> None:
    module = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX's wheels are for Linux on x86-64")
    written = json.loads((HERE / f"{generation}.json").read_text())
    if module.__version__ != written["version"]:
        pytest.skip(f"installed is {module.__version__}, written down is {written['version']}")
    command = [sys.executable, "-W", "ignore", ROOT / "scripts/tensorrt-api", "--introspect", "tensorrt_rtx_bindings"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    del written["source"]
    assert json.loads(done.stdout) == written


def test_surfaces_say_where_they_come_from() -> None:
    assert sorted(path.stem for path in HERE.glob("*.json")) == sorted(GENERATIONS)
    for path in HERE.glob("*.json"):
        value = json.loads(path.read_text())
        assert value["version"] in value["source"]
        assert len(value["classes"]) > 100
    assert ANY.form(MODULE, "Builder") == "class"
