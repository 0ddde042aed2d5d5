"""Each anomaly is seen where it was planted, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.studies import KINDS, Cell, Kind, Record, Run, study_of, usual_time

from redline.findings.anomalies import Anomaly, find_anomalies

Change = Callable[[Record], Record]


def found(change: Change = lambda record: record, **fields: Any) -> tuple[Anomaly, ...]:
    return find_anomalies(study_of(Run(change=change, **{"loaders": ("dummy",), **fields})).rows)


def one(kind: str, change: Change = lambda record: record, **fields: Any) -> Anomaly:
    """The only anomaly, and it is of that kind."""
    anomalies = found(change, **fields)
    assert [anomaly.kind for anomaly in anomalies] == [kind]
    assert anomalies[0].cells
    assert anomalies[0].cause.startswith("Likely ")
    return anomalies[0]


def in_variant(name: str, device: str = "cpu", **fields: Any) -> Change:
    def change(record: Record) -> Record:
        mine = record["kind"] in ("variant", "agreement") and (record["variant"], record["device"]) == (name, device)
        if mine:
            record.update({key: value for key, value in fields.items() if key in record})
        return record

    return change


def in_samples(cell: str, edit: Callable[[Record], None]) -> Change:
    def change(record: Record) -> Record:
        if record["kind"] == "samples" and cell in record["cell"]:
            edit(record)
        return record

    return change


@pytest.fixture
def fp16_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Adds an FP16 file of ONNX Runtime that makes so many images a second."""

    def add(speed: float) -> None:
        kind = Kind(title="ONNX Runtime FP16", backend="onnxruntime", requested="fp16", speed={"cpu": speed})
        monkeypatch.setitem(KINDS, "onnxruntime-fp16", kind)

    return add


@pytest.mark.parametrize("seed", range(8))
def test_clean_data_has_none(seed: int) -> None:
    run = Run(seed=seed, batches=(1, 2, 4, 8, 16), sizes=((112, 112), (224, 224)), loaders=("dummy", "real"))
    assert find_anomalies(study_of(run).rows) == ()


def test_a_larger_batch_with_less_throughput() -> None:
    def time(cell: Cell) -> float:
        slow = cell.batch == 4 and cell.variant == "onnxruntime-fp32" and cell.device == "cpu"
        return usual_time(cell) * (1.3 if slow else 1.0)

    anomaly = one("non-monotonic", time=time)
    assert anomaly.cells == ("net/onnxruntime-fp32/cpu/dummy/1x224x224", "net/onnxruntime-fp32/cpu/dummy/4x224x224")
    assert "from batch 1 to 4 throughput goes from 8" in anomaly.text
    assert "1.2" in anomaly.text.split("takes")[1]
    assert "another kernel" in anomaly.cause
    both = one("non-monotonic", time=time, loaders=("dummy", "real"))
    assert len(both.cells) == 4


def test_a_machine_that_was_slower_at_one_batch_is_suspected() -> None:
    def time(cell: Cell) -> float:
        return usual_time(cell) * (1.5 if cell.batch == 4 and cell.device == "cpu" else 1.0)

    anomalies = found(time=time)
    assert {anomaly.kind for anomaly in anomalies} == {"non-monotonic"}
    assert len(anomalies) == 4
    assert all("the machine" in anomaly.cause for anomaly in anomalies)


def test_a_small_loss_of_throughput_is_noise() -> None:
    assert found(time=lambda cell: usual_time(cell) * (1.02 if cell.batch == 4 else 1.0)) == ()


def test_fp16_that_ran_in_fp32() -> None:
    change = in_variant("torch-eager-fp16", "cuda", precision="fp32", layers=[["fp32", 21]])
    anomaly = one("fp16 in fp32", change)
    assert "was asked for fp16 and ran fp32" in anomaly.text
    assert len(anomaly.cells) == 3


def test_another_precision_that_was_not_run() -> None:
    change = in_variant("onnxruntime-int8-static", precision="fp32", layers=[["fp32", 20], ["int8", 1]])
    assert "was asked for int8 and ran fp32 (20 of 21 layers)" in one("fell back", change).text


def test_nodes_on_another_provider() -> None:
    change = in_variant("onnxruntime-fp32", "cuda", elsewhere="3 nodes ran on the CPU (Resize, TopK)")
    assert "3 nodes ran on the CPU (Resize, TopK)" in one("elsewhere", change).text


@pytest.mark.parametrize("speed", [60, 90])
def test_fp16_that_gains_nothing_on_a_cpu(fp16_on_cpu: Callable[[float], None], speed: float) -> None:
    fp16_on_cpu(speed)
    anomaly = one("fp16 no gain", variants=("torch-eager-fp32", "onnxruntime-fp32", "onnxruntime-fp16"))
    assert "no faster than ONNX Runtime FP32 in all 3 cells" in anomaly.text
    assert "casts" in anomaly.cause


def test_fp16_that_gains_on_a_cpu_is_fine(fp16_on_cpu: Callable[[float], None]) -> None:
    fp16_on_cpu(150)
    assert found(variants=("torch-eager-fp32", "onnxruntime-fp32", "onnxruntime-fp16")) == ()


def test_fp16_that_is_slower_on_a_gpu_but_not_one_that_is_level() -> None:
    def time(factor: float) -> Callable[[Cell], float]:
        def at(cell: Cell) -> float:
            return 0.01 * cell.batch * (factor if cell.variant == "torch-eager-fp16" else 1.0)

        return at

    assert "0.77 times its speed" in one("fp16 no gain", devices=("cuda",), time=time(1.3)).text
    assert found(devices=("cuda",), time=time(1.0)) == ()


def test_tf32_where_fp32_was_asked_for() -> None:
    change = in_variant("torch-eager-fp32", "cuda", precision="tf32", layers=[["tf32", 20], ["fp32", 1]])
    assert "was asked for fp32 and ran tf32 (20 of 21 layers)" in one("tf32", change).text


def test_tf32_that_its_name_hides_and_one_that_its_name_tells() -> None:
    ran = {"requested": "tf32", "precision": "tf32", "layers": [["tf32", 21]]}
    hidden = one("tf32", in_variant("onnxruntime-fp32", "cuda", **ran))
    assert "does not say so in its name" in hidden.text
    assert found(in_variant("onnxruntime-fp32", "cuda", title="ONNX Runtime TF32", **ran)) == ()


def test_throttling() -> None:
    def edit(record: Record) -> None:
        record["gpu"] |= {"throttle": ["sw_power_cap"], "sm_mhz": 1400}

    anomaly = one("throttled", in_samples("cuda/dummy/16x", edit))
    assert anomaly.text == (
        "the GPU reported sw_power_cap in 3 of 9 cells on cuda; the lowest clock there was 1400 MHz."
    )
    assert "limit of power" in anomaly.cause
    hot = in_samples("cuda", lambda record: record["gpu"].update(throttle=["hw_thermal_slowdown"]))
    assert "heat" in one("throttled", hot).cause


@pytest.mark.parametrize(("mhz", "fires"), [(1770, True), (1790, False)])
def test_a_clock_below_nine_tenths_of_the_highest(mhz: int, fires: bool) -> None:
    def edit(record: Record) -> None:
        if record["round"] == 2:
            record["gpu"]["sm_mhz"] = mhz

    anomalies = found(in_samples("torch-eager-fp16/cuda/dummy/1x", edit))
    assert [anomaly.kind for anomaly in anomalies] == (["throttled"] if fires else [])
    if fires:
        assert "fell to 1770 MHz, 89% of the highest seen (1980 MHz), in 1 of 9 cells" in anomalies[0].text


def test_a_warm_up_that_never_settled() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process" and "openvino-fp32/cpu/dummy/4x" in record["cell"]:
            record["stable"] = False
        return record

    assert "never settled while warming up in 1 of 2 cells" in one("unstable", change).text


def test_answers_that_are_not_finite() -> None:
    anomaly = one("not finite", in_variant("torch-eager-fp16", "cuda", finite=False))
    assert "65504" in anomaly.cause
    assert len(anomaly.cells) == 3


@pytest.mark.parametrize(
    ("variant", "answers", "fires"),
    [
        ("onnxruntime-int8-static", {"top1_agreement": 0.4}, True),
        ("onnxruntime-int8-static", {"top1_agreement": 0.95, "relative_error": 0.9}, False),
        ("onnxruntime-fp32", {"relative_error": 0.2}, True),
        ("onnxruntime-fp32", {"relative_error": 1e-4}, False),
        ("onnxruntime-fp32", {"top1_agreement": None, "relative_error": None}, False),
    ],
)
def test_answers_that_differ_grossly(variant: str, answers: dict[str, float | None], fires: bool) -> None:
    anomalies = found(in_variant(variant, **answers))
    assert [anomaly.kind for anomaly in anomalies] == (["answers differ"] if fires else [])


def test_a_loader_that_bounds_the_pipeline() -> None:
    def edit(record: Record) -> None:
        if "pipeline_s" in record:
            record["pipeline_s"] = [3 * second for second in record["samples_s"]]

    anomaly = one("loader bound", in_samples("onnxruntime-int8-static/cpu/real/4x", edit), loaders=("dummy", "real"))
    assert anomaly.cells == ("net/onnxruntime-int8-static/cpu/real/4x224x224",)
    assert "in 1 of 11 cells: a batch takes 3.00 times the model's own time" in anomaly.text


@pytest.mark.parametrize(("memory", "device"), [("private_peak_bytes", "cpu"), ("device_peak_bytes", "cuda")])
def test_memory_that_jumps(memory: str, device: str) -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process" and f"onnxruntime-fp32/{device}/" in record["cell"] and "/4x" in record["cell"]:
            record["memory"][memory] = 4_000_000_000
        return record

    anomaly = one("memory jump", change, loaders=("dummy", "real"))
    assert "from batch 1 to batch 4, 4.0 times the batch" in anomaly.text
    assert len(anomaly.cells) == 4


def test_memory_that_jumps_with_the_pixels() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process" and "openvino-fp32/cpu/dummy/1x224x" in record["cell"]:
            record["memory"]["private_peak_bytes"] = 2_000_000_000
        return record

    anomaly = one("memory jump", change, batches=(1,), sizes=((112, 112), (224, 224)))
    assert "from 112x112 to 224x224, 4.0 times the pixels" in anomaly.text


def test_a_run_of_failures_has_none() -> None:
    assert found(outcome=lambda cell: ("failed", "build", "no")) == ()


def test_many_variants_that_never_settle_are_one_anomaly() -> None:
    def change(record: Record) -> Record:
        shaky = record["kind"] == "process" and ("onnxruntime" in record["cell"] or "/16x" in record["cell"])
        return {**record, "stable": False} if shaky else record

    anomaly = one("unstable", change, devices=("cpu",))
    assert "ONNX Runtime FP32 (3)" in anomaly.text
    assert "short" in anomaly.cause


def test_jumps_of_one_variant_are_one_anomaly() -> None:
    def change(record: Record) -> Record:
        if record["kind"] == "process" and "onnxruntime-fp32/cuda/" in record["cell"]:
            record["memory"]["device_peak_bytes"] *= {"1x": 1, "4x": 8, "16": 100}[record["cell"].split("/")[-1][:2]]
        return record

    anomaly = one("memory jump", change)
    assert "such a jump is in 2 places" in anomaly.text
