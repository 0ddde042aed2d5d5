"""What doctor says on a GPU machine: real probes in their own process, beside a small fake driver and fake packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import pytest

from redline.cli.doctor import doctor_command
from redline.diagnosis.diagnose import Diagnosed, diagnose, run_probe
from redline.diagnosis.subjects import SUBJECTS
from redline.diagnosis.traps import explain

DRIVER = """
#include <stdlib.h>
#include <string.h>
static int given(const char *name, int otherwise) { char *text = getenv(name); return text ? atoi(text) : otherwise; }
int cuInit(unsigned flags) { return given("FAKE_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = given("FAKE_CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA H200", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 141UL << 30; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    int capability = given("FAKE_CAPABILITY", 90);
    *value = which == 75 ? capability / 10 : capability % 10;
    return 0;
}
"""

TENSORRT = """
__version__ = "{version}"

class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

class Builder:
    def __init__(self, logger):
        {builder}

class OnnxParser: ...
class NetworkDefinitionCreationFlag: {network}
class BuilderFlag: {builder_flags}
{more}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a fake driver with")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text(DRIVER)
    target = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(target), str(folder / "cuda.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def machine(driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU, as far as can be seen from the driver; packages put into the folder are there."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    monkeypatch.syspath_prepend(str(site))
    return site


def package(site: Path, name: str, text: str) -> None:
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(text)


def tensorrt(site: Path, version: str, *, flags: bool, strong: bool = True, builder: str = "pass") -> None:
    text = TENSORRT.format(
        version=version,
        builder=builder,
        network="STRONGLY_TYPED = 1" if strong else "pass",
        builder_flags="FP16 = 0" if flags else "pass",
        more="class IInt8EntropyCalibrator2: ..." if flags else "",
    )
    package(site, "tensorrt", text)


def looked_at(name: str) -> Diagnosed:
    subjects = tuple(one for one in SUBJECTS if one.name == name)
    return next(finding for finding in diagnose(subjects=subjects).findings if finding.name == name)


def test_the_gpu_is_a_row_of_its_own(machine: Path) -> None:
    gpu = diagnose(subjects=()).findings[0]
    assert (gpu.name, gpu.title, gpu.status) == ("gpu-0", "NVIDIA H200", "ok")
    assert gpu.detail == "compute capability 9.0, 141 GiB, driver for CUDA up to 13.0"
    assert str(gpu.version).startswith("driver ")


@pytest.mark.parametrize(
    ("code", "told"), [("100", "found no GPU"), ("803", "different versions; reboot"), ("701", "CUDA error 701")]
)
def test_a_driver_that_does_not_answer_is_told(
    machine: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    monkeypatch.setenv("FAKE_INIT", code)
    gpu = diagnose(subjects=()).findings[0]
    assert (gpu.name, gpu.status) == ("gpu", "missing")
    assert told in str(gpu.detail)


def test_tensorrt_11_says_that_flags_and_calibrators_are_gone(machine: Path) -> None:
    tensorrt(machine, "11.4.0", flags=False)
    found = looked_at("tensorrt")
    assert (found.status, found.version) == ("ok", "11.4.0")
    assert "strong typing only: no precision flags, no calibrators" in str(found.detail)
    assert "opset 18 and newer" in str(found.detail)


def test_tensorrt_8_says_what_it_has_and_which_opset_it_reads(machine: Path) -> None:
    tensorrt(machine, "8.6.1", flags=True, strong=False)
    found = str(looked_at("tensorrt").detail)
    assert found == "weak typing, precision flags, calibrators; reads ONNX up to opset 17"


def test_tensorrt_10_has_both_typings(machine: Path) -> None:
    tensorrt(machine, "10.13.3", flags=True)
    assert "weak or strong typing, precision flags, calibrators" in str(looked_at("tensorrt").detail)


def test_tensorrt_on_a_driver_that_is_too_old(machine: Path) -> None:
    logged = 'logger.log(1, "CUDA initialization failure with error: 35. Please check"); raise TypeError("nullptr")'
    tensorrt(machine, "10.13.3", flags=True, builder=logged)
    found = looked_at("tensorrt")
    assert found.status == "unusable"
    assert "older than the CUDA" in str(found.detail)
    assert "update the NVIDIA driver" in str(found.fix)


@pytest.mark.parametrize(
    ("text", "told", "fix"),
    [
        (
            'raise ImportError("libnvinfer.so.10: cannot open shared object file: No such file or directory")',
            "without TensorRT's libraries",
            "'tensorrt==10.*' --extra-index-url https://pypi.nvidia.com",
        ),
        (
            "raise ModuleNotFoundError(\"No module named 'tensorrt_bindings'\", name='tensorrt_bindings')",
            "is a shell without TensorRT in it",
            "tensorrt --extra-index-url https://pypi.nvidia.com",
        ),
        (
            'raise ImportError("libcudart.so.12: cannot open shared object file: No such file or directory")',
            "libcudart.so.12 of CUDA is not here",
            "pip install nvidia-cuda-runtime-cu12",
        ),
    ],
)
def test_a_tensorrt_without_its_libraries_is_told_so(machine: Path, text: str, told: str, fix: str) -> None:
    package(machine, "tensorrt", text)
    found = looked_at("tensorrt")
    assert found.status == "broken"
    assert told in str(found.detail)
    assert str(found.fix).endswith(fix)


def test_stubs_alone_are_not_tensorrt(machine: Path) -> None:
    (machine / "tensorrt").mkdir()
    (machine / "tensorrt" / "__init__.pyi").write_text("")
    found = looked_at("tensorrt")
    assert "is a shell without TensorRT in it" in str(found.detail)


def test_bindings_without_the_package_that_names_them(machine: Path) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is here")
    package(machine, "tensorrt_bindings", '__version__ = "10.0"')
    found = looked_at("tensorrt")
    assert (found.status, found.fix) == ("unusable", "pip install tensorrt")


def test_torch_tensorrt_of_another_torch(machine: Path) -> None:
    package(
        machine, "torch_tensorrt", 'raise OSError("/x/torch_tensorrt/lib/libtorchtrt.so: undefined symbol: _ZN3c10")'
    )
    found = looked_at("torch-tensorrt")
    assert found.status == "broken"
    assert "another version of PyTorch" in str(found.detail)


def test_pytorch_without_cuda_says_which_wheel_to_take(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch has CUDA")
    for cuda, wheel in (("13000", "cu130"), ("12090", "cu128"), ("12060", "cu126")):
        monkeypatch.setenv("FAKE_CUDA", cuda)
        found = looked_at("torch-cuda")
        assert (found.status, found.detail) == ("unusable", "this PyTorch is built without CUDA")
        assert str(found.fix).endswith(f"--index-url https://download.pytorch.org/whl/{wheel}")


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_the_cpu_build_of_onnx_runtime_is_not_its_cuda_provider(machine: Path, name: str) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    found = looked_at(name)
    assert found.status == "unusable"
    assert "is the CPU build" in str(found.detail)
    assert str(found.fix).startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")


def test_two_onnx_runtimes_in_one_folder_are_told(machine: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    (machine / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    (machine / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n"
    )
    ours = metadata.version("onnxruntime")
    told = f"onnxruntime {ours} and onnxruntime-gpu 1.31.1 lie in one folder, and the CPU one's files are on top"
    assert looked_at("onnxruntime-cuda").detail == told


def test_cuda_bindings_newer_than_the_driver(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings")
    if not metadata.version("cuda-bindings").startswith("13"):
        pytest.skip("needs the bindings of CUDA 13")
    monkeypatch.setenv("FAKE_CUDA", "12040")
    found = looked_at("cuda-bindings")
    assert found.status == "unusable"
    assert "runs CUDA up to 12.4" in str(found.detail)
    assert found.fix == "pip install 'cuda-bindings==12.*'"


@pytest.mark.parametrize(
    ("capability", "told"),
    [("90", "refuses compute capability 9.0"), ("89", "sm89, sm120"), ("89", "runs on this GPU")],
)
def test_tensorrt_rtx_says_where_its_engines_run(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capability: str, told: str
) -> None:
    if find_spec("tensorrt_rtx") is None and find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not here")
    monkeypatch.setenv("FAKE_CAPABILITY", capability)
    found = looked_at("tensorrt-rtx")
    assert found.status == "ok"
    assert told in str(found.detail)
    assert "strong typing only" in str(found.detail)


def test_tensorrt_rtx_builds_without_a_gpu() -> None:
    if find_spec("tensorrt_rtx") is None and find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not here")
    found = looked_at("tensorrt-rtx")
    assert found.status == "ok"
    assert "builds for sm75" in str(found.detail)


def test_the_table_fits_a_terminal_of_100_columns(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorrt(machine, "11.4.0", flags=False)
    names = ("torch-cuda", "tensorrt", "tensorrt-rtx", "torch-tensorrt")
    diagnosis = diagnose(subjects=tuple(one for one in SUBJECTS if one.name in names))
    monkeypatch.setattr("redline.commands.doctor.doctor", lambda: diagnosis)
    monkeypatch.setenv("COLUMNS", "100")
    doctor_command()
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines[lines.index(next(x for x in lines if x.startswith("NVIDIA GPU"))) :]) <= 100
    assert any(line.startswith("yes") and "NVIDIA H200" in line for line in lines)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("ImportError: libcuda.so.1: cannot open shared object file", "needs the NVIDIA driver"),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "no code for this GPU"),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040)", "driver is older"),
        ("RuntimeError: Found no NVIDIA driver on your system", "sees no GPU in this process"),
        ("ImportError: numpy.core.multiarray failed to import", "built for NumPy 1"),
        ("RuntimeError: operator torchvision::nms does not exist", "CUDA build of PyTorch"),
    ],
)
def test_known_errors_have_a_meaning(problem: str, told: str) -> None:
    found = explain(problem)
    assert found is not None
    assert told in found[0]


def test_unknown_errors_have_none() -> None:
    assert explain("ValueError: seven") is None
    assert explain("ImportError: libfoo.so.3: cannot open shared object file") is None


@pytest.mark.gpu
@pytest.mark.parametrize("probe", ["nvidia", "torch_cuda", "onnxruntime_cuda", "cuda_bindings", "tensorrt"])
def test_on_a_gpu_a_probe_works_or_says_why(probe: str) -> None:
    if not run_probe("nvidia").answers or run_probe("nvidia").answers[0]["problem"]:
        pytest.skip("needs an NVIDIA GPU")
    found = run_probe(probe)
    assert found.answers or found.problem
    for answer in found.answers:
        assert answer["problem"] is None or len(answer["problem"]) < 300
