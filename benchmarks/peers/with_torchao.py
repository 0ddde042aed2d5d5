"""torchao: the documented static INT8 flow for x86, compiled ahead of time so that plain PyTorch can load it."""

from __future__ import annotations

import torch
from common import Job, Product, main, torch_module, versions

BATCHES = (1, 8)


def static_int8(job: Job) -> tuple[Product, ...]:
    torch.set_num_threads(1)
    # Without it the number of threads at compile time is written into the code.
    torch._inductor.config.cpp.dynamic_threads = True
    # Packs the weights for oneDNN's int8 kernels; without it the package runs in floating point.
    torch._inductor.config.freezing = True
    images = torch.from_numpy(job.calibration)
    with torch.no_grad():
        return tuple(_compile(job, images, batch) for batch in BATCHES)


def _compile(job: Job, images: torch.Tensor, batch: int) -> Product:
    file = job.out / f"int8_b{batch}.pt2"
    example = (images[:batch],)
    quantized = _quantize(torch_module(job.torch), images, example)
    program = torch.export.export(quantized, example)
    torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    return Product(
        name=f"torchao-int8-b{batch}",
        file=file.name,
        format="aoti-package",
        how=f"X86InductorQuantizer defaults, frozen, AOTInductor, static shape, batch {batch}",
        runtime="torch",
        batch=batch,
    )


def _quantize(model: torch.nn.Module, images: torch.Tensor, example: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    # The quantizer tells the two uses of a block's one ReLU apart only in a strict export.
    prepared = prepare_pt2e(torch.export.export(model, example, strict=True).module(), quantizer)
    batch = len(example[0])
    for start in range(0, len(images) - batch + 1, batch):
        prepared(images[start : start + batch])
    return convert_pt2e(prepared)


if __name__ == "__main__":
    main(
        "torchao",
        lambda: versions("torchao", "torch"),
        {"prepare_pt2e(X86InductorQuantizer), convert_pt2e, torch._inductor.aoti_compile_and_package": static_int8},
    )
