from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.scale.detector_models import spot_model

import scale
from scale.cli import main

SLIDE = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spot_model(tmp_path_factory.mktemp("models") / "spots.onnx", size_px=128)


def test_a_slide_is_searched_and_the_result_is_a_table(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["detect", str(SLIDE), "-m", str(model), "-o", str(tmp_path), "--overlap", "32", "--timing"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "done" in out
    assert "spot" in out
    assert "infer spots" in out
    assert f"scale view {tmp_path}" in out
    assert "windows," in err
    assert "inferences; the models need about" in err
    assert {"detections.geojson", "detections.parquet"} <= {path.name for path in (tmp_path / SLIDE.stem).iterdir()}


def test_json_is_one_document_and_quiet_is_silent(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["detect", str(SLIDE), "-m", str(model.parent), "-o", str(tmp_path), "--format", "json", "--json", "-q"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(out)["slides"]
    assert (row["status"], row["files"]) == ("done", {"json": "detections.json"})
    assert row["detections"] > 200
    assert err == ""


def test_windows_that_hold_as_many_boxes_as_are_kept_are_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["detect", str(SLIDE), "-m", str(model), "-o", str(tmp_path), "--format", "json", "--max-detections", "3"]
    assert main(words) == 0
    told = re.search(r"full: (\d+) windows of model spots hold as many boxes", capsys.readouterr().out)
    assert told is not None
    assert main([*words, "--resume", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["slides"]
    assert (row["status"], row["full_windows"]) == ("kept", {"spots": int(told[1])})
    assert main([*words[:-1], "1000", "--fresh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["slides"][0]["full_windows"] == {}


def test_models_windows_and_classes_come_from_a_toml_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "models.toml"
    config.write_text(
        f'[[model]]\nname = "Nuclei"\nfile = "{model}"\nwindow = 256\nclasses = {{ 0 = "Nucleus" }}\n'
        "[postprocess]\nNucleus = { nms = 0.4 }\n"
    )
    out = tmp_path / "out"
    assert main(["detect", str(SLIDE), "--config", str(config), "-o", str(out), "--format", "json", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["slides"][0]["counts"]) == ["Nucleus"]
    manifest = json.loads((out / SLIDE.stem / "manifest.json").read_text())
    assert manifest["plan"]["groups"][0][:2] == [["Nuclei"], 256]


def test_a_bad_slide_among_good_ones_is_exit_1(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"no slide")
    words = ["detect", str(bad), str(SLIDE), "-m", str(model), "-o", str(tmp_path / "out"), "--format", "csv"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "bad.svs failed: " in err
    assert "failed: " not in out  # told once
    assert "1 of 2 slides are done; go on with --resume" in out
    assert [row["status"] for row in json.loads((tmp_path / "out" / "run.json").read_text())["slides"]].count("done")


def test_a_cohort_that_is_resumed_with_other_settings_is_exit_2_and_told_once(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = [str(tmp_path / name) for name in ("a.svs", "b.svs")]
    for slide in slides:
        Path(slide).symlink_to(SLIDE)
    words = ["detect", *slides, "-m", str(model), "-o", str(tmp_path / "out"), "--format", "csv"]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--resume", "--overlap", "0.3"]) == 2
    out, err = capsys.readouterr()
    assert [line.count("settings.overlap 0.25, now 0.3") for line in err.splitlines()] == [1, 1]
    assert "settings" not in out
    assert "0 of 2 slides are done\n" in out
    assert main([*words, "-q"]) == 2
    assert capsys.readouterr().out.count("failed: ") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["SLIDE", "-o", "OUT"], "got no models"),
        (["SLIDE", "-m", "gone", "-o", "OUT"], "gone is not there"),
        (["SLIDE", "-m", "EMPTY", "-o", "OUT"], "holds no model"),
        (["SLIDE", "-m", "MODEL", "--config", "x.toml", "-o", "OUT"], "--config names the models"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--overlap", "much"], "got overlap 'much'"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--overlap", "1.5"], "overlap"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--section", "first"], "got section 'first'"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--merge", "best"], "merge method 'best'"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--format", "pdf"], "got format 'pdf'"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--resume", "--fresh"], "expected one of the two"),
        (["gone.svs", "-m", "MODEL", "-o", "OUT"], "gone.svs"),
        (["SLIDE", "-m", "MODEL", "-o", "OUT", "--format", ","], "got --format without a format"),
        (["SLIDE", "-m", "MODEL", "-o", "MODEL"], "spots.onnx' is a file; see --help"),
        (["SLIDE", "-m", "MODEL"], "Missing option '--out' / '-o'; see --help"),
        (["-m", "MODEL", "-o", "OUT"], "Missing argument 'SLIDE...'; see --help"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], told: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"SLIDE": SLIDE, "MODEL": model, "OUT": tmp_path / "out", "EMPTY": tmp_path / "empty"}
    assert main(["detect", *(str(names.get(word, word)) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scale: error: ")
    assert err.count("\n") == 1
    assert told in err


def test_an_engine_an_onnx_file_and_weights_of_one_name_are_one_model(tmp_path: Path) -> None:
    from scale.cli.common import models_of

    spot_model(tmp_path / "a.onnx", size_px=64)
    for name in ("a.engine", "a.pt", "b.pt"):
        (tmp_path / name).touch()
    specs = models_of([tmp_path], None)
    assert [(spec.name, spec.window_px) for spec in specs] == [("a", 64), ("b", 640)]
    assert [spec.window_px for spec in models_of([tmp_path], None, window_px=300)] == [300, 300]


def test_ctrl_c_is_exit_130_and_what_is_finished_is_kept(model: Path, tmp_path: Path) -> None:
    words = ["detect", str(SLIDE), "-m", str(model), "-o", str(tmp_path), "--overlap", "0.25", "--strip-windows", "4"]
    command = [sys.executable, "-m", "scale", *words, "--no-tissue", "--format", "json", "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shards = tmp_path / SLIDE.stem / "shards"
    while process.poll() is None and len(list(shards.glob("0*.npz"))) < 2:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert err.splitlines()[-1] == "scale: error: interrupted; what was finished is kept; go on with --resume"
    assert len(list(shards.glob("0*.npz"))) >= 2
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "of them done" in done.stderr


def test_a_missing_package_is_exit_3_and_says_what_to_type(model: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tifffile'] = None")
    done = subprocess.run(
        [sys.executable, "-m", "scale", "detect", str(SLIDE), "-m", str(model), "-o", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "pip install 'redline[scale]'" in done.stderr.splitlines()[-1]


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("detect", "info", "view", "convert"):
        assert main([command, "--help"]) == 0
        assert f"scale {command}" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom scale.cli import main\nmain(['--help'])\n"
        "assert not [m for m in ('torch', 'onnx', 'onnxruntime', 'cv2', 'numba', 'flask') if m in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
