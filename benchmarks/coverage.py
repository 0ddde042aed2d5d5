"""Do the intervals hold the truth as often as they say, and is nothing said of disturbed runs? By simulation.

Runs are drawn in which the truth is known, and judged by Redline's own functions: which rounds and windows count
(``kept_rounds``, ``Process.means_s``), the ratio, its interval and what it rests on (``with_ratio``), and what may be
said of it (``claim_of``). A run is that of ``redline tune``: a screen of 14 cells (baseline, control, 12 variants) in
3 processes of 6 rounds, then 6 fresh processes of 10 rounds of baseline, control and the two fastest of the screen.

What is drawn (all in logarithms of time, one standard deviation):

- every process of every cell has an effect of its own (memory layout and the like): 0.3, 1, 1.2 or 3 %;
- the machine drifts by 2 %, correlated from window to window by 0.95, and each cell's window has noise of its own of
  1 %, correlated by 0.5 from round to round of its process;
- calls take 0.05, 0.5, 5 or 50 ms, windows 50 ms or four of the slowest calls;
- neighbours take the core in slices of 3 ms: in 15 % of windows ("light"), each drawn by itself, one slice and on
  average a tenth of the window besides; in 40 % and 15 % of it ("moderate"); in 70 % and a quarter of it ("heavy"); or
  as that, and the variants suffer twice what their run delay tells ("unequal").

Wanted, with the whole 95 % interval of each share: intervals of 99 % hold the truth in 98.5 % of what is published
(98 % where processes differ by 3 %), equals are called faster or slower in at most 1.5 %, 5 % are seen in 95 % of runs
(up to 1.2 %, quiet and light), the ratio of a true 5.2 is off by 0.5 % at most, and 95 % of heavy and unequal runs are
withheld, but 2 % of quiet ones at most. A moderate load has no target of its own.

What the model leaves out: more than one thread, caches, clocks, and neighbours whose activity follows the order.

    python benchmarks/coverage.py --draws 12000 -o results/cpu/coverage.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import redline
from redline.commands.tune import TUNE
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.findings.claims import Claim, claim_of
from redline.measurement.disturbance import Disturbance, kept_rounds
from redline.measurement.environment import fingerprint
from redline.measurement.stats import clopper_pearson
from redline.study.derive import with_ratio
from redline.study.plan import confirm_rounds
from redline.study.records import Phase
from redline.study.rows import Process, Row

VARIANTS, SCREEN, CONFIRM = 12, (TUNE.repeats, TUNE.rounds), (TUNE.confirm, confirm_rounds(TUNE))
CALLS_S = (0.00005, 0.0005, 0.005, 0.05)
DRIFT, DRIFT_KEPT, NOISE, NOISE_KEPT = 0.02, 0.95, 0.01, 0.5
SLICE_S, LEAST_WINDOW_S, LEAST_CALLS = 0.003, 0.05, 4
Case = dict[str, Any]
EFFECTS = (0.003, 0.01, 0.012, 0.03)
HERE = Path(__file__).resolve().parents[1]
_CHUNK = 250


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes:
        effect: Standard deviation of a process's logarithm.
        faster: How many times faster than the baseline the first variant is; the others are as fast as the baseline.
        hit: The share of windows that neighbours take from.
        taken: The share of such a window that they take, on average, besides one slice.
        unseen: What a variant suffers over what its run delay tells.
        calls_s: The baseline's calls; draws take turns.
    """

    effect: float
    faster: float = 1.0
    hit: float = 0.0
    taken: float = 0.0
    unseen: float = 1.0
    calls_s: tuple[float, ...] = CALLS_S

    def true_ratio(self, variant: int) -> float:
        """Of a variant, counted from 0."""
        return self.faster if variant == 0 else 1.0


QUIET: dict[str, float] = {}
LIGHT = {"hit": 0.15, "taken": 0.1}
HEAVY = {"hit": 0.7, "taken": 0.25}
UNEQUAL = {**HEAVY, "unseen": 2.0}
MODERATE = {"hit": 0.4, "taken": 0.15}
LOADS = {"quiet": QUIET, "light": LIGHT, "moderate": MODERATE, "heavy": HEAVY, "unequal": UNEQUAL}


@dataclass(frozen=True)
class Windows:
    """Of one phase of some draws: arrays ``[draw, process, round, cell]``; cells are baseline, control, variants."""

    means_s: np.ndarray
    delay: np.ndarray
    calls: np.ndarray
    window_s: np.ndarray


@dataclass
class Outcome:
    """What came of the draws of one scene.

    Attributes:
        screen: What was said of one variant that was screened alone, and whether its interval held the truth.
        confirmed: The same of the fastest of the screen.
        planted: The same of the first variant, where it was confirmed.
        errors: Of the confirmed ratio, in logarithms, where it was not withheld.
    """

    draws: int = 0
    screen: list[tuple[Claim, bool]] = field(default_factory=list)
    confirmed: list[tuple[Claim, bool]] = field(default_factory=list)
    planted: list[Claim] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def windows(rng: np.random.Generator, scene: Scene, calls_s: np.ndarray, shape: tuple[int, int]) -> Windows:
    """Draw one phase: ``calls_s`` is the true time of a call, ``[draw, cell]``."""
    draws, cells = calls_s.shape
    processes, rounds = shape
    size = (draws, processes, rounds, cells)
    window_s = np.maximum(LEAST_WINDOW_S, LEAST_CALLS * calls_s.max(axis=1))[:, None, None, None]
    logs = rng.normal(0, scene.effect, (draws, processes, 1, cells)) + _noise(rng, size) + _drift(rng, size)
    call_s = calls_s[:, None, None, :] * np.exp(logs)
    slices = (rng.random(size) < scene.hit) * (1 + rng.poisson(scene.taken * window_s / SLICE_S, size))
    stolen_s = np.minimum(slices * SLICE_S, 0.9 * window_s)
    felt_s = stolen_s.copy()
    felt_s[..., 2:] *= scene.unseen
    calls = np.ceil(np.maximum(window_s - felt_s, 0) / call_s).clip(1)
    elapsed_s = calls * call_s + felt_s
    return Windows(elapsed_s / calls, stolen_s / elapsed_s, calls, window_s[:, 0, 0, 0])


def _noise(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Of each cell's windows, correlated from round to round."""
    fresh = rng.normal(0, NOISE, size)
    for index in range(1, size[2]):
        fresh[:, :, index] = NOISE_KEPT * fresh[:, :, index - 1] + math.sqrt(1 - NOISE_KEPT**2) * fresh[:, :, index]
    return fresh


def _drift(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Of the machine, window by window in the order in which the cells have their turns: random in every round."""
    draws, processes, rounds, cells = size
    path = rng.normal(0, DRIFT, (rounds * cells, draws, processes))
    for index in range(1, len(path)):
        path[index] = DRIFT_KEPT * path[index - 1] + math.sqrt(1 - DRIFT_KEPT**2) * path[index]
    in_order = path.reshape(rounds, cells, draws, processes).transpose(2, 3, 0, 1)
    place = rng.random(size).argsort(axis=3)
    return np.take_along_axis(in_order, place, axis=3)


def play(scene: Scene, draws: int, seed: int) -> Outcome:
    """Draw runs and judge them."""
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    for start in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - start)
        base_s = np.array([scene.calls_s[(start + i) % len(scene.calls_s)] for i in range(count)])
        truth = np.array([1.0, 1.0, *(scene.true_ratio(v) for v in range(VARIANTS))])
        calls_s = base_s[:, None] / truth
        screen = windows(rng, scene, calls_s, SCREEN)
        judged = [Judged(screen, index, phase="screen") for index in range(count)]
        ranks = np.array([one.fastest() for one in judged])
        finalists = np.concatenate([np.tile([0, 1], (count, 1)), ranks[:, :2]], axis=1)
        again = windows(rng, scene, np.take_along_axis(calls_s, finalists, axis=1), CONFIRM)
        for index in range(count):
            _record(outcome, scene, judged[index], ranks[index], Judged(again, index, phase="confirm"))
    return outcome


def _record(outcome: Outcome, scene: Scene, screen: Judged, ranks: np.ndarray, again: Judged) -> None:
    outcome.draws += 1
    # One row of the screen that is not among the finalists, any but the one that was planted.
    alone = next(cell for cell in range(VARIANTS + 1, 1, -1) if cell not in ranks[:2])
    outcome.screen.append(_told(screen, alone, scene.true_ratio(alone - 2)))
    truth = scene.true_ratio(int(ranks[0]) - 2)
    claim, held = _told(again, 2, truth)
    outcome.confirmed.append((claim, held))
    if not claim.reasons and claim.value:
        outcome.errors.append(math.log(claim.value / truth))
    for place in range(2):
        if ranks[place] == 2:
            outcome.planted.append(again.claim(2 + place))


def _told(judged: Judged, cell: int, truth: float) -> tuple[Claim, bool]:
    claim = judged.claim(cell)
    held = claim.low is not None and claim.high is not None and claim.low <= truth <= claim.high
    return claim, held


class Judged:
    """One phase of one run, as rows of a study."""

    def __init__(self, found: Windows, index: int, *, phase: Phase) -> None:
        self._phase: Phase = phase
        delays = found.delay[index].tolist()
        told = [[[Disturbance(run_delay=share) for share in one] for one in rounds] for rounds in delays]
        kept = [kept_rounds(rounds) for rounds in told]
        means, calls = found.means_s[index].tolist(), found.calls[index].astype(int).clip(max=_ENOUGH).tolist()
        self.processes = [
            tuple(
                Process(
                    phase,
                    number,
                    # Every call of a window as its mean: nothing but that and their count is looked at.
                    tuple((means[number][r][cell],) * calls[number][r][cell] for r in range(len(told[number]))),
                    kept[number],
                    tuple(windows[cell] for windows in told[number]),
                )
                for number in range(len(told))
            )
            for cell in range(found.means_s.shape[3])
        ]

    def fastest(self) -> list[int]:
        """The variants' cells, the fastest first."""
        return sorted(range(2, len(self.processes)), key=self._log_time)

    def _log_time(self, cell: int) -> float:
        logs = [[math.log(second) for second in process.means_s if second] for process in self.processes[cell]]
        return sum(sum(rounds) / len(rounds) for rounds in logs)

    def claim(self, cell: int) -> Claim:
        """What may be said of a cell against baseline and control."""
        found = claim_of(with_ratio(self._row(cell), self._row(0), self._row(1)))
        assert found is not None
        return found

    def _row(self, cell: int) -> Row:
        row = replace(_ROW, cell=str(cell), control=cell == 1, confirmed=self._phase == "confirm")
        return replace(row, processes=self.processes[cell])


_ENOUGH = 5
_TEXTS = ("cell", "model", "variant", "title", "backend", "runtime", "requested", "layers_text", "loader")
_ROW = Row(
    **dict.fromkeys(_TEXTS, ""), precision="fp32", device="cpu", batch=1, height=1, width=1, time_s=1.0, stable=True
)


def share(hits: Sequence[bool]) -> Case:
    """A share with its 95 % interval."""
    if not len(hits):
        return {"of": 0, "share": None, "low": None, "high": None}
    low, high = clopper_pearson(sum(hits), len(hits))
    return {"of": len(hits), "share": sum(hits) / len(hits), "low": low, "high": high}


def coverage(told: Sequence[tuple[Claim, bool]]) -> Case:
    """Of what was not withheld, how often the interval held the truth."""
    return share([held for claim, held in told if not claim.reasons])


def false_alarms(told: Sequence[tuple[Claim, bool]]) -> Case:
    """How often equals were called faster or slower."""
    return share([claim.verdict in ("faster", "slower") for claim, _ in told])


def withheld(told: Sequence[tuple[Claim, bool]]) -> Case:
    """How often nothing was said."""
    return share([bool(claim.reasons) for claim, _ in told])


def cases(draws: int) -> Iterator[Case]:
    """Every scene with what it showed and what was wanted."""
    seed = 0
    for load in ("quiet", "light"):
        for effect in EFFECTS:
            seed += 1
            yield from equals(Scene(effect, **LOADS[load]), load, draws, seed)
    for load in ("quiet", "light"):
        for effect in EFFECTS[:3]:
            seed += 1
            scene = Scene(effect, faster=1.05, **LOADS[load])
            yield from planted(scene, load, draws // 2, seed)
    for load in ("quiet", "light"):
        seed += 1
        yield from far(Scene(0.01, faster=5.2, calls_s=(0.052,), **LOADS[load]), load, draws // 2, seed)
    seed += 1
    yield from equals(Scene(0.012, **MODERATE), "moderate", draws // 4, seed)
    seed += 1
    yield from far(Scene(0.012, faster=5.2, calls_s=(0.052,), **MODERATE), "moderate", draws // 4, seed)
    for load in ("heavy", "unequal"):
        for effect in EFFECTS:
            for faster, calls_s in ((1.0, CALLS_S), (5.2, (0.052,))):
                seed += 1
                scene = Scene(effect, faster=faster, calls_s=calls_s, **LOADS[load])
                outcome = play(scene, max(draws // 10, 50), seed)
                yield case("withheld", "confirmed", load, scene, withheld(outcome.confirmed), least=0.95)


def equals(scene: Scene, load: str, draws: int, seed: int) -> Iterator[Case]:
    """Coverage and false alarms where all are equally fast."""
    outcome = play(scene, draws, seed)
    wanted = load != "moderate"
    least = (0.985 if scene.effect <= 0.012 else 0.98) if wanted else None
    for which, told in (("screen", outcome.screen), ("confirmed", outcome.confirmed)):
        yield case("coverage", which, load, scene, coverage(told), least=least)
        yield case("false alarms", which, load, scene, false_alarms(told), most=0.015 if wanted else None)
    most = 0.02 if load == "quiet" else None
    yield case("withheld", "confirmed", load, scene, withheld(outcome.confirmed), most=most)
    yield case("withheld", "screen", load, scene, withheld(outcome.screen))
    for place, call_s in enumerate(scene.calls_s):
        told = outcome.confirmed[place :: len(scene.calls_s)]
        only = replace(scene, calls_s=(call_s,))
        yield case("coverage", "confirmed", load, only, coverage(told))


def planted(scene: Scene, load: str, draws: int, seed: int) -> Iterator[Case]:
    """How often 5 % are seen; a run whose screen did not choose that variant counts as a miss."""
    outcome = play(scene, draws, seed)
    seen = [claim.verdict == "faster" for claim in outcome.planted]
    seen += [False] * (outcome.draws - len(seen))
    yield case("power at 5 %", "confirmed", load, scene, share(seen), least=0.95)
    yield case("coverage", "confirmed", load, scene, coverage(outcome.confirmed))


def far(scene: Scene, load: str, draws: int, seed: int) -> Iterator[Case]:
    """How far the confirmed ratio is off on average where calls are of unlike lengths, of what was not withheld."""
    outcome = play(scene, draws, seed)
    errors = np.array(outcome.errors)
    centre, error = float(errors.mean()), float(errors.std(ddof=1)) / math.sqrt(len(errors))
    found = {"of": len(errors), "share": centre, "low": centre - 1.96 * error, "high": centre + 1.96 * error}
    ends = (-0.005, 0.005) if load != "moderate" else (None, None)
    yield case("bias at 5.2 times", "confirmed", load, scene, found, least=ends[0], most=ends[1])
    least = 0.985 if load != "moderate" else None
    yield case("coverage", "confirmed", load, scene, coverage(outcome.confirmed), least=least)


def case(
    what: str,
    which: str,
    load: str,
    scene: Scene,
    found: Case,
    *,
    least: float | None = None,
    most: float | None = None,
) -> Case:
    """One line of the result; ``holds`` where the whole interval is on the right side of what was wanted."""
    holds = None
    if (least is not None or most is not None) and found["share"] is not None:
        holds = bool((least is None or found["low"] >= least) and (most is None or found["high"] <= most))
    drawn = {"what": what, "which": which, "load": load, **asdict(scene)}
    return {**drawn, **found, "least": least, "most": most, "holds": holds}


def line(found: Case) -> str:
    """One case in words."""
    wanted = {True: "holds", False: "MISSED", None: ""}[found["holds"]]
    numbers = " ".join(
        "-" if found[key] is None else f"{100 * float(found[key]):.2f}" for key in ("share", "low", "high")
    )
    calls = ",".join(f"{1000 * call:g}" for call in found["calls_s"])
    return (
        f"{found['what']:17} {found['which']:9} {found['load']:7} effect {100 * found['effect']:.1f} % "
        f"{calls:>14} ms x{found['faster']:<4g} {numbers:>22} of {found['of']:<6} {wanted}"
    )


def commit() -> str:
    """Of what judges; ends in ``-dirty`` where that or this file was changed since."""
    source = "src/redline"
    judges = [f"{source}/{name}.py" for name in ("measurement/stats", "measurement/disturbance", "findings/claims")]
    judges += [f"{source}/study/derive.py", f"{source}/study/rows.py", "benchmarks/coverage.py"]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", *judges) else "")


def table(result: Case) -> str:
    """The cases that had a target, as a page."""
    how = f"simulated runs at commit {result['commit'][:12]}, {result['draws']} draws, {result['seconds']:.0f} s"
    told = [
        "# Do the intervals hold the truth?",
        "",
        f"`{result['command']}`: {how} of one core. What is drawn and what was",
        "wanted stands in benchmarks/coverage.py; shares with their 95 % interval, in percent.",
        "",
        "| what | rows | load | process effect | calls, ms | found | 95 % interval | of | wanted | holds |",
        "| --- | --- | --- | ---: | --- | ---: | --- | ---: | --- | --- |",
    ]
    for one in result["cases"]:
        if one["holds"] is None:
            continue
        calls = ", ".join(f"{1000 * call:g}" for call in one["calls_s"])
        wanted = " to ".join(f"{100 * one[end]:g}" for end in ("least", "most") if one[end] is not None)
        word = "" if None not in (one["least"], one["most"]) else "least " if one["most"] is None else "most "
        found, low, high = (f"{100 * one[key]:.2f}" for key in ("share", "low", "high"))
        told.append(
            f"| {one['what']} | {one['which']} | {one['load']} | {100 * one['effect']:g} % | {calls} | {found} | "
            f"{low} to {high} | {one['of']} | {word}{wanted} | {'yes' if one['holds'] else '**no**'} |"
        )
    return "\n".join(told) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=12000, help="Runs drawn for each process effect and load.")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    before, judged_by = perf_counter(), commit()
    found = []
    for one in cases(args.draws):
        found.append(one)
        print(line(one), flush=True)
    missed = sum(one["holds"] is False for one in found)
    if args.out:
        result = {
            "benchmark": "coverage",
            "command": " ".join(["python", "benchmarks/coverage.py", *sys.argv[1:]]),
            "what": "simulated runs, judged by Redline's own functions; shares with 95 % Clopper-Pearson intervals",
            "commit": judged_by,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "redline": redline.__version__,
            "draws": args.draws,
            "seconds": round(perf_counter() - before, 1),
            "environment": to_plain(fingerprint()),
            "holds": not missed,
            "cases": found,
        }
        write_whole(args.out, json.dumps(result, indent=1) + "\n")
        write_whole(args.out.with_suffix(".md"), table(result))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
