"""The table: order, words, and dashes for what was not measured."""

from __future__ import annotations

from rich.console import Console

from redline.measurement.summary import Study
from redline.reporting.table import baseline_title, recommended_row, table_rows, terminal_table


def shown(study: Study, width: int = 180) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(terminal_table(study))
    return console.export_text()


def test_fastest_first_and_unmeasured_last(study: Study) -> None:
    rows = [cells.row for cells in table_rows(study, 1)]
    measured = [row.p50_s for row in rows if row.status == "ok"]
    assert measured == sorted(measured)
    assert [row.status for row in rows[-2:]] == ["failed", "skipped"]
    assert rows[0].variant == "openvino-int8"


def test_a_column_of_latencies_has_one_number_of_decimals(study: Study) -> None:
    texts = [cells.p50_ms for cells in table_rows(study, 1) if cells.row.status == "ok"]
    assert len({len(text.partition(".")[2]) for text in texts}) == 1


def test_precision_that_was_not_asked_for_is_flagged(study: Study) -> None:
    cells = {entry.row.variant: entry for entry in table_rows(study, 1)}
    assert (cells["openvino-default"].precision, cells["openvino-default"].asked) == ("bf16 (20 of 21 layers)", "fp32")
    assert cells["onnxruntime-fp16"].asked == "fp16"
    assert cells["openvino-fp32"].asked is None


def test_no_p99_from_few_samples(study: Study) -> None:
    assert {cells.p99_ms for cells in table_rows(study, 8)} == {"n=42", "–"}
    assert "–" not in {cells.p99_ms for cells in table_rows(study, 1) if cells.row.status == "ok"}


def test_failed_rows_have_no_numbers(study: Study) -> None:
    failed = table_rows(study, 1)[-2]
    numbers = (failed.p50_ms, failed.throughput, failed.speedup, failed.memory_mb, failed.accuracy, failed.max_abs)
    assert set(numbers) == {"–"}
    assert failed.gate.startswith("failed: build: torch.compile needs")


def test_recommendation_is_at_its_batch(study: Study) -> None:
    best = recommended_row(study)
    assert best is not None
    assert (best.variant, best.batch) == ("openvino-int8", 1)
    assert baseline_title(study) == "PyTorch eager FP32"


def test_terminal_shows_every_variant_at_every_batch(study: Study) -> None:
    text = shown(study)
    assert text.count("openvino-int8 ★") == 2
    for words in (
        "same",
        "batch 8",
        "not passed",
        "skipped: this CPU has no FP16",
        "was asked for fp32 and ran in bf16",
    ):
        assert words in text


def test_names_are_not_read_as_markup(edited) -> None:
    def rename(record):
        return {**record, "variant": "[red]x[/red]"} if record.get("variant") == "openvino-fp16" else record

    def rename_variant(record):
        record = rename(record)
        return {**record, "name": "[red]x[/red]"} if record.get("name") == "openvino-fp16" else record

    assert "[red]x[/red]" in shown(edited(rename_variant))


def test_terminal_table_keeps_its_numbers_at_80_columns(study: Study) -> None:
    text = shown(study, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "6.34×" in text
    assert "…" not in text
