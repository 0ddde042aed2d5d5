"""``redline export-triton``: what of each kind of model comes into the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import conv_model, save_graph

from redline.backends import load_backend
from redline.cli import main
from redline.commands.export_triton import export_triton
from redline.core.artifact import Engine, Layers, Step
from redline.core.errors import InputError
from redline.core.files import sha256_of
from redline.core.plain import from_plain, to_plain
from redline.core.preprocess import Detection, Preprocess, Usage
from redline.core.tensor import Signature, TensorSpec
from redline.deployment.repository import models_in
from redline.formats.onnx_file import read_onnx, save_proto

NAMES = ("cat", "dog", "bird", "fish", "fly")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return conv_model(tmp_path / "conv net.onnx")


def config_of(repository: Path, name: str) -> str:
    return (repository / name / "config.pbtxt").read_text()


def named(path: Path, usage: Usage) -> Path:
    step = Step(step="test", arguments={}, parent_sha256=None, versions={})
    save_proto(onnx.load_model(str(path)), path, step=step, parent=None, usage=usage)
    return path


def plan(folder: Path, *, shape: tuple[int | str, ...] = ("batch", 3, 16, 16), **options: Any) -> Path:
    """A TensorRT plan as Redline describes one; Triton would open its bytes, nobody here does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "net.plan"
    path.write_bytes(b"a plan")
    taken = TensorSpec("logits", (shape[0], 5), "float32")
    Engine(
        path=path,
        sha256=sha256_of(path),
        backend=options.pop("backend", "tensorrt"),
        signature=Signature((TensorSpec("image", shape, "float32"),), (taken,)),
        layers=Layers.of({"fp16": 2}),
        platform={"tensorrt": "10.9.0"},
        options={"profiles": "", **options},
        usage=Usage(class_names=NAMES),
    ).save()
    return path


def tuned(tmp_path: Path, **changes: Any) -> Path:
    """The folder of a tune that recommends an ONNX file."""
    best = tmp_path / "My tune" / "best"
    best.mkdir(parents=True)
    conv_model(best / "model.onnx")
    manifest = {
        "format": 1,
        "title": "A variant",
        "engine": None,
        "model": "model.onnx",
        "torch": None,
        "preprocess": to_plain(Preprocess(height_px=16, width_px=16)),
        "class_names": list(NAMES),
    }
    (best / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    return best


def test_an_onnx_file(tmp_path: Path, model: Path) -> None:
    result = export_triton(model, tmp_path / "r", instances=3, max_batch=8, max_delay_ms=2.5)
    folder = tmp_path / "r" / "conv-net"
    assert result.models[0].added.folder == folder / "1"
    assert (folder / "1/model.onnx").read_bytes() == model.read_bytes()
    text = config_of(tmp_path / "r", "conv-net")
    assert 'backend: "onnxruntime"\nmax_batch_size: 8\n' in text
    assert "max_queue_delay_microseconds: 2500" in text
    assert "count: 3\n    kind: KIND_CPU" in text
    about = json.loads((folder / "1/redline.json").read_text())
    assert (about["sha256"], about["precision"], about["source"]) == (sha256_of(model), "fp32", "conv net.onnx")
    assert [path.name for path in result.files] == ["README.md"]


def test_the_precision_that_a_tune_measured_is_told(tmp_path: Path) -> None:
    best = tuned(tmp_path, precision="bf16", layers="bf16 (20 of 21 layers)")
    export_triton(best, tmp_path / "r")
    (about,) = (tmp_path / "r").rglob("redline.json")
    told = json.loads(about.read_text())
    assert (told["precision"], told["layers"]) == ("bf16", "bf16 (20 of 21 layers)")
    from redline.commands.serve import make_server

    served = make_server(best)
    try:
        assert [row.precision for row in served.models()] == ["bf16"]
    finally:
        served.close()


def test_the_python_backend_gets_its_program(tmp_path: Path, model: Path) -> None:
    export_triton(f"net={model}", tmp_path / "r", backend="python")
    version = tmp_path / "r/net/1"
    compile((version / "model.py").read_text(), "model.py", "exec")
    assert "class TritonPythonModel" in (version / "model.py").read_text()
    assert (version / "model.onnx").is_file()
    assert 'backend: "python"' in config_of(tmp_path / "r", "net")
    assert "pip install numpy onnxruntime" in (tmp_path / "r/README.md").read_text()


def test_class_names_become_labels(tmp_path: Path, model: Path) -> None:
    export_triton(named(model, Usage(class_names=NAMES)), tmp_path / "r")
    assert (tmp_path / "r/conv-net/labels.txt").read_text().splitlines() == list(NAMES)
    assert 'label_filename: "labels.txt"' in config_of(tmp_path / "r", "conv-net")


def test_weights_beside_the_file_come_along(tmp_path: Path) -> None:
    proto = onnx.load_model(str(conv_model(tmp_path / "whole.onnx")))
    (tmp_path / "split").mkdir()
    path = tmp_path / "split/m.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location="m.weights", size_threshold=0)
    export_triton(path, tmp_path / "r")
    copied = tmp_path / "r/m/1/model.onnx"
    assert (copied.parent / "m.weights").read_bytes() == (tmp_path / "split/m.weights").read_bytes()
    image = {"image": np.ones((1, 3, 16, 16), np.float32)}
    answers = [
        ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, image)[0]
        for file in (copied, tmp_path / "whole.onnx")
    ]
    np.testing.assert_array_equal(*answers)


def test_weights_under_a_name_that_the_repository_needs_are_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "split").mkdir()
    path = tmp_path / "split/m.onnx"
    onnx.save_model(
        onnx.load_model(str(model)), str(path), save_as_external_data=True, location="model.onnx", size_threshold=0
    )
    with pytest.raises(InputError, match=r"keeps weights in 'model\.onnx'"):
        export_triton(path, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_fixed_batch_is_told_and_not_batched(tmp_path: Path) -> None:
    result = export_triton(conv_model(tmp_path / "m.onnx", batch=2), tmp_path / "r")
    assert "max_batch_size: 0" in config_of(tmp_path / "r", "m")
    assert "dims: [ 2, 3, 16, 16 ]" in config_of(tmp_path / "r", "m")
    assert any(note.startswith("m: requests are not batched") for note in result.notes)


def test_one_number_a_row_is_told(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0)
    inputs, outputs = {"x": (TensorProto.FLOAT, ["batch", 4])}, {"mean": (TensorProto.FLOAT, ["batch"])}
    path = save_graph(tmp_path / "m.onnx", [node], inputs, outputs)  # type: ignore[arg-type]
    assert any("clients see mean as [batch, 1]" in note for note in export_triton(path, tmp_path / "r").notes)


def test_an_image_of_open_size_is_warmed_up_at_its_usual_one(tmp_path: Path) -> None:
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", 3, "h", "w"])}, {"y": (TensorProto.FLOAT, ["n", 3, "h", "w"])}
    path = save_graph(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], inputs, outputs)  # type: ignore[arg-type]
    export_triton(path, tmp_path / "unknown")
    assert "model_warmup" not in config_of(tmp_path / "unknown", "m")
    export_triton(named(path, Usage(preprocess=Preprocess(height_px=20, width_px=24))), tmp_path / "known")
    assert "dims: [ 3, 20, 24 ]" in config_of(tmp_path / "known", "m")


@pytest.mark.parametrize(
    ("profiles", "preferred", "largest", "count"),
    [
        ("", "[ 8 ]", 32, 1),
        ("1,1,1;2,16,64", "[ 16 ]", 64, 2),
        ("1,1,4", None, 4, 1),
        ("image=1x3x16x16,4x3x16x16,12x3x16x16", "[ 4 ]", 12, 1),
    ],
)
def test_a_plan_runs_as_its_profiles_say(
    tmp_path: Path, profiles: str, preferred: str | None, largest: int, count: int
) -> None:
    result = export_triton(plan(tmp_path / "e", profiles=profiles), tmp_path / "r")
    text = config_of(tmp_path / "r", "net")
    assert f'backend: "tensorrt"\nmax_batch_size: {largest}\n' in text
    assert ("preferred_batch_size" in text) == (preferred is not None)
    assert preferred is None or f"preferred_batch_size: {preferred}" in text
    assert "count: 1\n    kind: KIND_GPU" in text
    assert ("profile: [" in text) == (count > 1)
    assert "intra_op" not in text
    assert (tmp_path / "r/net/1/model.plan").read_bytes() == b"a plan"
    assert Engine.read(tmp_path / "r/net/1/model.plan").layers.precision == "fp16"
    assert result.notes == ("net: the plan needs a Triton with TensorRT 10.9.0",)


def test_a_plan_takes_no_larger_batch_than_it_was_built_for(tmp_path: Path) -> None:
    path = plan(tmp_path / "e", profiles="1,8,16")
    with pytest.raises(InputError, match="expected at most 16"):
        export_triton(path, tmp_path / "r", max_batch=17)
    export_triton(path, tmp_path / "r", max_batch=4)
    text = config_of(tmp_path / "r", "net")
    assert "max_batch_size: 4" in text
    assert "preferred_batch_size" not in text


def test_a_plan_that_needs_several_rows_is_told(tmp_path: Path) -> None:
    notes = export_triton(plan(tmp_path / "e", profiles="4,8,16"), tmp_path / "r").notes
    assert any("4 rows at least" in note for note in notes)


def test_a_plan_of_fixed_shapes(tmp_path: Path) -> None:
    export_triton(plan(tmp_path / "e", shape=(1, 3, 16, 16)), tmp_path / "r")
    assert "max_batch_size: 0" in config_of(tmp_path / "r", "net")


def test_a_plan_whose_bytes_changed_is_refused(tmp_path: Path) -> None:
    path = plan(tmp_path / "e")
    path.write_bytes(b"another")
    with pytest.raises(Exception, match="build the engine again"):
        export_triton(path, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("where", [lambda best: best, lambda best: best.parent, lambda best: best / "manifest.json"])
def test_the_folder_of_a_tune(tmp_path: Path, where: Callable[[Path], Path]) -> None:
    export_triton(where(tuned(tmp_path)), tmp_path / "r")
    assert models_in(tmp_path / "r") == {"My-tune": [1]}
    assert (tmp_path / "r/My-tune/labels.txt").read_text().splitlines() == list(NAMES)


def test_a_tuned_detector_stays_one(tmp_path: Path) -> None:
    best = tuned(tmp_path)
    detection = Detection(task="detect", head="v8", stride=8)
    named(best / "model.onnx", Usage(detection=detection))
    export_triton(best, tmp_path / "r")
    usage = from_plain(Usage, json.loads((tmp_path / "r/My-tune/1/redline.json").read_text())["usage"], where="usage")
    assert usage == Usage(preprocess=Preprocess(height_px=16, width_px=16), class_names=NAMES, detection=detection)


def test_an_engine_of_a_tune_gives_way_to_the_file_beside_it(tmp_path: Path) -> None:
    best = tuned(tmp_path, engine="model.ort.onnx")
    load_backend("onnxruntime", {"threads": 1}).compile(read_onnx(best / "model.onnx"), best)
    result = export_triton(f"net={best}", tmp_path / "r")
    assert (tmp_path / "r/net/1/model.onnx").read_bytes() == (best / "model.onnx").read_bytes()
    assert "model.ort.onnx is an engine of onnxruntime, which Triton does not load" in result.notes[0]


def test_an_engine_that_ran_on_a_gpu_stays_on_one(tmp_path: Path) -> None:
    best = tuned(tmp_path, engine="net.plan")
    plan(best, backend="onnxruntime-cuda")
    export_triton(f"net={best}", tmp_path / "r")
    text = config_of(tmp_path / "r", "net")
    assert 'backend: "onnxruntime"' in text
    assert "KIND_GPU" in text


def test_the_plan_of_a_tune(tmp_path: Path) -> None:
    best = tuned(tmp_path, engine="net.plan")
    plan(best)
    export_triton(best, tmp_path / "r")
    assert (tmp_path / "r/My-tune/1/model.plan").is_file()


def test_a_lone_engine_of_a_runtime_that_triton_lacks(tmp_path: Path, model: Path) -> None:
    engine = load_backend("onnxruntime", {"threads": 1}).compile(read_onnx(model), tmp_path / "engines")
    with pytest.raises(InputError, match="give the ONNX file that it was built from"):
        export_triton(engine.path, tmp_path / "r")
    step = engine.provenance[-1]
    told = replace(step, arguments={**step.arguments, "model_file": f"../{model.name}"})
    replace(engine, provenance=(*engine.provenance[:-1], told)).save()
    export_triton(engine.path, tmp_path / "r")
    assert (tmp_path / "r/conv-net/1/model.onnx").read_bytes() == model.read_bytes()


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({"torch": {"ref": "resnet18"}, "model": None}, "which Triton does not load; export an ONNX file"),
        ({"model": None}, "which Triton does not load"),
        ({"preprocess": 3}, "is not a manifest of redline tune"),
    ],
)
def test_a_tune_that_triton_cannot_run(tmp_path: Path, manifest: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        export_triton(tuned(tmp_path, **manifest), tmp_path / "r")


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ([], "got no model"),
        (["missing.onnx"], "is not there"),
        (["."], "without manifest.json"),
        (["notes.txt"], "expected an .onnx"),
        (["a=conv net.onnx", "a=conv net.onnx"], "got a twice"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, models: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").touch()
    with pytest.raises(InputError, match=told):
        export_triton(models, "r")
    assert not Path("r").exists()


def test_several_models_and_a_new_version(tmp_path: Path, model: Path) -> None:
    export_triton([f"a={model}", f"b={model}"], tmp_path / "r")
    export_triton(f"a={model}", tmp_path / "r")
    assert models_in(tmp_path / "r") == {"a": [1, 2], "b": [1]}
    assert "| `a` | 1, 2 |\n| `b` | 1 |" in (tmp_path / "r/README.md").read_text()


def test_files_for_kubernetes_are_written_once(tmp_path: Path, model: Path) -> None:
    result = export_triton(model, tmp_path / "r", kubernetes=True, kserve=True)
    names = {path.name for path in result.files}
    assert names == {"Dockerfile", ".dockerignore", "kubernetes.yaml", "kserve.yaml", "README.md"}
    assert not [path for path in (tmp_path / "r").iterdir() if path.is_dir() and path.name != "conv-net"]
    mine = "# edited\n" + (tmp_path / "r/kubernetes.yaml").read_text()
    (tmp_path / "r/kubernetes.yaml").write_text(mine)
    (tmp_path / "r/README.md").write_text("Mine.")
    again = export_triton(model, tmp_path / "r", kubernetes=True)
    assert (tmp_path / "r/kubernetes.yaml").read_text() == mine
    assert (tmp_path / "r/README.md").read_text() == "Mine."
    assert [note.split(" is there")[0].split("/")[-1] for note in again.notes] == ["kubernetes.yaml", "README.md"]


def test_a_repository_with_a_plan_runs_in_triton(tmp_path: Path, model: Path) -> None:
    export_triton(plan(tmp_path / "e"), tmp_path / "r")
    export_triton(model, tmp_path / "r", kubernetes=True)
    text = (tmp_path / "r/kubernetes.yaml").read_text()
    assert 'nvidia.com/gpu: "1"' in text
    assert "tritonserver" in (tmp_path / "r/Dockerfile").read_text()
    assert "--gpus all" in (tmp_path / "r/README.md").read_text()


def test_redline_serve_opens_the_repository(tmp_path: Path, model: Path) -> None:
    export_triton([f"a={model}", f"b={model}"], tmp_path / "r", backend="python", kubernetes=True)
    from redline.commands.serve import make_server

    made = make_server(tmp_path / "r")
    try:
        assert {row.name for row in made.models()} == {"a", "b"}
    finally:
        made.close()


def test_the_command_line(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export-triton", f"net={model}", "-o", str(tmp_path / "r"), "--instances", "2"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["models"][0]["name"] == "net"
    assert (told["models"][0]["version"], told["models"][0]["max_batch"], told["models"][0]["instances"]) == (1, 32, 2)
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "net/2 (conv net.onnx, fp32)" in shown.replace("\n", "")
    assert "onnxruntime, 2 on the CPU, batches of up to 32" in shown


@pytest.mark.parametrize(
    "more", [["--backend", "openvino"], ["--instances", "0"], ["--max-batch", "0"], ["--max-delay-ms", "-1"]]
)
def test_wrong_options_are_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert main(["export-triton", str(model), "-o", str(tmp_path / "r"), *more]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "r").exists()
