from __future__ import annotations

import json
import pickle
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data
from tests.onnx_models import conv_model, save_graph

from redline.backends import load_backend
from redline.commands import serve_models
from redline.commands.serve_models import make_opener, sources_of
from redline.core.artifact import Engine
from redline.core.errors import ArtifactError, InputError, RedlineError
from redline.core.files import sha256_of
from redline.formats.onnx_file import read_onnx
from redline.serving.models import Loaded, Models, Settings

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, to see that none stays."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return conv_model(tmp_path / "conv.onnx")


def engine_of(model: Path, folder: Path, backend: str = "onnxruntime") -> Path:
    folder.mkdir(exist_ok=True)
    return load_backend(backend).compile(read_onnx(model), folder).path


def tuned(folder: Path, original: Path, **told: Any) -> Path:
    """The ``best`` of a tune, as far as it is read."""
    best = folder / "best"
    best.mkdir(parents=True)
    shutil.copy2(original, best / "model.onnx")
    engine = engine_of(original, best)
    value = {
        "format": 1,
        "backend": "onnxruntime",
        "engine": engine.name,
        "model": "model.onnx",
        "torch": None,
        "threads": 2,
        "preprocess": None,
        "class_names": [f"class {index}" for index in range(5)],
    }
    (best / "manifest.json").write_text(json.dumps({**value, **told}))
    return best


def answer(loaded: Loaded, run: int = 0) -> np.ndarray:
    return loaded.runs[run]({"image": IMAGE})["logits"]


def test_an_onnx_file_is_one_session_for_all_runs(model: Path, scratch: Path) -> None:
    loaded = make_opener(instances=3)(model)
    assert len(loaded.runs) == 3
    assert len({id(run) for run in loaded.runs}) == 1
    assert (loaded.backend, loaded.platform, loaded.device, loaded.precision) == (
        "onnxruntime",
        "onnx_onnxv1",
        "cpu",
        "fp32",
    )
    assert loaded.size_bytes == model.stat().st_size
    assert loaded.preprocess is not None
    assert "assumed" in loaded.notes[0]
    assert list(scratch.iterdir()) == []
    answers: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda run=run: answers.append(answer(loaded, run))) for run in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, answers[0]) for one in answers)
    assert len(answers) == 3
    loaded.close()
    with pytest.raises(InputError, match="closed"):
        answer(loaded)


def test_there_are_as_many_runs_as_cores_for_them(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_models, "usable_cores", lambda _: 6)
    for threads, expected in ((None, 6), (1, 6), (2, 3), (4, 1), (16, 1), (0, 1)):
        assert len(make_opener(threads=threads)(model).runs) == expected
    assert len(make_opener(threads=4, instances=5)(model).runs) == 5


def test_the_threads_are_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def spy(path: Path, *, threads: int) -> Any:
        asked.append((threads, Engine.described(path).options["threads"]))
        return serve_models_open(path, threads=threads)

    serve_models_open = serve_models.open_any
    monkeypatch.setattr(serve_models, "open_any", spy)
    for threads in (None, 2, 0):
        make_opener(threads=threads, instances=1)(model)
    assert asked == [(1, 1), (2, 2), (0, 0)]


@pytest.mark.parametrize(("threads", "instances"), [(-1, None), (None, 0)])
def test_wrong_numbers_are_refused(threads: int | None, instances: int | None) -> None:
    with pytest.raises(InputError, match="expected"):
        make_opener(threads=threads, instances=instances)


def test_a_session_for_one_thread_is_opened_several_times(model: Path, tmp_path: Path) -> None:
    loaded = make_opener(threads=1, instances=2)(engine_of(model, tmp_path / "engines", "reference"))
    assert len({id(run) for run in loaded.runs}) == 2
    assert loaded.platform == "redline"
    assert np.array_equal(answer(loaded, 0), answer(loaded, 1))
    loaded.close()


def test_an_engine_is_opened_by_itself_or_its_description(model: Path, tmp_path: Path) -> None:
    engine = engine_of(model, tmp_path / "engines")
    for path in (engine, engine.with_name(engine.name + ".engine.json")):
        loaded = make_opener()(path)
        assert loaded.size_bytes == engine.stat().st_size
        assert answer(loaded).shape == (2, 5)
        loaded.close()


def test_a_tune_is_opened_by_its_folder_its_best_or_its_manifest(model: Path, tmp_path: Path) -> None:
    best = tuned(tmp_path / "out", model)
    for path in (best.parent, best, best / "manifest.json"):
        loaded = make_opener()(path)
        assert loaded.class_names == ("class 0", "class 1", "class 2", "class 3", "class 4")
        assert len({id(run) for run in loaded.runs}) == 1
        loaded.close()


def test_a_tune_says_how_images_are_prepared(model: Path, tmp_path: Path) -> None:
    told = {"height_px": 16, "width_px": 16, "mean": [0.1] * 3, "std": [0.2] * 3}
    loaded = make_opener()(tuned(tmp_path / "out", model, preprocess=told))
    assert loaded.preprocess is not None
    assert loaded.preprocess.mean == (0.1, 0.1, 0.1)
    assert loaded.notes == ()
    loaded.close()


def test_a_tune_whose_model_runs_as_it_is(model: Path, tmp_path: Path, scratch: Path) -> None:
    loaded = make_opener(instances=2)(tuned(tmp_path / "out", model, engine=None))
    assert len({id(run) for run in loaded.runs}) == 1
    assert answer(loaded).shape == (2, 5)
    loaded.close()
    assert list(scratch.iterdir()) == []


def test_an_engine_of_another_machine_is_compiled_again(model: Path, tmp_path: Path) -> None:
    best = tuned(tmp_path / "out", model)
    expected = answer(make_opener()(best))
    (sidecar,) = best.glob("*.engine.json")
    value = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**value, "platform": {**value["platform"], "cpu": "another"}}))
    before = {path: sha256_of(path) for path in best.iterdir()}
    loaded = make_opener()(best)
    assert "compiled model.onnx again" in loaded.notes[0]
    assert str(tmp_path) not in loaded.notes[0]
    np.testing.assert_allclose(answer(loaded), expected, rtol=1e-5)
    assert {path: sha256_of(path) for path in best.iterdir()} == before
    loaded.close()


@pytest.mark.parametrize("key", ["engine", "model"])
def test_a_manifest_names_nothing_outside_its_folder(model: Path, tmp_path: Path, key: str) -> None:
    for name in ("../../conv.onnx", str(model)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with pytest.raises(InputError, match="outside its folder"):
            make_opener()(tuned(tmp_path / "out", model, **{key: name}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engine": null, "model": null, "torch": null}', "\0"])
def test_a_broken_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError):
        make_opener()(tmp_path / "manifest.json")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pt2", "model.pkl", "model.onnx.pkl", "weights.bin"])
def test_no_pickle_is_read(tmp_path: Path, name: str) -> None:
    went_off = tmp_path / "went-off"
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb(went_off)))
    for ask in (make_opener(), lambda path: sources_of([str(path)])):
        with pytest.raises(InputError, match="loads no code and no pickle"):
            ask(path)
    assert not went_off.exists()


def test_no_python_file_is_run(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name in (str(path), f"{path}:make"):
        with pytest.raises(InputError):
            sources_of([name])
        with pytest.raises(InputError):
            make_opener()(Path(name))
    assert not (tmp_path / "ran").exists()


def test_an_engine_that_holds_code_is_refused(model: Path, tmp_path: Path) -> None:
    engine = engine_of(model, tmp_path / "engines")
    sidecar = engine.with_name(engine.name + ".engine.json")
    for backend in ("torch-tensorrt", "no-such-backend"):
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "backend": backend}))
        with pytest.raises(InputError, match="hold code and pickles"):
            make_opener()(engine)


@pytest.mark.parametrize(
    "torch",
    [
        {"ref": {"name": "net.py:make", "weights": None, "size_px": None}, "weights_file": None},
        {"ref": {"name": "net.pt2", "weights": None, "size_px": None}, "weights_file": None},
        {"ref": {"name": "digits", "weights": "pretrained.pt", "size_px": None}, "weights_file": None},
        {"ref": {"name": "digits", "weights": None, "size_px": None}, "weights_file": "weights.pt"},
        {"ref": {"name": "digits", "weights": None, "size_px": None}, "weights_file": "../weights.safetensors"},
        {"ref": "digits"},
        ["digits"],
    ],
)
def test_a_tuned_pytorch_model_is_served_without_code_or_pickle_of_its_own(
    model: Path, tmp_path: Path, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_models, "open_any", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(InputError):
        make_opener()(tuned(tmp_path / "out", model, engine=None, model=None, torch=torch))


def weights_in(path: Path, location: str, *, nested: bool = False) -> Path:
    """A model that keeps a weight in another file, in a subgraph where ``nested``."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], np.ones(2, np.float32).tobytes(), raw=True)
    set_external_data(tensor, location=location, offset=0, length=8)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    if nested:
        nodes = [helper.make_node("Constant", [], ["w"]), helper.make_node("Add", ["x", "w"], ["y"])]
        nodes[0].attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor))
        body = helper.make_graph(nodes, "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])
        nodes = [
            helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True])),
            helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body),
        ]
    else:
        nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    inputs = {"x": (TensorProto.FLOAT, [2])}
    save_graph(path, nodes, inputs, {"y": (TensorProto.FLOAT, [2])})
    proto = onnx.load_model(str(path), load_external_data=False)
    if not nested:
        proto.graph.initializer.append(tensor)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("how", ["absolute", "parent", "link"])
def test_weights_outside_the_models_folder_are_refused(tmp_path: Path, how: str, nested: bool) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.full(2, 7, np.float32).tobytes())
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    location = {"absolute": str(secret), "parent": "../secret.bin", "link": "link.bin"}[how]
    with pytest.raises(ArtifactError, match="outside its folder"):
        make_opener()(weights_in(folder / "model.onnx", location, nested=nested))


@pytest.mark.parametrize("nested", [False, True])
def test_weights_beside_the_model_are_read(tmp_path: Path, nested: bool) -> None:
    (tmp_path / "weights.bin").write_bytes(np.full(2, 7, np.float32).tobytes())
    loaded = make_opener()(weights_in(tmp_path / "model.onnx", "weights.bin", nested=nested))
    np.testing.assert_array_equal(loaded.runs[0]({"x": np.zeros(2, np.float32)})["y"], [7, 7])
    loaded.close()


def test_a_truncated_file_is_an_error_and_leaves_nothing(model: Path, scratch: Path) -> None:
    whole = model.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        model.write_bytes(whole[:size])
        with pytest.raises(RedlineError):
            make_opener()(model)
    assert list(scratch.iterdir()) == []


def test_what_cannot_be_served_says_what_can(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"plan")
    (tmp_path / "empty").mkdir()
    for argument, words in {
        str(tmp_path / "none.onnx"): "is not there; expected an ONNX file",
        "resnet18": "redline export resnet18 -o resnet18.onnx",
        str(tmp_path / "model.plan"): "model.plan.engine.json beside it",
        str(tmp_path / "empty"): "is a folder without a model",
        f"x={tmp_path / 'empty'}": "is a folder without a model",
        "a b=model.onnx": "expected NAME=PATH",
        "name=": "expected NAME=PATH",
    }.items():
        with pytest.raises(InputError, match=words):
            sources_of([argument])


def test_names_come_from_the_argument_the_file_or_the_tune(model: Path, tmp_path: Path) -> None:
    odd = shutil.copy2(model, tmp_path / "ResNet 18 (v2).onnx")
    equal = shutil.copy2(model, tmp_path / "a=b.onnx")
    best = tuned(tmp_path / "digits", model)
    engine = engine_of(model, tmp_path / "engines")
    arguments = [model, f"q={model}", odd, equal, best, f"t={best.parent}", engine, f"s={engine}.engine.json"]
    found = sources_of([str(argument) for argument in arguments[:6]])
    assert [source.name for source in found.models] == ["conv", "q", "ResNet-18-v2-", "a-b", "digits", "t"]
    assert [source.name for source in sources_of([str(one) for one in arguments[6:]]).models] == ["conv", "s"]
    assert dict(found.models[4].versions) == {"1": best}
    assert found.repositories == ()


def test_two_of_one_name_are_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "conv.onnx"
    other.parent.mkdir()
    shutil.copy2(model, other)
    with pytest.raises(InputError, match="conv2="):
        sources_of([str(model), str(other)])


def test_a_folder_is_a_repository_or_the_versions_of_one_model(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in (1, 2):
        (root / "net" / str(number)).mkdir(parents=True)
        shutil.copy2(model, root / "net" / str(number) / "model.onnx")
    assert sources_of([str(root)]).repositories == (root,)
    (source,) = sources_of([str(root / "net")]).models
    assert (source.name, source.newest_first) == ("net", ["2", "1"])
    (source,) = sources_of([f"other={root / 'net'}"]).models
    assert source.versions["2"] == root / "net" / "2" / "model.onnx"


def test_a_repository_of_real_models_is_loaded_and_loaded_again(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "net" / "1").mkdir(parents=True)
    shutil.copy2(model, root / "net" / "1" / "model.onnx")
    models = Models(make_opener(instances=2), Settings())
    models.add_repository(root)
    first = answer(models.get("net").loaded)
    scratch = root / "net" / "2.part"
    scratch.mkdir()
    conv_model(scratch / "model.onnx", seed=1)
    models.rescan()
    assert models.versions("net") == ["1"]
    scratch.rename(root / "net" / "2")
    models.rescan()
    assert models.versions("net") == ["2"]
    assert not np.allclose(answer(models.get("net").loaded), first)
    (root / "net" / "3").mkdir()
    (root / "net" / "3" / "model.onnx").write_bytes(model.read_bytes()[:100])
    models.rescan()
    assert models.versions("net") == ["2"]
    states = {row["version"]: row["state"] for row in models.index()}
    assert (states["2"], states["3"]) == ("READY", "UNAVAILABLE")
    assert str(root) not in json.dumps(models.index())
    models.close()
