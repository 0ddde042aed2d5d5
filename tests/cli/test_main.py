"""What every command has in common: exit codes, one line for an error, one document for ``--json``, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.onnx_models import conv_model
from tests.studies import write_tune

import redline.cli
from redline.cli import COMMANDS, main
from redline.core.errors import BuildError, MissingDependencyError


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"redline {command}" in " ".join(out.split("Usage")[1].split("\n", 1)[1].split())
    assert err == ""


def test_no_words_show_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    out, err = capsys.readouterr()
    assert all(command in out + err for command in COMMANDS)


def json_commands(folder: Path) -> dict[str, list[str]]:
    model = str(conv_model(folder / "model.onnx"))
    data = folder / "data.npz"
    np.savez(data, image=np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32))
    return {
        "models": ["models"],
        "export": ["export", "mlp", "-o", str(folder / "mlp.onnx")],
        "optimize": ["optimize", model, "-o", str(folder / "opt.onnx"), "--pass", "onnxruntime-basic"],
        "list passes": ["optimize", "--list-passes"],
        "quantize": ["quantize", model, "-o", str(folder / "q.onnx"), "--mode", "static", "--data", str(data)],
        "run": ["run", model, "-i", str(data)],
        "verify": ["verify", model, model, "--data", str(data)],
        "report": ["report", str(write_tune(folder / "results.jsonl"))],
    }


def test_json_is_one_document_and_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, words in json_commands(tmp_path).items():
        assert main([*words, "--json"]) == 0, name
        out, err = capfd.readouterr()
        assert json.loads(out), name
        assert err == "", name


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "export", "resnet81", "-o", "x.onnx"]) == 2
    _, err = capsys.readouterr()
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("redline: error: ")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (BuildError("refused\nby the runtime"), 2, "refused by the runtime"),
        (MissingDependencyError("torch", extra="torch"), 3, "pip install 'redline[torch]'"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 3, "pip install 'redline[torch]'"),
        (ModuleNotFoundError("No module named 'nncf'", name="nncf.quantization"), 3, "pip install 'redline[openvino]'"),
        (PermissionError(13, "Permission denied", "/root/out"), 2, "/root/out: Permission denied"),
        (OSError(28, "No space left on device", "out.onnx"), 2, "disk is full"),
        (OSError(27, "File too large", "out.onnx"), 2, "out.onnx"),
        (MemoryError(), 2, "not enough memory"),
        (ZeroDivisionError("by zero"), 2, "internal error, ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), 130, "interrupted; what was finished is kept"),
    ],
)
def test_whatever_is_raised_becomes_one_line_and_a_code(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def models() -> None:
        raise error

    monkeypatch.setattr(redline, "models", models, raising=False)
    monkeypatch.setattr("redline.commands.models.models", models)
    assert main(["models"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("redline: error: ")
    assert err.count("\n") == 1
    assert told in err


MISSING: dict[str, tuple[list[str], str]] = {
    "torch for export": (["export", "mlp", "-o", "OUT.onnx"], "torch"),
    "torch for tune": (["tune", "digits", "-o", "OUT"], "torch"),
    "torch for run": (["run", "digits", "-i", "DATA"], "torch"),
    "onnxscript for export": (["export", "mlp", "-o", "OUT.onnx", "--exporter", "dynamo"], "torch"),
    "onnxoptimizer for optimize": (["optimize", "MODEL", "-o", "OUT.onnx", "--pass", "eliminate_deadend"], "optimize"),
    "onnxslim for optimize": (["optimize", "MODEL", "-o", "OUT.onnx", "--pass", "onnxslim"], "optimize"),
    "vl_convert for report": (["report", "RESULTS", "-o", "OUT.html"], "report"),
    "torchvision for tune": (["tune", "torchvision:resnet18", "-o", "OUT"], "torchvision"),
    "timm for export": (["export", "timm:resnet18", "-o", "OUT.onnx"], "timm"),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_package_is_exit_3_and_says_what_to_type(case: str, tmp_path: Path) -> None:
    words, extra = MISSING[case]
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(f"import sys; sys.modules[{case.partition(' ')[0]!r}] = None")
    names = {
        "MODEL": str(conv_model(tmp_path / "model.onnx")),
        "DATA": str(tmp_path / "x.npz"),
        "RESULTS": str(write_tune(tmp_path / "results.jsonl")),
    }
    given = [names.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "redline", *given],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hook")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("redline: error: ")
    assert done.stderr.count("\n") == 1
    assert f"pip install 'redline[{extra}]'" in done.stderr
    assert not list(tmp_path.glob("out*"))
