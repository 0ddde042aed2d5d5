"""``scale info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from redline.cli.common import JsonFlag, console, print_json
from scale.cli.common import models_of, parse_overlap

if TYPE_CHECKING:
    from scale.pipeline.inspect import SlideFacts

_OVERLAPS = "0.2,0.25,0.5,0.8"


def info_command(
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide.")],
    models: Annotated[
        list[Path] | None, typer.Option("--models", "-m", metavar="DIR|FILE", help="What would look at it; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="Names models and windows.")] = None,
    window: Annotated[int | None, typer.Option(min=1, metavar="PX", help="Side of the windows; 640 by itself.")] = None,
    overlap: Annotated[str, typer.Option(help="Shares or pixels to count windows for.")] = _OVERLAPS,
    json: JsonFlag = False,
) -> int:
    """Say what a slide is, its sections, and how many windows and inferences an overlap would cost.

    Example: `scale info slide.svs --config models.toml --overlap 0.25,0.8`
    """
    from scale.pipeline.inspect import Looker, inspect_slide

    if models or config:
        specs = models_of(models or [], config, window_px=window)
        lookers = [Looker(name=spec.name, window_px=spec.window_px) for spec in specs]
    else:
        lookers = [Looker(name="one model", window_px=window or 640)]
    facts = inspect_slide(slide, lookers, [parse_overlap(part) for part in overlap.split(",")])
    if json:
        print_json(facts)
    else:
        _print(facts)
    return 0


def _print(facts: SlideFacts) -> None:
    size = f"{facts.levels[0].width_px:,} x {facts.levels[0].height_px:,} px"
    mpp = f"{facts.mpp:g} micrometres a pixel" if facts.mpp else "micrometres a pixel unknown"
    power = f", {facts.magnification:g}x" if facts.magnification else ""
    console.print(f"{facts.path}: {size}, {mpp}{power}, read by {facts.reader}", markup=False, soft_wrap=True)
    levels = Table("level", "width", "height", "downsample", box=None, pad_edge=False)
    for number, level in enumerate(facts.levels):
        levels.add_row(str(number), f"{level.width_px:,}", f"{level.height_px:,}", f"{level.downsample:g}")
    console.print(levels)
    sections = "1 section" if len(facts.sections) == 1 else f"{len(facts.sections)} sections"
    console.print(f"\n{facts.tissue_share:.0%} of it is tissue, in {sections}", soft_wrap=True)
    for region in facts.sections:
        text = f"  {region.name}: {region.width_px:,} x {region.height_px:,} px at ({region.x0:,}, {region.y0:,})"
        console.print(text, markup=False, soft_wrap=True)
    costs = Table("overlap", "windows", "inferences", "inferences without tissue mask", box=None, pad_edge=False)
    for cost in facts.costs:
        costs.add_row(f"{cost.overlap:g}", f"{cost.windows:,}", f"{cost.inferences:,}", f"{cost.all_inferences:,}")
    console.print()
    console.print(costs)
