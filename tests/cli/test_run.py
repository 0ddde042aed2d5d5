import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from redline.backends import load_backend
from redline.cli import main
from redline.commands.run import run
from redline.core.artifact import Engine
from redline.core.errors import ArtifactError, DataError, InputError
from redline.core.plain import to_plain
from redline.core.preprocess import Preprocess
from redline.formats.onnx_file import read_onnx


def means(path: Path, *, output: str = "scores", op: str = "Identity") -> Path:
    """An ONNX classifier of colour: the mean of each channel of an 8x8 image."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image", "axes"], ["m"], keepdims=0), helper.make_node(op, ["m"], [output])],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return means(tmp_path / "colours.onnx")


@pytest.fixture
def green(tmp_path: Path) -> Path:
    path = tmp_path / "green.png"
    Image.new("RGB", (20, 30), (0, 255, 0)).save(path)
    return path


def test_arrays_in_arrays_out(model: Path, tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(70, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "in.npy", values)
    result = run(model, tmp_path / "in.npy", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as saved:
        assert np.allclose(saved["scores"], values.mean(axis=(2, 3)), atol=1e-6)
    assert len(result.guesses) == 70
    assert sum(guess.probability for guess in result.guesses[0]) == pytest.approx(1)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_image_gets_top_classes_and_the_assumption_is_said(
    model: Path, green: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["run", str(model), "-i", str(green), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["top"][0][0]["class"] == 1
    assert "ImageNet" in document["notes"][0]
    assert main(["run", str(model), "-i", str(green)]) == 0
    assert "class 1" in capsys.readouterr().out


def test_any_output_name_can_be_saved(tmp_path: Path, green: Path):
    model = means(tmp_path / "odd.onnx", output="file")
    run(model, green, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["file"].shape == (1, 3)


def test_nan_is_a_note_and_no_guess(tmp_path: Path, green: Path):
    result = run(means(tmp_path / "nan.onnx", op="Log"), green)
    assert "NaN or infinite" in result.notes[-1]
    assert result.guesses == ()


def test_engine_and_tuned_folder(model: Path, green: Path, tmp_path: Path):
    engine = load_backend("onnxruntime", {"threads": 1}).compile(read_onnx(model), tmp_path / "tuned" / "best")
    assert run(engine.path, green).guesses[0][0].index == 1
    assert run(engine.sidecar, green).guesses[0][0].index == 1
    manifest = {
        "title": "ONNX Runtime FP32",
        "engine": engine.path.name,
        "model": "model.onnx",
        "torch": None,
        "threads": 1,
        "preprocess": to_plain(Preprocess(height_px=8, width_px=8)),
        "class_names": ["red", "green", "blue"],
    }
    best = tmp_path / "tuned" / "best"
    (best / "manifest.json").write_text(json.dumps(manifest))
    for artifact in (tmp_path / "tuned", best, best / "manifest.json"):
        result = run(artifact, green)
        assert result.guesses[0][0].name == "green"
        assert result.notes == ()


def test_engine_of_another_machine_is_compiled_again_where_the_model_is_there(model: Path, green: Path, tmp_path: Path):
    best = tmp_path / "best"
    engine = load_backend("onnxruntime", {}).compile(read_onnx(model), best)
    description = json.loads(engine.sidecar.read_text())
    description["platform"]["cpu"] = "Z80"
    engine.sidecar.write_text(json.dumps(description))
    assert Engine.read(engine.path).platform["cpu"] == "Z80"
    manifest = {"engine": engine.path.name, "model": "model.onnx", "torch": None, "threads": 1}
    (best / "manifest.json").write_text(json.dumps({**manifest, "preprocess": None, "class_names": None}))
    (best / "model.onnx").write_bytes(model.read_bytes())
    result = run(best, green)
    assert result.guesses[0][0].index == 1
    assert "compiled model.onnx again" in result.notes[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engine": null, "model": null}'])
def test_broken_manifest(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match="manifest"):
        run(tmp_path)


def test_bad_input(model: Path, green: Path, tmp_path: Path):
    with pytest.raises(InputError, match="give it with -i"):
        run(model)
    with pytest.raises(InputError, match=r"ends in \.npz"):
        run(model, green, tmp_path / "out.txt")
    for name, array in {
        "rank": np.zeros((3, 8, 8), np.float32),
        "size": np.zeros((1, 3, 9, 8), np.float32),
        "dtype": np.zeros((1, 3, 8, 8), np.complex64),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(DataError):
            run(model, tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match="manifest"):
        (tmp_path / "empty").mkdir()
        run(tmp_path / "empty", green)
    assert main(["run", "no-such-model", "-i", str(green)]) == 2
    assert not (tmp_path / "out.npz").exists()
