"""Whatever file a user gives, each command works or says in one line what is wrong, and leaves nothing half-done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.onnx_models import conv_model, five_inputs, integer_input, no_inputs
from tests.studies import write_tune

from redline.cli import main

NEED_ONNX = ("optimize", "dynamic", "static", "fp16", "run", "verify")


class Cli:
    """The command line in this process, with what it printed."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = self._capture.readouterr()
        return code, out, err

    def refused(self, *words: object, code: int = 2) -> str:
        """What it complains of, after checking that the complaint is one clean line."""
        got, out, err = self(*words)
        assert got == code, (got, out, err)
        assert out == ""
        assert err.startswith("redline: error: "), err
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert "internal error" not in err
        return err.removeprefix("redline: error: ").strip()


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images for the convolutional model, as arrays."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, image=np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32))
    return path


def words_of(command: str, model: object, out: Path, data: Path) -> list[object]:
    """The command line of each command for a model; ``out`` has no suffix yet."""
    match command:
        case "optimize":
            return ["optimize", model, "-o", f"{out}.onnx", "--pass", "onnxruntime-basic"]
        case "dynamic" | "fp16":
            return ["quantize", model, "-o", f"{out}.onnx", "--mode", command]
        case "static":
            return ["quantize", model, "-o", f"{out}.onnx", "--mode", "static", "--data", data]
        case "run":
            return ["run", model, "-i", data, "-o", f"{out}.npz"]
        case "verify":
            return ["verify", model, model, "--data", data]
        case "report":
            return ["report", model, "-o", f"{out}.html"]
        case "tune":
            return ["tune", model, "-o", out, "--data", data]
        case _:
            return ["export", model, "-o", f"{out}.onnx"]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def custom_operator(path: Path) -> Path:
    proto = onnx.load_model(str(conv_model(path)))
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    proto.graph.node.append(helper.make_node("Frobnicate", ["logits"], ["y"], domain="my.domain"))
    proto.graph.output[0].name = "y"
    onnx.save_model(proto, str(path))
    return path


def newer_opset(path: Path) -> Path:
    proto = onnx.load_model(str(conv_model(path)))
    proto.opset_import[0].version = 99
    onnx.save_model(proto, str(path))
    return path


def external_data_missing(path: Path) -> Path:
    proto = onnx.load_model(str(conv_model(path)))
    onnx.save_model(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()
    return path


def nan_weights(path: Path) -> Path:
    proto = onnx.load_model(str(conv_model(path)))
    weight = proto.graph.initializer[0]
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save_model(proto, str(path))
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (written(b""), "not an ONNX file"),
    "text": (written(b"hello, I am a text file\n"), "not an ONNX file"),
    "missing": (lambda path: path, "not a file"),
    "folder": (folder, "folder|not a file|directory"),
    "newer opset": (newer_opset, "opset 99"),
    "external data missing": (external_data_missing, "weights.bin"),
    "custom operator": (custom_operator, "Frobnicate"),
}
ODD: dict[str, Callable[[Path], Path]] = {
    "no inputs": no_inputs,
    "five inputs": five_inputs,
    "integer input": integer_input,
    "fixed batch": lambda path: conv_model(path, batch=2),
    "NaN weights": nan_weights,
}


@pytest.mark.parametrize("command", [*NEED_ONNX])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_is_refused_in_one_line(command: str, case: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    if (command, case) == ("dynamic", "custom operator"):
        pytest.skip("needs no run, so the operator is kept as it is")
    make, told = BROKEN[case]
    (tmp_path / "in").mkdir()
    model = make(tmp_path / "in" / "model.onnx")
    before = leftovers(tmp_path)
    complaint = cli.refused(*words_of(command, model, tmp_path / "out", data))
    assert any(part in complaint for part in told.split("|")), complaint
    assert leftovers(tmp_path) == before


@pytest.mark.parametrize("command", NEED_ONNX)
def test_a_model_cut_anywhere_is_refused_or_works(command: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    whole = conv_model(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "in").mkdir()
    model = tmp_path / "in" / "model.onnx"
    out = tmp_path / "out" / "made"
    out.parent.mkdir()
    for cut in np.linspace(1, len(whole) - 1, 20, dtype=int):
        model.write_bytes(whole[:cut])
        complaint = cli.refused(*words_of(command, model, out, data))
        assert "truncated" in complaint or "valid" in complaint
    assert leftovers(out.parent) == []


@pytest.mark.parametrize("command", NEED_ONNX)
@pytest.mark.parametrize("case", ODD)
def test_an_odd_model_works_or_is_refused_in_one_line(
    command: str, case: str, tmp_path: Path, data: Path, cli: Cli
) -> None:
    model = ODD[case](tmp_path / "model.onnx")
    fitting = data if case in ("fixed batch", "NaN weights") else inputs_for(model, tmp_path / "inputs.npz")
    words = words_of(command, model, tmp_path / "out", fitting)
    code, out, err = cli(*words)
    assert code in (0, 1, 2)
    if code == 2:
        assert err.startswith("redline: error: ")
        assert err.count("\n") == 1
        assert "internal error" not in err
        assert out == ""
        assert not list(tmp_path.glob("out*"))
    else:
        assert "Traceback" not in err
        assert out


def inputs_for(model: Path, path: Path) -> Path:
    inputs = onnx.load_model(str(model)).graph.input
    rows = 4
    arrays = {value.name: np.ones((rows, 4), np.int64) for value in inputs if value.name == "ids"}
    arrays |= {value.name: np.ones((rows, 3), np.float32) for value in inputs if value.name.startswith("x")}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("case", [name for name in BROKEN if name != "custom operator"])
def test_report_and_export_refuse_a_model_file(case: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    (tmp_path / "in").mkdir()
    model = BROKEN[case][0](tmp_path / "in" / "model.onnx")
    before = leftovers(tmp_path)
    for command in ("report", "export"):
        assert "model.onnx" in cli.refused(*words_of(command, model, tmp_path / "out", data))
    assert leftovers(tmp_path) == before


@pytest.mark.parametrize("case", BROKEN)
def test_tune_refuses_a_broken_model_and_leaves_no_folder(case: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    (tmp_path / "in").mkdir()
    make, told = BROKEN[case]
    model = make(tmp_path / "in" / "model.onnx")
    before = leftovers(tmp_path)
    complaint = cli.refused(*words_of("tune", model, tmp_path / "out", data))
    assert any(part in complaint for part in told.split("|")), complaint
    if case != "custom operator":
        assert leftovers(tmp_path) == before


@pytest.mark.parametrize("command", [*NEED_ONNX, "report", "export", "tune"])
def test_an_output_that_cannot_be_written_is_named(command: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    model: object = conv_model(tmp_path / "model.onnx")
    if command == "verify":
        return  # it writes nothing
    if command == "report":
        model = write_tune(tmp_path / "results.jsonl")
    if command == "export":
        model = "mlp"
    (tmp_path / "file").write_text("in the way")
    before = leftovers(tmp_path)
    assert "file" in cli.refused(*words_of(command, model, tmp_path / "file" / "out", data))
    assert leftovers(tmp_path) == before


@pytest.mark.parametrize("command", ["optimize", "dynamic", "static", "fp16"])
def test_the_input_is_never_overwritten(command: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    model = conv_model(tmp_path / "model.onnx")
    before = model.read_bytes()
    assert "output" in cli.refused(*words_of(command, model, tmp_path / "model", data))
    assert model.read_bytes() == before


def test_report_does_not_overwrite_its_results(tmp_path: Path, cli: Cli) -> None:
    run = write_tune(tmp_path / "results.jsonl")
    cli.refused("report", run, "-o", run)
    run.rename(tmp_path / "results.csv")
    before = (tmp_path / "results.csv").read_bytes()
    cli.refused("report", tmp_path / "results.csv", "-o", tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_bytes() == before


def test_run_does_not_overwrite_its_input(tmp_path: Path, data: Path, cli: Cli) -> None:
    model = conv_model(tmp_path / "model.onnx")
    copy = tmp_path / "images.npz"
    copy.write_bytes(data.read_bytes())
    cli.refused("run", model, "-i", copy, "-o", copy)
    assert copy.read_bytes() == data.read_bytes()


MISSPELT: dict[str, tuple[list[str], str]] = {
    "command": (["tuen"], "tune"),
    "no command's option": (["tune", "digits"], "out"),
    "model of tune": (["tune", "resnet81", "-o", "OUT"], "resnet18"),
    "model of export": (["export", "resnet81", "-o", "OUT.onnx"], "resnet18"),
    "model of run": (["run", "resnet81", "-o", "OUT.npz"], "resnet18"),
    "variant": (["tune", "digits", "-o", "OUT", "--variant", "onnxruntime-fp23"], "onnxruntime-fp32"),
    "objective": (["tune", "digits", "-o", "OUT", "--objective", "latencyy"], "latency"),
    "method of tune": (["tune", "digits", "-o", "OUT", "--method", "minmaxx"], "minmax"),
    "device": (["tune", "digits", "-o", "OUT", "--device", "gpu"], "cuda"),
    "batch of tune": (["tune", "digits", "-o", "OUT", "--batch", "1,x"], "1,8"),
    "batch 0": (["tune", "digits", "-o", "OUT", "--batch", "0"], "at least 1"),
    "size of tune": (["tune", "digits", "-o", "OUT", "--size", "12x"], "224x256"),
    "rounds": (["tune", "digits", "-o", "OUT", "--rounds", "1"], "at least 3"),
    "rounds as text": (["tune", "digits", "-o", "OUT", "--rounds", "many"], "integer"),
    "window": (["tune", "digits", "-o", "OUT", "--window", "nan"], "more than 0"),
    "seed": (["tune", "digits", "-o", "OUT", "--seed", "-1"], "seed"),
    "gate": (["tune", "digits", "-o", "OUT", "--max-accuracy-drop", "nan"], "0 to 1"),
    "threads": (["tune", "digits", "-o", "OUT", "--threads", "-2"], "at least 0"),
    "labels without data": (["tune", "digits", "-o", "OUT", "--labels", "labels.csv"], "--data"),
    "no such data": (["tune", "digits", "-o", "OUT", "--data", "nowhere"], "nowhere"),
    "size of export": (["export", "mlp", "-o", "OUT.onnx", "--size", "12x"], "224"),
    "batch of export": (["export", "mlp", "-o", "OUT.onnx", "--batch", "many"], "dynamic"),
    "exporter": (["export", "mlp", "-o", "OUT.onnx", "--exporter", "onnx"], "dynamo"),
    "opset of export": (["export", "mlp", "-o", "OUT.onnx", "--opset", "999"], "opset"),
    "mode": (["quantize", "MODEL", "-o", "OUT.onnx", "--mode", "statik"], "static"),
    "target": (["quantize", "MODEL", "-o", "OUT.onnx", "--mode", "dynamic", "--for", "onnx"], "onnxruntime"),
    "method": (["quantize", "MODEL", "-o", "OUT.onnx", "--mode", "dynamic", "--method", "max"], "entropy"),
    "node": (["quantize", "MODEL", "-o", "OUT.onnx", "--mode", "static", "--data", "DATA", "--keep", "cnv"], "conv"),
    "pass": (["optimize", "MODEL", "-o", "OUT.onnx", "--pass", "fuse_bn_into_cnv"], "fuse_bn_into_conv"),
    "atol": (["optimize", "MODEL", "-o", "OUT.onnx", "--atol", "-1"], "atol"),
    "output of run": (["run", "MODEL", "-i", "DATA", "-o", "OUT.txt"], ".npz"),
    "no input": (["run", "MODEL"], "-i"),
    "samples of verify": (["verify", "MODEL", "MODEL", "--samples", "0"], "at least 1"),
    "gate of verify": (["verify", "MODEL", "MODEL", "--min-agreement", "2"], "0 to 1"),
    "output of report": (["report", "RESULTS", "-o", "OUT.pdf"], ".html"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_a_wrong_word_is_answered_with_the_right_ones(case: str, tmp_path: Path, data: Path, cli: Cli) -> None:
    model = conv_model(tmp_path / "model.onnx")
    results = write_tune(tmp_path / "results.jsonl")
    names = {"MODEL": str(model), "DATA": str(data), "RESULTS": str(results)}
    words, told = MISSPELT[case]
    given = [names.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in words]
    before = leftovers(tmp_path)
    assert told in cli.refused(*given)
    assert leftovers(tmp_path) == before
