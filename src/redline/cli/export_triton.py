"""``redline export-triton``: a model repository for NVIDIA's Triton, and files for Kubernetes and KServe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress

if TYPE_CHECKING:
    from redline.commands.export_triton import TritonExport


def export_triton_command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="An .onnx, a TensorRT plan or a tune's folder; NAME=PATH names it."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="REPO", help="The repository to add to.")],
    backend: Annotated[
        str,
        typer.Option(
            "--backend", metavar="onnxruntime|python", help="What runs an .onnx; python where Triton has no other."
        ),
    ] = "onnxruntime",
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", metavar="N", help="The most rows at once; 32, or the plan's.")
    ] = None,
    max_delay_ms: Annotated[
        float, typer.Option("--max-delay-ms", metavar="X", help="How long a batch may wait to fill.")
    ] = 0.0,
    instances: Annotated[
        int | None, typer.Option("--instances", metavar="N", help="Of each model; one a core, or one a GPU.")
    ] = None,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Write manifests and a Dockerfile too.")] = False,
    kserve: Annotated[bool, typer.Option("--kserve", help="Write an InferenceService too.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write a Triton model repository; a model that is there already gets a new version.

    Example: `redline export-triton out/best -o repository --kubernetes`
    """
    from redline.commands.export_triton import export_triton

    with progress(quiet=quiet) as bar:
        bar.add_task(f"export to {out}", total=None)
        result = export_triton(
            models,
            out,
            backend=cast("Any", backend),
            max_batch=max_batch,
            max_delay_ms=max_delay_ms,
            instances=instances,
            kubernetes=kubernetes,
            kserve=kserve,
        )
    if as_json:
        print_json(
            {
                "repository": result.repository,
                "models": [
                    {
                        "name": one.prepared.model.name,
                        "version": one.added.version,
                        "folder": one.added.folder,
                        "backend": one.prepared.model.backend,
                        "max_batch": one.prepared.model.max_batch,
                        "instances": one.prepared.model.scheduling.instances,
                        "kind": one.prepared.model.scheduling.kind,
                        "precision": one.prepared.about.precision,
                        "source": one.prepared.about.source,
                        "sha256": one.prepared.about.sha256,
                        "signature": one.prepared.model.signature,
                    }
                    for one in result.models
                ],
                "files": result.files,
                "notes": result.notes,
            }
        )
    else:
        _show(result)


def _show(result: TritonExport) -> None:
    lines = []
    for exported in result.models:
        model = exported.prepared.model
        plan, about = model.scheduling, exported.prepared.about
        batch = f"batches of up to {model.max_batch}" if model.max_batch else "no batching"
        where = "GPU" if plan.kind == "gpu" else "CPU"
        lines.append(f"wrote {exported.added.folder} ({about.source}, {about.layers})")
        lines.append(f"  {model.backend}, {plan.instances} on the {where}, {batch}")
    lines += [f"wrote {path}" for path in result.files]
    lines += [f"note: {note}" for note in result.notes]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
