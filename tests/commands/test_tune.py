"""``redline.tune`` from a model to the folder that is deployed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from tests.onnx_models import conv_model, five_inputs, integer_input, no_inputs

import redline
from redline.cli import main
from redline.commands.tune import TUNE, TuneResult, tune
from redline.core.errors import InputError, WorkerError
from redline.core.files import sha256_of
from redline.study.ceilings import _GEMM_TRIALS
from redline.study.config import StudyConfig
from redline.study.journal import read_records
from redline.study.records import ArtifactMade, Conclusion
from redline.variants import VARIANTS, Variant

# The random state is left to chance, so that equal answers show that every process has the same weights.
RANDOM_NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
    def forward(self, image):
        return self.second(torch.relu(self.first(image))).mean((2, 3))

def make():
    torch.seed()
    return Net(), torch.rand(1, 3, 16, 16)
"""
SHORT: dict[str, Any] = {"repeats": 1, "confirm": 1, "rounds": 3, "window_s": 0.02, "threads": 1}
ORT = "onnxruntime-fp32"


def options(*variants: str, **more: Any) -> StudyConfig:
    return replace(TUNE, variants=variants, **(SHORT | more))


def rows_of(result: TuneResult) -> dict[str, Any]:
    return {row.variant: row for row in result.study.rows}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, and what lies about in folders of images."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index:02}.png")
    whole = (folder / "00.png").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("P", (1, 1)).save(folder / "dot.gif")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("net") / "net.py"
    path.write_text(RANDOM_NET)
    return f"{path}:make"


@pytest.fixture(scope="session")
def tuned(net: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TuneResult, Path]:
    out = tmp_path_factory.mktemp("tuned") / "out"
    names = ("torch-eager-fp32", "torchscript-fp32", ORT, "onnxruntime-int8-dynamic", "onnxruntime-fp16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redline.study.ceilings._GEMM_TRIALS", _GEMM_TRIALS[:1])
        return tune(net, out, data=photos, config=options(*names)), out


@pytest.fixture
def no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring this machine's limits takes longer than tuning a model of three layers."""
    monkeypatch.setattr("redline.study.ceilings._GEMM_TRIALS", ())
    monkeypatch.setattr("redline.study.ceilings.copy_gbytes_per_s", lambda threads: 10.0)


def test_every_variant_answers_as_the_model_does(tuned: tuple[TuneResult, Path]) -> None:
    rows = rows_of(tuned[0])
    assert {row.outcome for row in rows.values()} == {"measured"}
    assert set(rows) == {"torch-eager-fp32", "torch-eager-fp32-control", "torchscript-fp32", ORT} | {
        "onnxruntime-int8-dynamic",
        "onnxruntime-fp16",
    }
    for name in ("torchscript-fp32", ORT):
        assert rows[name].passed
        assert rows[name].max_abs is not None
        assert rows[name].max_abs < 1e-5
    assert rows["onnxruntime-int8-dynamic"].max_abs > 1e-5
    assert all(row.top1_agreement is not None for row in rows.values() if not row.control)
    assert all(row.time_s > 0 and row.host_bytes > 0 for row in rows.values())
    assert rows[ORT].share_of_limit > 0


def test_precision_is_what_ran(tuned: tuple[TuneResult, Path]) -> None:
    rows = rows_of(tuned[0])
    assert rows[ORT].precision == "fp32"
    assert rows["onnxruntime-int8-dynamic"].precision == "int8"
    assert rows["onnxruntime-fp16"].requested == "fp16"
    assert rows["onnxruntime-fp16"].size_bytes < rows[ORT].size_bytes


def test_used_images_are_counted_and_skipped_ones_named(tuned: tuple[TuneResult, Path]) -> None:
    data = tuned[0].study.run.data
    assert data.calibration + data.verification + len(data.skipped) == 15
    assert data.verification >= data.calibration >= 6
    skipped = {one.name: one.reason for one in data.skipped}
    assert {"broken.jpg", "notes.txt"} <= set(skipped)
    assert all(skipped.values())


def test_best_is_whole_and_answers_as_the_model_does(tuned: tuple[TuneResult, Path], photos: Path, net: str) -> None:
    best = tuned[0].best
    assert best is not None
    manifest = json.loads((best / "manifest.json").read_text())
    assert manifest["sha256"] == {path.name: sha256_of(path) for path in best.iterdir() if path.name != "manifest.json"}
    assert manifest["variant"] == tuned[0].study.conclusion.recommended  # type: ignore[union-attr]
    assert manifest["preprocess"]
    image = photos / "03.png"
    answer = redline.run(best, image).outputs
    whole = redline.run(tuned[1], image).outputs
    exported = redline.run(next((tuned[1] / "artifacts").glob("net_make.onnx")), image).outputs
    for name, values in answer.items():
        np.testing.assert_array_equal(whole[name], values)
        np.testing.assert_allclose(exported[name], values, atol=0.1)


def test_the_results_make_every_report(tuned: tuple[TuneResult, Path], tmp_path: Path) -> None:
    out = tuned[1]
    study = redline.report(out / "results.jsonl")
    assert study.rows == tuned[0].study.rows
    assert study.conclusion == tuned[0].study.conclusion
    for name in ("report.html", "report.md", "results.csv"):
        made = tmp_path / name
        redline.report(out / "results.jsonl", made)
        assert made.stat().st_size > 500
        assert (out / name).stat().st_size > 500
    with (out / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(study.rows)


def test_records_say_what_was_made_and_how(tuned: tuple[TuneResult, Path]) -> None:
    out = tuned[1]
    records = read_records(out / "results.jsonl")
    artifacts = [record for record in records if isinstance(record, ArtifactMade)]
    assert {Path(record.path).name for record in artifacts} == {path.name for path in out.glob("artifacts/*.onnx")}
    for record in artifacts:
        assert sha256_of(out / record.path) == record.sha256
        assert record.provenance
    assert isinstance(records[-1], Conclusion)


def test_only_what_is_promised_is_in_the_folder(tuned: tuple[TuneResult, Path]) -> None:
    names = {path.name for path in tuned[1].iterdir()}
    promised = {"results.jsonl", "report.html", "report.md", "results.csv", "artifacts", "engines", "best"}
    assert names - {".lock"} == promised
    assert not [path for path in tuned[1].rglob("*") if "partial" in path.name]


@pytest.mark.slow
def test_digits_have_an_accuracy(tmp_path: Path, no_ceilings: None, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--variant",
        ORT,
        "--rounds",
        "3",
        "--repeats",
        "1",
        "--confirm",
        "0",
        "--window",
        "0.02",
        "--threads",
        "1",
        "--json",
    ]
    assert main(["tune", "digits", "-o", str(tmp_path / "out"), *words]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["gate_passed"] is True
    assert err == ""
    rows = redline.report(tmp_path / "out" / "results.jsonl").rows
    ort = next(row for row in rows if row.variant == ORT)
    assert ort.accuracy is not None
    assert ort.accuracy > 0.9
    assert ort.accuracy_drop == pytest.approx(0, abs=0.01)


ONNX = {"five inputs": five_inputs, "integer input": integer_input, "no inputs": no_inputs}


@pytest.mark.parametrize("case", ONNX)
def test_an_onnx_file_is_tuned_against_itself(case: str, tmp_path: Path, no_ceilings: None) -> None:
    model = ONNX[case](tmp_path / "model.onnx")
    result = tune(str(model), tmp_path / "out", config=options(ORT, batches=(1, 2)))
    assert {(row.variant, row.batch, row.outcome) for row in result.study.rows} == {
        (name, batch, "measured") for name in (ORT, f"{ORT}-control") for batch in (1, 2)
    }
    assert result.best is not None
    assert (result.best / "model.onnx").is_file()


def test_an_integer_model_is_fed_from_arrays(tmp_path: Path, no_ceilings: None) -> None:
    model = integer_input(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", ids=np.random.default_rng(0).integers(0, 10, (8, 4)))
    result = tune(str(model), tmp_path / "out", data=tmp_path / "data.npz", config=options(ORT))
    assert result.study.run.data.verification == 4
    assert rows_of(result)[ORT].passed


def test_a_fixed_batch_is_taken_or_named(tmp_path: Path, no_ceilings: None) -> None:
    model = conv_model(tmp_path / "model.onnx", batch=2)
    with pytest.raises(InputError, match=r"takes batches of 2 only, got --batch 1; type --batch 2"):
        tune(str(model), tmp_path / "out", config=options(ORT))
    assert not (tmp_path / "out").exists()
    result = tune(str(model), tmp_path / "out", config=options(ORT, batches=(2,)))
    assert rows_of(result)[ORT].outcome == "measured"


DEADLY_NET = RANDOM_NET.replace(
    "        return",
    """        if image.dtype == torch.bfloat16:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls > 40:
                import os
                os.kill(os.getpid(), 9)
        if torch.jit.is_tracing():
            import os
            os._exit(3)
        return""",
)


@pytest.mark.slow
def test_what_dies_or_cannot_be_built_is_a_row_and_the_run_goes_on(
    tmp_path: Path, photos: Path, no_ceilings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(DEADLY_NET)
    # As if it were fp32, so that it is tried on processors without bf16 too.
    dies = Variant(
        name="dies",
        title="Dies",
        backend="torch",
        runtime="torch",
        requested="fp32",
        options={"mode": "eager", "dtype": "bf16"},
    )
    refused = Variant(
        name="refused", title="Refused", backend="onnxruntime", runtime="onnxruntime", requested="fp32",
        file="optimized", options={"graph_optimization": "everything"},
    )  # fmt: skip
    monkeypatch.setattr("redline.variants.VARIANTS", (*VARIANTS, dies, refused))
    monkeypatch.setattr("redline.study.launch.find_spec", lambda name: None if name == "openvino" else find_spec(name))
    chosen = options("torchscript-fp32", ORT, "openvino-fp32", "dies", "refused", rounds=5)
    result = tune(f"{tmp_path / 'net.py'}:make", tmp_path / "out", data=photos, config=chosen)
    rows = rows_of(result)
    assert "exit code 3" in rows["torchscript-fp32"].reason
    assert "graph_optimization" in rows["refused"].reason
    assert rows["dies"].reason == "the worker was killed by signal 9, most often the kernel when memory runs out"
    assert {rows[name].outcome for name in ("torchscript-fp32", "refused", "dies")} == {"failed"}
    assert rows["openvino-fp32"].outcome == "skipped"
    assert rows["openvino-fp32"].reason == "openvino is not installed; type: pip install 'redline[openvino]'"
    assert rows["torch-eager-fp32"].outcome == rows[ORT].outcome == "measured"
    assert result.best is not None


def nan_model(path: Path) -> Path:
    proto = onnx.load_model(str(conv_model(path)))
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "fc_b")
    bias.CopyFrom(numpy_helper.from_array(np.full(5, np.nan, np.float32), "fc_b"))
    onnx.save_model(proto, str(path))
    return path


def test_where_nothing_passes_the_exit_code_is_1_and_nothing_is_deployed(
    tmp_path: Path, no_ceilings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nan_model(tmp_path / "model.onnx")
    words = [
        "--variant",
        ORT,
        "--rounds",
        "3",
        "--repeats",
        "1",
        "--confirm",
        "0",
        "--window",
        "0.02",
        "--threads",
        "1",
    ]
    assert main(["tune", str(model), "-o", str(tmp_path / "out"), *words]) == 1
    out, err = capsys.readouterr()
    assert "Nothing can be recommended" in out
    assert err == ""
    assert not (tmp_path / "out" / "best").exists()
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_reference_that_fails_ends_the_run_with_its_reason(
    tmp_path: Path, no_ceilings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Variant(
        name=ORT,
        title="ORT",
        backend="onnxruntime",
        runtime="onnxruntime",
        requested="fp32",
        file="optimized",
        options={"nonsense": 1},
    )
    monkeypatch.setattr("redline.variants.VARIANTS", (broken,))
    monkeypatch.setattr("redline.study.plan.VARIANTS", (broken,))
    model = conv_model(tmp_path / "model.onnx")
    with pytest.raises(WorkerError, match=r"the reference itself \(ORT\) failed to build: .*nonsense"):
        tune(str(model), tmp_path / "out", config=options(ORT))
