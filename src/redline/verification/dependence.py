"""Notice a model whose answers do not depend on its input: agreement on it proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.verification.accuracy import top1_of
from redline.verification.judge import is_float
from redline.verification.tolerance import rms, spread_of

# A random-weight ResNet-18 has 0.02 (logits spread 0.164 over classes, 0.003 over inputs); a trained network is
# far above 0.3, since different inputs have different classes.
_LEAST_RATIO = 0.05
_FEW_CLASSES_RATIO = 0.5
_LEAST_SPREAD = 1e-4
_ENOUGH_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """Whether a model's answers follow its input.

    Attributes:
        depends: False where agreement with this model proves nothing.
        ratio: What varies with the input over what varies between classes (or, where there are no classes, over
            the size of the answers); the largest over outputs.
        classes: How many different top-1 classes the samples got; None where no output looks like classes.
        warning: What to tell the reader; None where all is well.
    """

    depends: bool
    ratio: float
    classes: int | None
    warning: str | None

    def to_json(self) -> dict[str, Any]:
        """As part of a result file."""
        return {
            "depends_on_input": self.depends,
            "ratio": self.ratio,
            "classes": self.classes,
            "warning": self.warning,
        }


def dependence(outputs: Mapping[str, Array], samples: Samples) -> Dependence:
    """Look at the reference's answers on the samples.

    Args:
        outputs: Answers by output name, first axis samples.
        samples: What was asked.
    """
    count = len(samples)
    scores = next((a for a in outputs.values() if is_float(a) and a.ndim == 2 and a.shape[1] >= 2), None)
    classes = None if scores is None else len(np.unique(top1_of(scores.astype(np.float64))))
    if scores is None:
        ratio, least = max((_movement(a) for a in outputs.values() if len(a) == count), default=0.0), _LEAST_SPREAD
    else:
        ratio, least = _class_movement(scores.astype(np.float64)), _LEAST_RATIO
    if not samples.inputs:
        warning = "the model has no inputs, so its answers cannot depend on them; agreement proves little"
        return Dependence(depends=False, ratio=ratio, classes=classes, warning=warning)
    if count < 2 or _all_equal(samples):
        what = "there is 1 sample" if count < 2 else f"all {count} samples are equal"
        warning = f"{what}, so whether the answers depend on the input cannot be told; give different samples"
        return Dependence(depends=True, ratio=ratio, classes=classes, warning=warning)
    one_class = classes == 1 and count >= _ENOUGH_SAMPLES
    depends = ratio >= least and not (one_class and ratio < _FEW_CLASSES_RATIO)
    return Dependence(
        depends=depends,
        ratio=ratio,
        classes=classes,
        warning=_warning(depends=depends, one_class=one_class, ratio=ratio, count=count),
    )


def _warning(*, depends: bool, one_class: bool, ratio: float, count: int) -> str | None:
    same = f"all {count} samples get the same class" if one_class else f"{count} different samples get the same answer"
    if not depends:
        return (
            f"the model's answers hardly depend on its input ({same}; they vary by {100 * ratio:.2g} % of their "
            "size): are its weights trained? Agreement with it proves nothing"
        )
    if one_class:
        return f"{same}: top-1 agreement on them proves little; give samples of different classes"
    return None


def _class_movement(scores: Array) -> float:
    """Spread over samples against spread over classes of the mean answer (a shift of all classes is no answer)."""
    finite = np.where(np.isfinite(scores), scores, 0.0)
    moves = finite - finite.mean(axis=1, keepdims=True)
    spread = spread_of(moves)
    level = rms(moves.mean(axis=0))
    return _ratio(spread, level)


def _movement(answers: Array) -> float:
    if answers.dtype.kind not in "iub" and not is_float(answers):
        return float(len(np.unique(answers)) > 1)
    values = answers.real.astype(np.float64) if answers.dtype.kind == "c" else answers.astype(np.float64)
    finite = np.where(np.isfinite(values), values, 0.0)
    return _ratio(spread_of(finite), rms(finite))


def _ratio(spread: float, level: float) -> float:
    # Beyond 1000 the number says nothing more, and infinity has no place in a result file.
    if spread == 0.0:
        return 0.0
    return 1e3 if level == 0.0 else min(spread / level, 1e3)


def _all_equal(samples: Samples) -> bool:
    return all(bool(np.all(array == array[:1])) for array in samples.inputs.values())
