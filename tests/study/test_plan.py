"""Cells: every combination once, those that nothing offers with the reason, groups in a drawn order."""

from __future__ import annotations

from redline.study.config import StudyConfig
from redline.study.plan import baseline_of, expected_s, group_cells, plan_cells


def config(**values: object) -> StudyConfig:
    given = {"models": ("resnet18",), "sizes": ((224, 224),), **values}
    return StudyConfig(**given)  # type: ignore[arg-type]


def test_every_combination_is_there_once() -> None:
    cells = plan_cells(
        config(
            backends=("torch", "onnxruntime"),
            precisions=("fp32", "int8"),
            loaders=("dummy", "real"),
            batches=(1, 8),
            sizes=((64, 64), (64, 96)),
        )
    )
    # torch fp32 and its control, onnxruntime fp32 and int8 exist; torch int8 is a row that says that there is none.
    assert len(cells) == len({cell.id for cell in cells}) == 5 * 2 * 2 * 2
    assert "resnet18/onnxruntime-int8-static/cpu/real/8x64x96" in {cell.id for cell in cells}


def test_what_nothing_offers_is_a_cell_with_the_reason() -> None:
    refused = {cell.variant.name: cell.refused for cell in plan_cells(config(precisions=("fp32", "int8")))}
    assert refused["torch-int8"] == "there is no torch in int8 on cpu"
    assert refused["openvino-int8-static"] is None


def test_the_baseline_is_always_there_and_first() -> None:
    cells = plan_cells(config(backends=("onnxruntime",), devices=("cpu", "cuda"), baseline="torch-fp32"))
    assert [cell.variant.name for cell in cells] == [
        "torch-eager-fp32",
        "torch-eager-fp32-control",
        "onnxruntime-fp32",
    ] * 2
    assert baseline_of(config(baseline="openvino-fp32"), "cuda") is None


def test_groups_hold_all_cells_in_an_order_that_the_seed_draws() -> None:
    grid = config(batches=(1, 2, 4, 8, 16), sizes=((64, 64), (96, 96)))
    cells = plan_cells(grid)
    groups = group_cells(cells, seed=1)
    assert sorted(cell.id for group in groups for cell in group.cells) == sorted(cell.id for cell in cells)
    assert all(len({(cell.batch, cell.size) for cell in group.cells}) == 1 for group in groups)
    assert group_cells(cells, seed=1) == groups
    assert [group.title for group in group_cells(cells, seed=2)] != [group.title for group in groups]


def test_more_turns_are_expected_to_take_longer() -> None:
    few, many = config(rounds=5), config(rounds=50)
    first, second = (group_cells(plan_cells(grid), 0)[0] for grid in (few, many))
    assert expected_s(first, few) < expected_s(second, many)
