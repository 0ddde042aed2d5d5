"""What each axis of a grid does, and what must not be read into it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from redline.findings.claims import SAME_BAND, Claim, Verdict, claim_of
from redline.findings.contest import full_precision_peer, paired, usable
from redline.findings.findings import Finding, Rows, Topic, finding
from redline.findings.scaling import Fit
from redline.findings.wording import Scope, cells, model_only, names, share, span, split, unique
from redline.measurement.stats import percentile
from redline.study.records import Run
from redline.study.rows import Row

#: An exponent whose interval is wider than this says next to nothing.
_WIDE_EXPONENT = 0.5
#: From so many comparisons on, a 99 % interval is expected to miss at least once in two runs.
_MANY_COMPARISONS = 50
#: Intervals of that half width are no measurement.
_NO_USE = 0.5


def effects(run: Run, rows: Rows, fits: Sequence[Fit], scope: Scope) -> Iterator[Finding]:
    """Lower precisions, growth with batch and pixels, real images, the baseline, and cautions.

    Args:
        run: The run's first record.
        rows: All rows, not only those with a time.
        fits: From :func:`redline.findings.scaling.fit_rows`.
        scope: Of the rows.
    """
    timed = [row for row in rows if row.time_s is not None]
    yield from _against_full(timed, scope, ("fp16", "bf16"), "fp16")
    yield from _against_full(timed, scope, ("int8", "fp8"), "int8")
    yield from _scaling(run, timed, fits, scope)
    yield from _loader(timed, scope)
    yield from _baseline(run, timed, scope)
    yield from _caution(rows, scope)


def _against_full(rows: Rows, scope: Scope, requested: Sequence[str], topic: Topic) -> Iterator[Finding]:
    """When a lower precision pays: against FP32 run the same way, over all its cells."""
    for series in split([row for row in model_only(rows) if row.requested in requested], "model", "variant", "device"):
        found = [
            (row, peer, ratio)
            for row in series
            if (peer := full_precision_peer(row, rows)) is not None and (ratio := paired(peer, row)) is not None
        ]
        if found:
            yield _about_precision(found, scope, topic)


def _about_precision(found: Sequence[tuple[Row, Row, Claim]], scope: Scope, topic: Topic) -> Finding:
    row, peer, _ = found[0]
    faster = sum(ratio.verdict == "faster" for _, _, ratio in found)
    unknown = not faster and any(not ratio.says_speed for _, _, ratio in found)
    pays = "pays" if faster == len(found) else "pays in part" if faster else "does not pay"
    pays = "cannot be judged" if unknown else pays
    text = f"{scope.place(row, size=False)} {row.requested.upper()} {pays} for {row.title}, against {peer.title}: "
    text += _counted([ratio for _, _, ratio in found])
    if row.fell_back:
        text += f"; but it ran {row.layers_text}"
    agreed = [r.top1_agreement for r, _, _ in found if r.top1_agreement is not None]
    if agreed:
        lowest = min(agreed)
        text += "; its top-1 answers are the baseline's" + ("" if lowest == 1 else f" in {share(lowest)} or more")
    if not all(usable(r) for r, _, _ in found):
        text += "; it does not answer as the baseline does, so its speed counts for nothing"
    return finding(topic, text, [r for r, _, _ in found])


def _counted(claims: Sequence[Claim]) -> str:
    """How many are faster, the same, slower or not known, and by how much."""
    told = []
    for verdict, words in _WORDS:
        same = [claim.value for claim in claims if claim.verdict == verdict and claim.value is not None]
        count = sum(claim.verdict == verdict for claim in claims)
        if count:
            speed = f" ({span(same)} times the speed)" if verdict in ("faster", "slower") else ""
            told.append(f"{words} in {cells(count, len(claims))}{speed}")
    return ", ".join(told)


_WORDS: tuple[tuple[Verdict, str], ...] = (
    ("faster", "faster"),
    ("same", f"the same within {100 * SAME_BAND:.0f} %"),
    ("slower", "slower"),
    ("undecided", "not decided"),
    ("disturbed", "too disturbed to say"),
)


def _scaling(run: Run, rows: Rows, fits: Sequence[Fit], scope: Scope) -> Iterator[Finding]:
    """How time grows: in full for the baseline, as a range for all variants."""
    loader = next((row.loader for row in model_only(rows)), None)
    found: dict[tuple[str, str, str], list[Fit]] = {}
    for fit in fits:
        if fit.loader == loader:
            found.setdefault((fit.model, fit.device, fit.over), []).append(fit)
    for same in found.values():
        baseline = run.baselines.get(same[0].device)
        variant = baseline if any(fit.variant == baseline for fit in same) else same[0].variant
        yield _about_fits([fit for fit in same if fit.variant == variant], same, rows, scope)


def _about_fits(chosen: Sequence[Fit], same: Sequence[Fit], rows: Rows, scope: Scope) -> Finding:
    """The exponents of one variant, over the batch or over the pixels, and the range of all variants."""
    first = chosen[0]
    places = {fit.fixed for fit in same}
    members = [r for r in rows if (r.model, r.device, r.loader) == (first.model, first.device, first.loader)]
    members = [r for r in members if places & {r.size, f"batch {r.batch}"}]
    title = next(row.title for row in members if row.variant == first.variant)
    what = "batch" if first.over == "batch" else "number of pixels"
    low, high = min(fit.low for fit in chosen), max(fit.high for fit in chosen)
    words = unique(fit.words for fit in chosen)
    wide = high - low >= _WIDE_EXPONENT or len(words) > 1
    meaning = "intervals too wide to say more" if wide else words[0]
    at = first.fixed if len(chosen) == 1 else f"{len(chosen)} {'image sizes' if first.over == 'batch' else 'batches'}"
    plural = "s" if len(chosen) > 1 else ""
    text = (
        f"{scope.place(members[0], size=False)}, {at}: the time of {title} grows with the {what} to the power "
        f"{span(fit.exponent for fit in chosen)} (95 % interval{plural} {low:.2f} to {high:.2f}, "
        f"{first.points} points): {meaning}"
    )
    variants = {other.variant for other in same}
    if len(variants) > 1:
        exponents = span(other.exponent for other in same)
        text += f". Over the {len(variants)} variants with enough points the exponents are {exponents}"
    return finding("scaling", text, [row for row in members if row.variant in variants])


def _loader(rows: Rows, scope: Scope) -> Iterator[Finding]:
    """What real images cost the model itself, and the pipeline around it."""
    for series in split([row for row in rows if row.loader == "real"], "model", "device"):
        dummies = {
            (r.variant, r.batch, r.size): r
            for r in rows
            if (r.loader, r.model, r.device) == ("dummy", series[0].model, series[0].device)
        }
        ratios = [
            ratio
            for row in series
            if (dummy := dummies.get((row.variant, row.batch, row.size))) and (ratio := paired(dummy, row))
        ]
        if ratios:
            text = f"{scope.place(series[0], size=False)} real images in the place of dummy ones, for the model alone"
            yield finding("loader", f"{text}: {_counted(ratios)}", series)
        ahead = [row.pipeline_s / row.latency_s for row in series if row.pipeline_s and row.latency_s]
        line = [row.serial_s / row.latency_s for row in series if row.serial_s and row.latency_s]
        if ahead:
            text = (
                f"{scope.place(series[0], size=False)} a batch with the loader working ahead takes {span(ahead)} times"
            )
            serial = f"; with its work in line {span(line)} times" if line else ""
            yield finding("loader", f"{text} the model's own time{serial}", series)


def _baseline(run: Run, rows: Rows, scope: Scope) -> Iterator[Finding]:
    for series in split(rows, "model", "device"):
        place = scope.place(series[0], size=False)
        name = run.baselines.get(series[0].device)
        base = [row for row in series if row.is_baseline]
        others = [row for row in series if not row.is_baseline and not row.control]
        if not base:
            why = f"the baseline {name} was not measured" if name else "no baseline was named"
            yield finding("baseline", f"{place} {why}, so no speed-up is told", series)
            continue
        counted = Counter(claim.verdict if (claim := claim_of(row)) else None for row in others)
        known = [f"{counted[verdict]} {words}" for verdict, words in _VERDICTS if counted[verdict]]
        text = f"{place} against {base[0].title}, the baseline, {names(known)}" if known else ""
        if counted[None]:
            lacking = f"{counted[None]} of {len(others)} cells could not be compared"
            text = f"{text}; {lacking}" if text else f"{place} {lacking} with the baseline"
        if text:
            yield finding("baseline", text, base)


_VERDICTS: tuple[tuple[Verdict, str], ...] = (
    ("faster", "cells are faster"),
    ("same", f"are the same within {100 * SAME_BAND:.0f} %"),
    ("slower", "are slower"),
    ("undecided", "are not decided"),
    ("disturbed", "are too disturbed to say"),
)


def _caution(rows: Rows, scope: Scope) -> Iterator[Finding]:
    timed = [row for row in rows if row.time_s is not None]
    yield from _smallest_difference(timed)
    compared = sum(claim.says_speed for row in timed if (claim := claim_of(row)))
    if compared >= _MANY_COMPARISONS:
        text = (
            f"Of {compared} comparisons with 99 % intervals, about {math.ceil(compared / 100)} may differ by accident"
        )
        yield Finding(topic="caution", text=f"{text}.")
    if scope.batches or scope.sizes:
        text = (
            "Cells of different batches or sizes were not measured in the same rounds: what is said across them also "
            "holds the machine's drift"
        )
        yield Finding(topic="caution", text=f"{text}.")
    tf32 = [row for row in timed if row.precision == "tf32"]
    if tf32:
        titles = names(row.title for row in tf32)
        text = f"{titles} ran TF32, products with an 11-bit significand: part of the speed is precision given up"
        yield finding("caution", text, tf32)
    unknown = [row for row in timed if not row.is_baseline and (row.top1_agreement, row.relative_error) == (None, None)]
    if unknown:
        text = f"the answers of {names(row.title for row in unknown)} were not compared with the baseline's"
        yield finding("caution", text[0].upper() + text[1:], unknown)
    failed = [row for row in rows if row.outcome == "failed"]
    if failed:
        titles = names(row.title for row in failed)
        yield finding(
            "caution", f"{len(failed)} of {len(rows)} cells failed ({titles}): nothing is known of them", failed
        )


def _smallest_difference(rows: Rows) -> Iterator[Finding]:
    """Below which difference the run cannot tell two variants apart."""
    for series in split(rows, "device"):
        widths = [math.exp(row.ratio.half_width) - 1 for row in series if row.ratio is not None]
        if not widths:
            continue
        least, most = median(widths), percentile(widths, 90)
        if most > _NO_USE:
            text = (
                f"on {series[0].device} one interval in ten or more is wider than a factor of {1 + most:.1f} either "
                "way: measure again on a quieter machine, or with more rounds"
            )
            yield finding("caution", text, [])
            continue
        text = (
            f"on {series[0].device} differences under {100 * most:.1f} % mean nothing here: half the width of nine "
            f"intervals in ten is below that, and of half of them below {100 * least:.1f} %"
        )
        yield finding("caution", text, [])
