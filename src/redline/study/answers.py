"""What a variant turned out to be, and whether it answers as the reference does: records of an open worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from redline.core.artifact import Layers
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.choose import Chosen
from redline.study.config import StudyConfig
from redline.study.crew import Member
from redline.study.files import Workshop
from redline.study.plan import CellGroup
from redline.study.records import AgreementFound, DependenceFound, OutputFound, Size, VariantFound
from redline.variants import Variant
from redline.verification.agreement import Gate, OutputAgreement
from redline.verification.compare import compare_outputs
from redline.verification.dependence import dependence
from redline.verification.tolerance import coarsest


def variant_of(variant: Variant, member: Member, workshop: Workshop, group: CellGroup) -> VariantFound:
    """What ran: read from the engine or the open session, never copied from the request."""
    file, engine = workshop.file_of(variant), member.launch.engine
    told = engine.provenance[-1].arguments.get("elsewhere") if engine and engine.provenance else None
    notes = [variant.note, *(str(engine.options.get("notes") or "").splitlines() if engine else ())]
    if doubt := member.worker.attribute("precision_doubt"):
        notes.append(f"its float32 layers may round to BF16: {doubt}")
    return VariantFound(
        model=group.model,
        size=group.size,
        batch=group.batch,
        variant=variant.name,
        device=variant.device,
        title=variant.title,
        backend=variant.backend,
        runtime=variant.runtime,
        requested=variant.requested,
        precision=member.layers.precision,
        layers=member.layers.counts,
        artifact=file.name if file else None,
        size_bytes=file.stat().st_size if file and file.is_file() else None,
        weights_bytes=workshop.weights_bytes(variant),
        platform=dict(engine.platform) if engine else {},
        versions=member.worker.attribute("versions", {}),
        options=dict(engine.options) if engine else dict(variant.options),
        elsewhere=str(told) if told else None,
        note="; ".join(note for note in notes if note) or None,
        evidence=member.worker.attribute("precision_evidence"),
        control=variant.control,
    )


def agreement_of(
    found: VariantFound,
    reference: Mapping[str, Array],
    outputs: Mapping[str, Array],
    chosen: Chosen,
    config: StudyConfig,
    file_layers: Layers,
) -> AgreementFound:
    """How a variant's answers compare with the reference's, and whether they pass the gate.

    Args:
        found: What the variant is.
        reference: Its answers, by output, first axis samples.
        outputs: The variant's.
        chosen: What both were asked.
        config: With the gate.
        file_layers: Of the file that it was made of: weights that were rounded explain errors, whatever runs them.
    """
    gate = Gate(min_agreement=config.min_agreement, max_accuracy_drop=config.max_accuracy_drop)
    agreement = compare_outputs(
        dict(reference),
        dict(outputs),
        labels=chosen.verification.labels,
        precision=coarsest(Layers.of(dict(found.layers)), file_layers),
        gate=gate,
    )
    finite = all(bool(np.isfinite(a).all()) for a in outputs.values() if a.dtype.kind in "fc")
    errors = [output.errors.relative for output in agreement.outputs if output.errors]
    paired = agreement.accuracy_change
    return AgreementFound(
        model=found.model,
        size=found.size,
        batch=found.batch,
        variant=found.variant,
        device=found.device,
        outputs=tuple(_output(output) for output in agreement.outputs),
        samples=agreement.samples,
        top1_output=agreement.top1_output,
        # Which class random numbers look most like says nothing.
        top1_agreement=agreement.top1_agreement if chosen.real else None,
        accuracy=agreement.accuracy,
        reference_accuracy=agreement.reference_accuracy,
        broken=paired.broken if paired else None,
        repaired=paired.repaired if paired else None,
        relative_error=max(errors) if errors and finite else None,
        finite=finite,
        passed=agreement.passed,
        reason=agreement.reason,
        evidence=agreement.evidence,
        notes=agreement.notes,
    )


def dependence_of(model: str, size: Size, outputs: Mapping[str, Array], samples: Samples) -> DependenceFound:
    """Whether the reference's answers follow its input."""
    found = dependence(dict(outputs), samples)
    return DependenceFound(
        model=model,
        size=size,
        depends_on_input=found.depends,
        ratio=found.ratio,
        classes=found.classes,
        warning=found.warning,
    )


def _output(output: OutputAgreement) -> OutputFound:
    errors = output.errors.to_json() if output.errors else dict.fromkeys(_ERRORS)
    return OutputFound(
        name=output.name, **errors, **asdict(output.tolerance), within=output.within, problem=output.problem
    )


_ERRORS = ("max_abs", "max_rel", "cosine", "snr_db", "centred_cosine", "centred_snr_db")
