"""The one rule for samples: what a model is calibrated on, what it is verified on, and whether they are real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redline.core.errors import DataError
from redline.core.preprocess import Preprocess
from redline.core.samples import Samples
from redline.core.tensor import Signature
from redline.data.images import infer_preprocess
from redline.data.sources import load_asset, load_samples
from redline.data.synthetic import synthetic_samples

RANDOM = "inputs are random numbers (no --data was given): speed is real, agreement and accuracy prove little"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a model needs of its samples.

    Attributes:
        asset: The name of data that ships with Redline and fits the model.
        class_names: In the order of their indices, for labels that are words.
    """

    signature: Signature
    preprocess: Preprocess | None = None
    asset: str | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Disjoint samples; ``warning`` says where they are not real."""

    calibration: Samples
    verification: Samples
    warning: str | None = None

    @property
    def real(self) -> bool:
        """Whether they are real ones and no random numbers."""
        return self.warning is None


def choose_samples(
    needs: Needs,
    data: Path | None,
    labels: Path | None = None,
    *,
    counts: tuple[int, int],
    seed: int = 0,
) -> Chosen:
    """Of ``data`` where it is given, else of what ships with the model, else random numbers.

    Args:
        needs: Of the model.
        data: Folder of images or array file.
        labels: CSV file of labels.
        counts: How many to calibrate on and to verify on, at most.
        seed: Of the split, and of random numbers.

    Raises:
        DataError: the data cannot be used; says why.
    """
    if data is not None:
        samples = load_samples(
            data,
            needs.signature,
            needs.preprocess or infer_preprocess(needs.signature),
            labels=labels,
            classes=needs.class_names or None,
            limit=sum(counts),
        )
        calibration, verification = samples.split(counts[0], seed=seed)
        return Chosen(calibration=calibration, verification=verification)
    if labels is not None:
        raise DataError(f"got labels in {labels} without the images; give the folder with --data")
    if needs.asset and needs.preprocess:
        name = needs.signature.inputs[0].name
        calibration, verification = load_asset(needs.asset, needs.preprocess, input_name=name)
        return Chosen(calibration=_first(calibration, counts[0]), verification=_first(verification, counts[1]))
    first = max(counts[0] // 4, 1)
    samples = synthetic_samples(needs.signature, first + max(counts[1] // 4, 1), seed=seed)
    calibration, verification = samples.split(first, seed=seed)
    return Chosen(calibration=calibration, verification=verification, warning=RANDOM)


def _first(samples: Samples, count: int) -> Samples:
    if len(samples) <= count:
        return samples
    kept, _ = samples.split(count, seed=0) if count <= len(samples) // 2 else (samples, samples)
    return kept
