"""``redline models``: the built-in models."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, console, print_json


def models_command(as_json: JsonFlag = False) -> None:
    """List the built-in models: name, input, parameters, weights.

    Example: `redline models --json`
    """
    from redline.commands.models import models

    found = models()
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "input": ["batch", *entry.shape],
                    "parameters": entry.parameters,
                    "weights": entry.weights,
                    "description": entry.description,
                }
                for name, entry in found.items()
            ]
        )
        return
    table = Table("name", "input", "parameters", "weights", "", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for name, entry in found.items():
        shape = "×".join(map(str, entry.shape))
        weights = "trained, shipped" if entry.weights else "random"
        table.add_row(escape(name), shape, f"{entry.parameters:,}", weights, escape(entry.description))
    console.print(table)
    console.print(
        "also: torchvision:NAME, timm:NAME, path/to/file.py:function, a .pt2 or TorchScript file, an .onnx",
        markup=False,
        soft_wrap=True,
    )
