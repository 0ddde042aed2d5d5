"""Run a study: describe its models, make their files, measure every group, go on where a run was interrupted."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from redline import __version__
from redline.backends.nvidia import find_gpus
from redline.core.errors import InputError, RedlineError, WorkerError
from redline.core.files import stem_of
from redline.core.host import available_cores
from redline.core.plain import to_plain
from redline.core.processes import command_line
from redline.data.images import SUFFIXES
from redline.measurement.disturbance import free_threads, idle_cores
from redline.measurement.environment import Environment, comparable, fingerprint, noise_check, usable_cores
from redline.measurement.latency import clock_resolution_s, harness_overhead_s
from redline.study.ceilings import measure_cpu, measure_gpu
from redline.study.config import StudyConfig
from redline.study.crew import openers
from redline.study.describe import ModelAt, check_batches, describe_at, is_onnx, weights_file
from redline.study.files import Shelf, Workshop
from redline.study.group import Choose, GroupRun, Orders
from redline.study.hold import Place
from redline.study.inputs import SHIPPED
from redline.study.journal import Journal, cells_of
from redline.study.launch import reason_against, require_gpu
from redline.study.plan import WITHOUT_TORCH, CellGroup, baseline_of, expected_s, group_cells, plan_cells
from redline.study.records import (
    ArtifactMade,
    Bandwidth,
    CellEnded,
    ClockFacts,
    Conclusion,
    Data,
    Machine,
    Macs,
    Model,
    Node,
    Purpose,
    Record,
    Retry,
    Run,
    Size,
    SkippedFile,
)

Listener = Callable[[str, float, float], None]
Models = Mapping[str, Mapping[Size, ModelAt]]
#: What the results call this machine.
NODE = "here"
_FEW_S, _FILES_S, _CEILINGS_S = 2.0, 15.0, 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The machine as a study meets it.

    Attributes:
        idle_cores: Cores' worth of work that others did in the second before.
    """

    environment: Environment
    idle_cores: float | None

    @classmethod
    def read(cls) -> Conditions:
        """Look at the machine, and for a second at what else it does."""
        return cls(environment=fingerprint(noise=noise_check()), idle_cores=idle_cores())

    def threads(self, asked: int) -> int:
        """Those that were asked for, or as many as cores that nothing else uses."""
        return asked or free_threads(usable_cores(self.environment), self.idle_cores or 0.0, cores=available_cores())

    def machine(self, devices: Sequence[str]) -> Machine:
        """As it stands in the results."""
        return Machine(environment=self.environment, gpus=find_gpus().gpus if "cuda" in devices else ())


class Progress:
    """Adds up expected seconds of work, and tells a listener what is being done and how much of it is done."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self.total_s = self.done_s = 0.0

    def say(self, text: str) -> None:
        """Name what is being done now."""
        if self._listener:
            self._listener(text, min(self.done_s, self.total_s), self.total_s)


class StudyRun:
    """One study on its way from a configuration to a journal that has everything."""

    def __init__(
        self,
        config: StudyConfig,
        place: Place,
        journal: Journal,
        purpose: Purpose,
        *,
        choose: Choose | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Prepare it.

        Args:
            config: What is asked.
            place: Where it lies; held by the caller.
            journal: Its results file.
            purpose: Whose study it is.
            choose: Who of a group is measured again in fresh processes.
            listener: Called with (what is being done, expected seconds done, expected seconds in all).
        """
        self.place, self.journal, self._purpose, self._choose = place, journal, purpose, choose
        self._progress = Progress(listener)
        if "cuda" in config.devices and purpose == "tune":
            require_gpu()
        self._conditions = Conditions.read()
        self.config = self._resolved(config)
        self.workshops: dict[tuple[str, Size], Workshop] = {}
        self._added_s: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Name what is being done now."""
        self._progress.say(text)

    def run(self, cluster: str | None = None) -> None:
        """Measure what is not measured.

        Args:
            cluster: Address of a Ray cluster to spread the groups over; None measures here.

        Raises:
            InputError: the journal holds another run, or no model can be loaded; says what to do.
        """
        self._check_settings()
        self.say("load the models")
        models, refused = self._models()
        groups = self._groups(models)
        self._progress.total_s = _FILES_S + _CEILINGS_S + sum(expected_s(group, self.config) for group in groups)
        self._begin(models, groups, refused, on_cluster=cluster is not None)
        waiting = self._open_groups(groups, refused)
        if cluster is None:
            self._measure_here(waiting, models)
        else:
            self._measure_elsewhere(cluster, waiting, models)

    def _resolved(self, config: StudyConfig) -> StudyConfig:
        """The configuration with its threads, and with a baseline that its models have."""
        known = self.journal.run
        threads = config.threads
        if not threads and known is not None:  # a resumed run goes on with those that it began with
            threads = known.settings.threads
        config = replace(config, threads=self._conditions.threads(threads))
        if all(map(is_onnx, config.models)) and config.baseline == "torch-fp32":
            config = replace(config, baseline=WITHOUT_TORCH)
        return config

    def _groups(self, models: Models) -> tuple[CellGroup, ...]:
        sizes = {name: tuple(found) or ((0, 0),) for name, found in models.items()}
        groups = group_cells(plan_cells(self.config, sizes), self.config.seed)
        if self._purpose == "tune":
            return tuple(sorted(groups, key=lambda group: group.batch))
        return tuple(replace(group, extra=()) for group in groups)

    def _begin(
        self,
        models: Models,
        groups: Sequence[CellGroup],
        refused: Mapping[tuple[str, Size], str],
        *,
        on_cluster: bool,
    ) -> None:
        """Write the run, or check that it is the one of the interrupted run."""
        run = self._run_record(models, groups)
        if self.journal.run is None:
            self.journal.append(run)
            if not on_cluster:
                self.journal.append(Node(node=NODE, machine=run.machine))
            return
        self._refuse(_changed(self.journal.run, run))
        ended = cells_of(self.journal.records)
        # A run that is finished has nothing to try again.
        if all(cell.id in ended for group in groups for cell in group.cells) and not self._unconcluded():
            return
        for cell in ended.values():
            if cell.outcome == "failed" and (cell.model, cell.size) not in refused:
                self.journal.append(Retry(cell=cell.cell))

    def _unconcluded(self) -> bool:
        return self._purpose == "tune" and not self.journal.has(Conclusion)

    def _open_groups(self, groups: Sequence[CellGroup], refused: Mapping[tuple[str, Size], str]) -> list[CellGroup]:
        """Those with something left to do; what cannot be loaded is a row with the reason."""
        ended = cells_of(self.journal.records)
        waiting = []
        for group in groups:
            reason = refused.get((group.model, group.size))
            if reason is None:
                waiting.append(group)
                continue
            for cell in group.cells:
                if cell.id not in ended:
                    told = cell.ended("failed", stage="load", reason=reason)
                    self.journal.append(replace(told, node=NODE))
        return waiting

    def _measure_here(self, groups: Sequence[CellGroup], models: Models) -> None:
        run = self.journal.run
        if run is None:
            return
        self._prepare(groups, models)
        for group in groups:
            before_s, planned_s = self._progress.done_s, expected_s(group, self.config)
            took = partial(self._took, group)
            orders = Orders(run=run, config=self.config, choose=self._choose, say=self.say, took=took)
            workshop = self.workshops[group.model, group.size]
            past = past_of(self.journal.records, group)
            for record in GroupRun(group, workshop, orders, past).records():
                self.journal.append(replace(record, node=NODE) if isinstance(record, CellEnded) else record)
            self._progress.done_s = before_s + planned_s
        for workshop in self.workshops.values():
            workshop.close()
        # Last, as it is the longest step that cannot go on from its middle.
        self._measure_ceilings()

    def _took(self, group: CellGroup, call_s: float) -> None:
        """The expected time of everything, once a group's slowest call is known."""
        more_s = expected_s(group, self.config, call_s=call_s) - expected_s(group, self.config)
        self._progress.total_s += more_s - self._added_s.get(group.title, 0.0)
        self._added_s[group.title] = more_s

    def _prepare(self, groups: Sequence[CellGroup], models: Models) -> None:
        """What each model at each size needs: its files, made before anything is measured, and its multiply-adds."""
        at = {(group.model, group.size): group for group in groups}
        self.workshops = {(name, size): self.workshop(models[name][size]) for name, size in at}
        self.say("make the model files")
        known = {(macs.model, macs.size) for macs in self.journal.of(Macs)}
        interpreters = dict(self.config.interpreters)

        def prepare(key: tuple[str, Size]) -> Macs | None:
            shop, group = self.workshops[key], at[key]
            variants = {cell.variant.name: cell.variant for cell in group.cells if cell.refused is None}.values()
            able = [v for v in variants if reason_against(v, interpreters.get(v.backend, "")) is None]
            shop.prepare(able, at_once=max(1, slots // len(at)))
            return shop.macs() if key not in known else None

        slots = openers(self.config.threads)
        with ThreadPoolExecutor(slots) as pool:
            for macs in pool.map(prepare, at):
                if macs is not None:
                    self.journal.append(macs)
        self._progress.done_s += _FILES_S

    def workshop(self, model: ModelAt) -> Workshop:
        """What makes files and engines of a model."""
        height, width = model.size
        folder = self.place.folder
        if self._purpose == "bench":
            folder = folder / stem_of(model.name) / f"{height}x{width}"
        folder.mkdir(parents=True, exist_ok=True)
        shelf = Shelf(
            root=self.place.folder,
            folder=folder,
            whole=lambda path: self.journal.whole_artifact(self.place.folder, path),
            keep=self._keep,
        )
        return Workshop(model, self.config, shelf)

    def _keep(self, record: ArtifactMade) -> None:
        self.journal.append(record)

    def _measure_elsewhere(self, address: str, groups: Sequence[CellGroup], models: Models) -> None:
        from redline.study.cluster import Cluster

        def keep(group: CellGroup, records: Sequence[Record]) -> None:
            known = {node.node for node in self.journal.of(Node)}
            for record in records:
                if not isinstance(record, Node) or record.node not in known:
                    self.journal.append(record)
            self._progress.done_s += expected_s(group, self.config)
            self.say(f"{group.title}: done")

        run = self.journal.run
        if run is None:
            return
        with Cluster(address, self.config) as cluster:
            work = [(group, past_of(self.journal.records, group)) for group in groups]
            cluster.measure(work, models, run, self._choose, keep)

    def _models(self) -> tuple[dict[str, dict[Size, ModelAt]], dict[tuple[str, Size], str]]:
        """Each model at each size; a pair that cannot be loaded is there with the reason."""
        found: dict[str, dict[Size, ModelAt]] = {}
        refused: dict[tuple[str, Size], str] = {}
        for name in self.config.models:
            found[name] = {}
            for size, model in self._at_each_size(name):
                if isinstance(model, ModelAt):
                    found[name][model.size] = model
                elif isinstance(model, WorkerError) and self._purpose == "bench":
                    refused[name, size or (0, 0)] = str(model)
                else:
                    raise model
        if not any(found.values()):
            raise InputError(f"no model can be loaded: {'; '.join(dict.fromkeys(refused.values()))}")
        if self._purpose == "tune":
            for sizes in found.values():
                for model in sizes.values():
                    check_batches(model, self.config.batches)
        return found, refused

    def _at_each_size(self, name: str) -> Iterator[tuple[Size | None, ModelAt | RedlineError]]:
        folder = self.place.folder
        weights = folder / "artifacts" / "weights.safetensors"
        if self._purpose == "bench":
            weights = weights_file(folder, name)

        def at(size: Size | None) -> tuple[Size | None, ModelAt | RedlineError]:
            try:
                return size, describe_at(name, size, weights, self.config)
            except WorkerError as error:
                return size, error

        waiting = deque(self.config.sizes or (None,))
        while waiting:
            size, model = at(waiting.popleft())
            yield size, model
            if isinstance(model, ModelAt):
                break  # it saved the weights, which the others load
        with ThreadPoolExecutor(openers(self.config.threads)) as pool:
            yield from pool.map(at, waiting)

    def _check_settings(self) -> None:
        """Refuse to mix runs: another study, another machine, other versions."""
        run = self.journal.run
        if run is None:
            if self._purpose == "bench":
                shutil.rmtree(self.place.folder, ignore_errors=True)
            return
        if run.purpose != self._purpose:
            raise InputError(f"{self.place.shown} is of redline {run.purpose}; take another")
        was, now = run.settings, self.config
        changed = [
            f"another {name} ({_shown(getattr(was, name))}, now {_shown(getattr(now, name))})"
            for name in StudyConfig.__dataclass_fields__
            if getattr(was, name) != getattr(now, name)
        ]
        self._refuse([*changed, *comparable(run.machine.environment, self._conditions.environment)])

    def _refuse(self, differences: Sequence[str]) -> None:
        if differences:
            raise InputError(
                f"{self.place.shown} holds a run with {'; '.join(differences)}; resume with the same, or take another"
            )

    def _run_record(self, models: Models, groups: Sequence[CellGroup]) -> Run:
        config = self.config
        cells = [cell for group in groups for cell in group.cells]
        baselines: dict[str, str] = {
            device: variant.name for device in config.devices if (variant := baseline_of(config, device))
        }
        return Run(
            purpose=self._purpose,
            run_id=uuid.uuid4().hex,
            redline=__version__,
            command=command_line(f"redline.{self._purpose}(…)"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            name=config.name or ", ".join(config.models),
            commit=_commit(),
            settings=config,
            baselines=baselines,
            variants=tuple(dict.fromkeys(cell.variant.name for cell in cells)),
            cells=len(cells),
            models=tuple(self._record_of(sizes) for sizes in models.values() if sizes),
            data=self._data(models),
            machine=self._conditions.machine(config.devices),
            clock=ClockFacts(resolution_s=clock_resolution_s(), overhead_s=harness_overhead_s()),
            idle_cores=self._conditions.idle_cores,
        )

    def _record_of(self, sizes: Mapping[Size, ModelAt]) -> Model:
        return next(iter(sizes.values())).record(self.place.folder)

    def _data(self, models: Models) -> Data:
        """What a tune verifies on; of a bench, what its loaders read."""
        config = self.config
        if self._purpose == "tune":
            first = next(model for sizes in models.values() for model in sizes.values())
            chosen = self.workshop(first).samples
            verification = chosen.verification
            return Data(
                source=verification.source,
                fingerprint=verification.fingerprint()[:16],
                calibration=len(chosen.calibration),
                verification=len(verification),
                labelled=verification.labels is not None,
                skipped=tuple(SkippedFile(s.name, s.reason) for s in verification.skipped),
                warning=chosen.warning,
            )
        if "real" not in config.loaders:
            return Data(source=config.data)
        folder = Path(config.data) if config.data else SHIPPED
        images = sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")) if folder.is_dir() else 0
        source = str(folder) if config.data else "crops of 11 photographs that ship with Redline"
        return Data(source=source, images=images)

    def _measure_ceilings(self) -> None:
        known = {record.device for record in self.journal.of(Bandwidth)}
        for device in self.config.devices:
            if device in known or (device == "cuda" and not find_gpus().gpus):
                continue
            self.say("measure this machine's limits")
            with tempfile.TemporaryDirectory(prefix=".work-", dir=self.place.folder) as scratch:
                threads = self.config.threads
                for record in measure_cpu(Path(scratch), threads) if device == "cpu" else measure_gpu(threads):
                    self.journal.append(record)


def past_of(records: Sequence[Record], group: CellGroup) -> list[Record]:
    """What was written of a group, and of its model as a whole."""
    ids = {cell.id for cell in (*group.cells, *group.extra)}

    def is_mine(record: Record) -> bool:
        if isinstance(record, Run | Node):
            return False
        if (cell := getattr(record, "cell", None)) is not None:
            return cell in ids
        if (title := getattr(record, "group", None)) is not None:
            return bool(title == group.title)
        if (size := getattr(record, "size", None)) is not None:
            return bool((record.model, size) == (group.model, group.size))  # type: ignore[union-attr]
        return False

    return [record for record in records if is_mine(record)]


def dry_run(config: StudyConfig) -> tuple[tuple[CellGroup, ...], float]:
    """The groups of a study and about how many seconds they take; nothing is loaded or measured.

    Of calls nothing is known before: those of a network like ResNet-18 are taken.
    """
    groups = group_cells(plan_cells(config), config.seed)
    return groups, _FILES_S + _CEILINGS_S + sum(expected_s(group, config) for group in groups)


def _changed(old: Run, new: Run) -> list[str]:
    """Why an interrupted run is not of what a new one would be of."""
    found: list[str] = []
    for before, after in zip(old.models, new.models, strict=False):
        for name in ("name", "sha256", "parameters", "signature"):
            found += _difference(f"model {name}", getattr(before, name), getattr(after, name))
    for name in ("source", "fingerprint"):
        found += _difference(f"data {name}", getattr(old.data, name), getattr(new.data, name))
    return [*found, *old.machine.other_gpus(new.machine)]


def _difference(what: str, before: object, after: object) -> list[str]:
    return [f"another {what} ({before!r}, now {after!r})"] if before != after else []


def _shown(value: object) -> str:
    plain = to_plain(value)
    return ",".join(map(str, plain)) if isinstance(plain, list) else repr(plain)


def _commit() -> str | None:
    """The commit of this Redline where it runs from a checkout; ends in ``-dirty`` where that was changed since."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    told = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None
