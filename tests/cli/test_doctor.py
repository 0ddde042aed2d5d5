import json
import sys

import pytest

from redline.cli.doctor import doctor_command, machine_lines
from redline.core.plain import to_plain
from redline.diagnosis import diagnose as subject
from redline.diagnosis.answers import answer
from redline.diagnosis.diagnose import NEEDS_GPU, Diagnosis, Probed, abilities, diagnose, run_probe
from redline.diagnosis.probes import PROBES


def working(name: str) -> Probed:
    if name == "nvidia":
        return Probed((answer("gpu-0", "driver 580.95", device="NVIDIA X", detail="compute capability 9.0"),))
    names = [one.name for one in subject.SUBJECTS if one.probe == name]
    return Probed(tuple(answer(one, "1.2.3", device="CPU") for one in names))


def by_name(diagnosis: Diagnosis) -> dict[str, subject.Diagnosed]:
    return {finding.name: finding for finding in diagnosis.findings}


def test_every_subject_has_a_probe():
    assert {one.probe for one in subject.SUBJECTS} | {"nvidia"} == set(PROBES)


def test_what_works_is_ok_and_the_document_is_json():
    diagnosis = diagnose(prober=working)
    assert {finding.status for finding in diagnosis.findings} == {"ok"}
    document = to_plain(diagnosis)
    assert document["gpus"] == ["NVIDIA X, compute capability 9.0, driver 580.95"]
    assert document["findings"][1]["version"] == "1.2.3"
    assert any("cores usable" in line for line in machine_lines(diagnosis))


def test_a_broken_wheel_is_explained():
    def broken(name: str) -> Probed:
        if name == "torchvision":
            return Probed(problem="RuntimeError: operator torchvision::nms does not exist")
        return Probed(problem="ImportError: libfoo.so") if name == "timm" else working(name)

    found = by_name(diagnose(prober=broken))
    assert found["torchvision"].status == "broken"
    assert "CUDA build" in str(found["torchvision"].detail)
    assert "--index-url" in str(found["torchvision"].fix)
    assert "libfoo" in str(found["timm"].detail)


def test_no_compiler_is_unusable_with_a_fix():
    def without(name: str) -> Probed:
        return Probed((answer("torch-compile", "2", problem="no C++ compiler was found", fix="install g++"),))

    found = by_name(diagnose(prober=without))["torch-compile"]
    assert (found.status, found.fix) == ("unusable", "install g++")


def without_gpu(name: str) -> Probed:
    return Probed((answer("gpu", "", problem="there is no NVIDIA driver here"),)) if name == "nvidia" else working(name)


def test_not_installed_says_what_to_type(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subject, "find_spec", lambda name: None)
    monkeypatch.setattr(subject, "run_probe", without_gpu)
    found = by_name(diagnose())
    assert found["openvino"].fix == "pip install 'redline[openvino]'"
    assert found["openvino"].status == "missing"
    assert (found["tensorrt"].detail, found["tensorrt"].fix) == (NEEDS_GPU, None)
    assert (found["tensorrt-rtx"].detail, found["tensorrt-rtx"].fix) == (NEEDS_GPU, None)
    assert found["gpu"].detail == "there is no NVIDIA driver here"
    monkeypatch.setattr(subject, "run_probe", working)
    assert by_name(diagnose())["tensorrt"].fix == "pip install 'redline[tensorrt]'"


def test_without_a_gpu_what_needs_one_is_not_tried_and_is_one_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[str] = []

    def asking(name: str) -> Probed:
        asked.append(name)
        return without_gpu(name)

    diagnosis = diagnose(prober=asking)
    assert "tensorrt_rtx" in asked
    assert not {"tensorrt", "torch_cuda", "onnxruntime_cuda", "torch_tensorrt"} & set(asked)
    monkeypatch.setattr("redline.commands.doctor.doctor", lambda: diagnosis)
    doctor_command()
    told = " ".join(capsys.readouterr().out.split())
    assert "with a GPU: PyTorch CUDA, ONNX Runtime CUDA" in told
    assert NEEDS_GPU not in told


def test_a_probe_that_fails_is_contained(monkeypatch: pytest.MonkeyPatch):
    assert run_probe("onnxruntime").answers[0]["name"] == "onnxruntime"
    assert "ModuleNotFoundError" in str(run_probe("timm").problem) or run_probe("timm").answers
    assert "did not end" in str(run_probe("onnxruntime", timeout_s=0.01).problem)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "exit code 1" in str(run_probe("onnxruntime").problem)


def test_a_probe_that_crashes_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "crash"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    assert "SIGSEGV" in str(run_probe("onnxruntime").problem)


@pytest.mark.parametrize(
    ("flags", "have"),
    [
        (("avx2", "avx512f", "avx512_vnni", "avx512_bf16"), {"FP32", "INT8", "BF16"}),
        (("avx2",), {"FP32"}),
        (("asimd", "asimddp", "asimdhp"), {"FP32", "INT8", "FP16"}),
        ((), set()),
    ],
)
def test_abilities_in_words(flags: tuple[str, ...], have: set[str]):
    found = abilities(flags)
    assert {ability.name for ability in found if ability.available} == have
    if "avx2" in flags:
        assert "run as FP32 with casts" in found[-1].text


def test_command_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    diagnosis = diagnose(prober=working)
    monkeypatch.setattr("redline.commands.doctor.doctor", lambda: diagnosis)
    doctor_command(as_json=True)
    assert json.loads(capsys.readouterr().out)["findings"]
    doctor_command()
    assert "ONNX Runtime" in capsys.readouterr().out


@pytest.mark.slow
def test_this_machine():
    assert by_name(diagnose())["onnxruntime"].status == "ok"
